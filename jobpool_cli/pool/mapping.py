"""`map` from Python: check the function and its arguments, and start a pool of them."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from jobpool_cli.clusters import LOCAL, cluster_meant, workers_of
from jobpool_cli.errors import InputError, UsageError
from jobpool_cli.layout import check_name
from jobpool_cli.model import PoolOptions, check_processes
from jobpool_cli.pool.jobpool import JobPool
from jobpool_cli.quantities import as_seconds, size
from jobpool_cli.worker.context import importing


class MapOptions(NamedTuple):
    """What `map` was told, beside the arguments of the tasks; ``Udf.map`` tells what each of them means."""

    engine: object = LOCAL
    max_workers: int | None = None
    n_processes_per_worker: int = 1
    max_retry: int = 0
    max_crashes: int = 3
    timeout: float | str | timedelta | None = None
    memory_limit: int | str | None = None
    name: str | None = None
    home: str | None = None
    wait: bool = False


def start(
    function: Callable[..., Any],
    args: object,
    options: MapOptions,
    constants: Mapping[str, Any],
    keywords: Mapping[str, Any],
) -> JobPool[Any]:
    """Make a pool of a function and its arguments, and start it.

    Args:
        function: to be run.
        args: for each task, in any form that ``Udf.map`` takes.
        options: how to run them.
        constants: arguments that are the same for every task, by name.
        keywords: more of these, as they were written in the call of `map`.

    Raises:
        InputError: the function or an argument cannot be used.
        UsageError: an option makes no sense.
        ConflictError: there is a pool of that name.
        MachineError: the disk or the machine refuses.
    """
    loading = importing()
    if loading is not None:
        raise InputError(
            f"{loading} calls map() while jobpool imports it, so that every worker would start pools of its own",
            'put the call under `if __name__ == "__main__":`',
        )
    chosen = _pool_options(options)
    if options.name is not None:
        check_name(options.name)
    _check_constants(constants)
    for name in keywords:
        if name in constants:
            raise UsageError(f"the constant {name} is given twice", "leave it out of constants={...}")
    with JobPool.stand_by(chosen) as standby:
        # Imported while the processes that stand by import the same.
        from jobpool_cli.store.arguments.python import arguments_of  # noqa: PLC0415 - pyarrow
        from jobpool_cli.store.arguments.signature import Signature  # noqa: PLC0415
        from jobpool_cli.submit import check_call  # noqa: PLC0415
        from jobpool_cli.worker.loading import callable_form  # noqa: PLC0415

        signature = Signature.of(callable_form(function))
        raw = arguments_of(args, signature)
        _check_names(options, signature, {*raw.table.column_names, *constants})
        submission = check_call(function, raw, constants={**constants, **keywords}, options=chosen)
        return JobPool.submit(submission, name=options.name, home=options.home, standby=standby)


def _check_constants(constants: object) -> None:
    named = isinstance(constants, Mapping) and all(isinstance(name, str) for name in constants)
    if not named:
        raise UsageError(f"constants is {reprlib.repr(constants)}, and must be a dict of names and values")


def _check_names(options: MapOptions, signature: Any, given: set[str]) -> None:
    """Refuse what may be meant as an option of `map` or as an argument of the function.

    Raises:
        UsageError: names it and both ways to write it.
    """
    for name, value in options._asdict().items():
        is_chosen = value is not MapOptions._field_defaults[name] and value != MapOptions._field_defaults[name]
        if is_chosen and name not in given and any(each.name == name for each in signature.parameters):
            raise UsageError(
                f"{name} is an option of map() and a parameter of {signature.function}, which nothing else gives",
                f"for the parameter write constants={{{name!r}: ...}}, for both write both",
            )


def _pool_options(options: MapOptions) -> PoolOptions:
    cluster = cluster_meant(options.engine)
    workers = workers_of(cluster) if options.max_workers is None else options.max_workers
    limit = size(options.memory_limit) if isinstance(options.memory_limit, str) else options.memory_limit
    timeout = None if options.timeout is None else as_seconds(options.timeout, "timeout")
    if timeout is not None and timeout <= 0:
        raise UsageError(f"timeout is {options.timeout!r}, and must be above 0")
    chosen = PoolOptions(
        workers=_whole("max_workers", workers, 1),
        processes_per_worker=_whole("n_processes_per_worker", options.n_processes_per_worker, 1),
        timeout=timeout,
        retries=_whole("max_retry", options.max_retry, 0),
        max_crashes=_whole("max_crashes", options.max_crashes, 1),
        memory_limit=None if limit is None else _whole("memory_limit", limit, 1),
        cluster=cluster,
    )
    return check_processes(chosen)


def _whole(name: str, value: object, least: int) -> int:
    try:
        # Also the whole numbers of NumPy.
        found = operator.index(value)  # type: ignore[arg-type]  # that is what is found out
    except TypeError:
        found = least - 1
    if found < least or isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}, and must be a whole number of at least {least}")
    return found
