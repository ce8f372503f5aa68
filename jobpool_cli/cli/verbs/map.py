"""``jobpool map``: make a pool of a function and a table, and start it."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.cli.waiting import check_success, wait_for
from jobpool_cli.clusters import LOCAL, cluster_of, parsed_options, workers_of
from jobpool_cli.errors import ConflictError, MachineError, UsageError
from jobpool_cli.layout import check_name, home_folder, pools_folder
from jobpool_cli.model import MAX_PROCESSES, Cluster, PoolOptions, check_processes
from jobpool_cli.pool import JobPool
from jobpool_cli.quantities import seconds, size, worker_numbers
from jobpool_cli.show.text import count, duration, for_stream, number

if TYPE_CHECKING:
    from pathlib import Path

    from jobpool_cli.submit import Submission

SHOWN_ROWS = 5


def command(
    udf: Annotated[str, typer.Argument(metavar="UDF", help="The function: file.py, or file.py:name.")],
    args: Annotated[
        str,
        typer.Argument(
            metavar="ARGS", help="Its arguments, a row per task: CSV, TSV, JSON Lines, Parquet; - is stdin."
        ),
    ],
    *,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The pool's name; made up if not given.", show_default=False),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            "--workers",
            "-j",
            metavar="N",
            help="Workers; by default as many as there are cores. MIN:MAX for a cluster's that come and go.",
            show_default=False,
        ),
    ] = None,
    processes_per_worker: Annotated[
        int, typer.Option("--processes-per-worker", min=1, max=MAX_PROCESSES, help="Processes that each worker runs.")
    ] = 1,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="TIME",
            parser=seconds,
            help="Stop a task after this time (90, 2m, 1h).",
            show_default=False,
        ),
    ] = None,
    retries: Annotated[int, typer.Option("--retries", min=0, help="Further attempts for a task that fails.")] = 0,
    max_crashes: Annotated[
        int, typer.Option("--max-crashes", min=1, help="Give a task up when so many workers died of it.")
    ] = 3,
    memory_limit: Annotated[
        int | None,
        typer.Option(
            "--memory-limit",
            metavar="SIZE",
            parser=size,
            help="Memory that a task may hold (512M, 2G).",
            show_default=False,
        ),
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="An argument that is the same for every task; may be repeated.",
            show_default=False,
        ),
    ] = None,
    input_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="csv, tsv, jsonl or parquet, where ARGS does not tell.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option("--engine", metavar="NAME", help="local, dask, or a cluster that the config file names."),
    ] = LOCAL,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="A running Dask scheduler: tcp://HOST:PORT; DASK_SCHEDULER_ADDRESS does as well.",
            show_default=False,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="KIND",
            help="A cluster to start for this pool: local, slurm, pbs, lsf, sge, htcondor.",
            show_default=False,
        ),
    ] = None,
    cluster_options: Annotated[
        list[str] | None,
        typer.Option(
            "--cluster-option",
            metavar="KEY=VALUE",
            help="What the cluster's class is given (memory=4GB); may be repeated.",
            show_default=False,
        ),
    ] = None,
    wait: options.Wait = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, show what would run, start nothing.", show_default=False),
    ] = False,
    home: options.Home = None,
) -> None:
    """Run a function over every row of a table, in the background, and print the new pool's name.

    Columns are bound to parameters by name, and every value is converted to the annotated type before anything starts.
    """
    # Before anything heavy is imported, so that a mistake in the options is told at once.
    fixed = _constants(constants or [])
    minimum, most = worker_numbers(workers) if workers is not None else (None, None)
    where = cluster_of(
        engine, scheduler=scheduler, kind=cluster, options=parsed_options(cluster_options or []), minimum=minimum
    )
    most = workers_of(where) if most is None else most
    chosen = _options(most, processes_per_worker, timeout, retries, max_crashes, memory_limit)._replace(cluster=where)
    if name is not None:
        check_name(name)
    stdin = sys.stdin.buffer if args == "-" and sys.stdin is not None else None
    with contextlib.nullcontext() if dry_run else JobPool.stand_by(chosen) as standby:
        submission = JobPool.check(udf, args, constants=fixed, options=chosen, input_format=input_format, stdin=stdin)
        if dry_run:
            _show(submission, home_folder(home), name)
            return
        pool = JobPool.submit(submission, name=name, home=home, standby=standby)
    _print_name(pool.name)
    if wait:
        check_success(wait_for(pool))
    else:
        render.note(f"{count(pool.n_jobs)} in {pool.name}; watch: jobpool tail {pool.name}")


def _options(
    workers: int,
    processes_per_worker: int,
    timeout: float | None,
    retries: int,
    max_crashes: int,
    memory_limit: int | None,
) -> PoolOptions:
    chosen = PoolOptions(
        workers=workers,
        processes_per_worker=processes_per_worker,
        timeout=timeout,
        retries=retries,
        max_crashes=max_crashes,
        memory_limit=memory_limit,
    )
    check_processes(chosen)
    if timeout is not None and timeout <= 0:
        raise UsageError("--timeout 0 would stop every task before it begins", "leave it out for no limit")
    if memory_limit is not None and memory_limit <= 0:
        raise UsageError("--memory-limit 0 leaves a task no memory", "leave it out for no limit")
    return chosen


def _constants(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--set {each!r} does not say which argument is what", "write --set name=value")
        if name in found:
            raise UsageError(f"--set {name} is given twice: {found[name]!r} and {value!r}")
        found[name] = value
    return found


def _print_name(name: str) -> None:
    try:
        render.write(name, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise MachineError(
            f"{name} was made and runs, but its name could not be written to stdout: {error.strerror}",
            f"see it: jobpool status {name}",
        ) from error


def _show(submission: Submission, home: Path, name: str | None) -> None:
    """Tell what would run."""
    if name is not None and (pools_folder(home) / name).exists():
        raise ConflictError(f"there is a pool named {name} already", f"choose another --name, or: jobpool rm {name}")
    bound, chosen = submission.arguments, submission.options
    write = render.write
    write(f"would run {count(bound.n_rows)} of {for_stream(submission.entry)}")
    write(f"  arguments from {for_stream(submission.source)}")
    for key, value in bound.constants.items():
        write(f"  {for_stream(f'{key}={value!r}')} for every task")
    write(f"  {_limits(chosen)}")
    if bound.n_rows and bound.table.num_columns:
        write()
        rows = bound.table.slice(0, SHOWN_ROWS).to_pylist()
        render.write_table(
            ["task", *bound.table.column_names],
            (
                [str(task), *("" if cell is None else str(cell) for cell in row.values())]
                for task, row in enumerate(rows)
            ),
            right=["task"],
        )
        if bound.n_rows > SHOWN_ROWS:
            write(f"… and {number(bound.n_rows - SHOWN_ROWS)} more")


def _place(cluster: Cluster | None) -> str:
    if cluster is None:
        return ""
    if cluster.kind is None:
        return f" of the Dask cluster at {for_stream(str(cluster.scheduler))}"
    least = "" if cluster.minimum is None else f", at least {cluster.minimum}"
    return f" of a Dask cluster ({cluster.kind}) that is started for the pool{least}"


def _limits(chosen: PoolOptions) -> str:
    parts = [count(chosen.workers, "worker") + _place(chosen.cluster)]
    if chosen.processes_per_worker > 1:
        parts.append(f"{chosen.processes_per_worker} processes each")
    parts.append(f"time limit {duration(chosen.timeout)}" if chosen.timeout is not None else "no time limit")
    if chosen.memory_limit is not None:
        parts.append(f"memory limit {chosen.memory_limit / 2**20:,.0f} MiB")
    parts.append(count(chosen.retries, "retry") if chosen.retries == 1 else f"{chosen.retries} retries")
    return ", ".join(parts)
