"""``jobpool tasks``: a row per task."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobpool_cli.cli import options
from jobpool_cli.cli.render_tables import each, write_json_lines, write_table
from jobpool_cli.errors import UsageError
from jobpool_cli.finding import LAST
from jobpool_cli.model import TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import clock, duration, is_terminal

if TYPE_CHECKING:
    import pyarrow as pa

# What a person looks for first; --columns and a pipe have them all.
FOR_PEOPLE = ["task", "state", "attempt", "started", "duration", "worker", "error"]
ARGUMENT_PREFIX = "arg_"


def command(
    pool: options.Pool = LAST,
    *,
    state: Annotated[
        list[TaskState] | None,
        typer.Option("--state", "-s", help="Only tasks in this state; may be repeated.", show_default=False),
    ] = None,
    task: Annotated[
        list[int] | None,
        typer.Option("--task", "-t", metavar="N", help="Only this task; may be repeated.", show_default=False),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns", "-c", metavar="NAME,...", help="These columns; arguments have theirs.", show_default=False
        ),
    ] = None,
    args: Annotated[bool, typer.Option("--args", help="Add all arguments.", show_default=False)] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=0, help="At most so many rows.", show_default=False)
    ] = None,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """List tasks with their states, times and errors: aligned on a terminal, tab-separated elsewhere."""
    opened = JobPool.open(pool, home=home)
    wanted = None if columns is None else [name.strip() for name in columns.split(",")]
    with_arguments = args or (wanted is not None and (bool(set(wanted) - set(_columns())) or not wanted))
    table = opened.task_table(task or None, state or None, limit)
    arguments = _arguments(opened, table, chosen=bool(task or state or limit is not None)) if with_arguments else None
    if json:
        _write_json(table, arguments, wanted)
        return
    for_people = is_terminal(sys.stdout)
    if wanted is None:
        table = table.select(FOR_PEOPLE) if for_people else table
        wanted = [*table.schema.names, *_own_names(arguments)]
    write_table(
        _chosen(table, arguments, wanted),
        states="state" if "state" in wanted else None,
        people={
            "started": each(clock),
            "duration": each(duration),
            "cpu": each(duration),
            "error": each(lambda text: text.partition("\n")[0]),
        },
    )


def _columns() -> tuple[str, ...]:
    from jobpool_cli.store.tasks import COLUMNS  # noqa: PLC0415 - pyarrow

    return COLUMNS


def _arguments(pool: JobPool[Any], table: pa.Table, *, chosen: bool) -> pa.Table:
    return pool.arguments(table["task"].to_pylist() if chosen else None)


def _own_names(arguments: pa.Table | None) -> list[str]:
    """The names that arguments have beside the columns of tasks: those that are taken get a prefix."""
    if arguments is None:
        return []
    taken = {*_columns(), "schema"}  # with which every line of --json begins
    return [f"{ARGUMENT_PREFIX}{name}" if name in taken else name for name in arguments.schema.names]


def _chosen(table: pa.Table, arguments: pa.Table | None, wanted: list[str]) -> pa.Table:
    """The columns that were asked for, in that order."""
    there = {name: table.column(name) for name in table.schema.names}
    if arguments is not None:
        there |= dict(zip(_own_names(arguments), arguments.columns, strict=True))
    for name in wanted:
        if name not in there:
            raise UsageError(f"there is no column {name!r}", f"choose from {', '.join(there)}")
    return type(table).from_arrays([there[name] for name in wanted], names=wanted)


def _write_json(table: pa.Table, arguments: pa.Table | None, wanted: list[str] | None) -> None:
    if wanted is not None:
        write_json_lines(_chosen(table, arguments, wanted))
    else:
        write_json_lines(table, {} if arguments is None else {"arguments": arguments})
