"""``@udf``: a function that pools run; calling it calls the function.

A user's file imports this, and so does every worker that loads it: nothing heavy is imported until `map` is called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from jobpool_cli.errors import UsageError
from jobpool_cli.twins import Steps, both

if TYPE_CHECKING:
    from jobpool_cli.pool import JobPool

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Udf(Generic[Parameters, Result]):
    """A function that pools run; calling it calls the function, in this process."""

    __jobpool_udf__ = True

    def __init__(self, function: Callable[Parameters, Result]) -> None:
        """Wrap a function, which stays reachable as ``__wrapped__``.

        Raises:
            UsageError: it is none.
        """
        given: object = function
        if not callable(given) and not isinstance(given, classmethod):
            raise UsageError(f"udf takes a function, and {given!r} is none", "write @udf, or @udf(), above its def")
        self.__wrapped__ = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        """Call the function itself."""
        return self.__wrapped__(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Udf[..., Result]:
        """Be a method where a class holds it: of an instance it is bound to, as the function itself would be."""
        bind = getattr(type(self.__wrapped__), "__get__", None)
        bound = self.__wrapped__ if bind is None else bind(self.__wrapped__, instance, owner)
        return self if bound is self.__wrapped__ else Udf(bound)

    def __repr__(self) -> str:
        """Name the function."""
        return f"<udf {getattr(self.__wrapped__, '__qualname__', self.__wrapped__)!s}>"

    def _map(
        self,
        args: Any,
        /,
        *,
        engine: object = "local",
        max_workers: int | None = None,
        n_processes_per_worker: int = 1,
        max_retry: int = 0,
        max_crashes: int = 3,
        timeout: float | str | timedelta | None = None,
        memory_limit: int | str | None = None,
        name: str | None = None,
        home: str | None = None,
        wait: bool = False,
        constants: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Steps[JobPool[Result]]:
        """Run the function over many arguments, in worker processes that outlive this one.

        Args:
            args: a list, tuple, range, array, Series, generator or other iterable: each value goes to the first
                parameter. A list of dicts: each holds keyword arguments. A DataFrame, Arrow or Polars table: a row
                each, its columns bound to the parameters by name; the index is not looked at. Every value is converted
                to the annotated type before anything starts.
            engine: where the tasks run: ``local``, processes of this machine; the address of a Dask scheduler, Dask's
                own Client or cluster object; ``jobpool_cli.Cluster(kind="slurm", options={...})`` to start a cluster
                for the pool; or a name from the config file. ``dask`` is the scheduler that DASK_SCHEDULER_ADDRESS
                names.
            max_workers: workers; by default as many as there are cores.
            n_processes_per_worker: processes that each worker runs side by side.
            max_retry: further attempts for a task that fails.
            max_crashes: give a task up when so many workers died of it.
            timeout: stop an attempt after this time: seconds, a timedelta, or a text such as ``"2m"``.
            memory_limit: what a task may hold: bytes, or a text such as ``"2G"``.
            name: the pool's name; by default the function's name with a number.
            home: the folder in which pools are kept; by default ``JOBPOOL_HOME``, else the platform's.
            wait: return when the pool is done.
            constants: arguments that are the same for every task.
            **kwargs: the same, for all names but those above.

        Returns:
            the pool, as soon as a first worker has loaded the function; it goes on when this process ends.

        Raises:
            InputError: the function or an argument cannot be used; says which, why, and what to write instead.
                Nothing is started, nothing is left.
            ConflictError: there is a pool of that name.
            MachineError: the disk or the machine refuses.

        Example:
            >>> pool = square.map(range(4), wait=True)
            >>> pool.results()
            [0, 1, 4, 9]
            >>> @udf
            ... def power(base: float, exponent: int) -> float:
            ...     return base**exponent
            >>> power.map([2, 3], exponent=3).results()
            [8.0, 27.0]
            >>> power.map([{"base": 2, "exponent": 3}, {"base": 3, "exponent": 2}]).results()
            [8.0, 9.0]
        """
        from jobpool_cli.pool.mapping import MapOptions, start  # noqa: PLC0415 - workers import this module, too

        pool: JobPool[Result] = start(
            self.__wrapped__,
            args,
            MapOptions(
                engine=engine,
                max_workers=max_workers,
                n_processes_per_worker=n_processes_per_worker,
                max_retry=max_retry,
                max_crashes=max_crashes,
                timeout=timeout,
                memory_limit=memory_limit,
                name=name,
                home=home,
                wait=wait,
            ),
            constants or {},
            kwargs,
        )
        if wait:
            yield from pool._wait()  # noqa: SLF001 - one class in two files
        return pool

    map, map_async = both(_map)


@overload
def udf(function: Callable[Parameters, Result]) -> Udf[Parameters, Result]: ...


@overload
def udf(function: None = None) -> Callable[[Callable[Parameters, Result]], Udf[Parameters, Result]]: ...


def udf(
    function: Callable[Parameters, Result] | None = None,
) -> Udf[Parameters, Result] | Callable[[Callable[Parameters, Result]], Udf[Parameters, Result]]:
    """Make a function one that pools run, with or without parentheses.

    ``function.map(args)`` starts a pool, ``await function.map_async(args)`` does so in an event loop, and
    ``function(x)`` still calls it. On the command line it marks the function to run in a file with several.

    Example:
        >>> @udf
        ... def area(width: float, height: float) -> float:
        ...     return width * height
        >>> area(2.0, 3.0)
        6.0
        >>> area.map([2.0, 3.0], height=10).results()
        [20.0, 30.0]
    """
    return Udf if function is None else Udf(function)
