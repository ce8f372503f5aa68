"""``jobpool args``: the arguments of tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobpool_cli.cli import options
from jobpool_cli.cli.render_tables import write_json_lines, write_table
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool

if TYPE_CHECKING:
    import pyarrow as pa


def command(
    pool: options.Pool = LAST,
    tasks: Annotated[
        list[int] | None, typer.Argument(metavar="[TASK]...", help="Only these tasks.", show_default=False)
    ] = None,
    *,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Show the arguments of tasks, constants included: aligned on a terminal, tab-separated elsewhere."""
    opened = JobPool.open(pool, home=home)
    numbers, arguments = opened.calls(tasks or None)
    if json:
        write_json_lines(numbers, {"arguments": arguments})
    else:
        write_table(_beside(numbers, arguments))


def _beside(numbers: pa.Table, arguments: pa.Table) -> pa.Table:
    """The task's number, then its arguments; an argument called ``task`` has another name here."""
    names = [f"arg_{name}" if name == "task" else name for name in arguments.schema.names]
    return type(numbers).from_arrays([*numbers.columns, *arguments.columns], names=["task", *names])
