"""``jobpool collect``: the results as one table."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.cli.render_tables import escape_for_terminal, write_table
from jobpool_cli.cli.waiting import wait_for
from jobpool_cli.errors import MachineError, UsageError
from jobpool_cli.finding import LAST
from jobpool_cli.model import TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import count, is_terminal
from jobpool_cli.store.ownership import follow

if TYPE_CHECKING:
    import pyarrow as pa


def command(
    pool: options.Pool = LAST,
    *,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="A .parquet, .csv, .tsv or .jsonl file; - is stdout."),
    ] = "-",
    format: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="parquet, csv, tsv or jsonl, whatever the name.", show_default=False
        ),
    ] = None,
    ignore_exceptions: Annotated[
        bool, typer.Option("--ignore-exceptions", help="Leave failed tasks out.", show_default=False)
    ] = False,
    no_flatten: Annotated[
        bool,
        typer.Option("--no-flatten", help="Keep tables whole, in one column, also if all are.", show_default=False),
    ] = False,
    drop_index: Annotated[
        bool,
        typer.Option("--drop-index", help="The task's number beside each row, not its arguments.", show_default=False),
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="What there is now; do not wait for the rest.", show_default=False)
    ] = False,
    timeout: options.Timeout = None,
    excel_safe: Annotated[
        bool,
        typer.Option(
            "--excel-safe",
            help="In CSV and TSV, put a ' before text that a spreadsheet would take for a formula.",
            show_default=False,
        ),
    ] = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Wait for the pool and gather the results into one table, with the arguments beside them.

    A file is written whole or not at all: until the new one is complete, the old one stays as it is. With --json,
    stdout tells what was written to the file; without a file, --json is --format jsonl.
    """
    if json and output == "-":
        if format not in {None, "jsonl"}:
            raise UsageError(f"--json and --format {format} contradict each other", "name a file: -o FILE")
        format = "jsonl"  # noqa: A001
    opened = JobPool.open(pool, home=home)
    from jobpool_cli.store.outcomes.export import export, format_of, json_lines, plain_texts  # noqa: PLC0415 - pyarrow

    target = None if output == "-" else Path(output)
    chosen = format_of(target, format)
    if excel_safe and chosen not in {"csv", "tsv"}:
        raise UsageError(f"--excel-safe is for CSV and TSV, not for {chosen}", "leave it out, or name a .csv file")
    _check_before_waiting(target, chosen)
    if not partial:
        deadline = None if timeout is None else time.monotonic() + timeout
        wait_for(opened, timeout=timeout, quiet=quiet)
        # What may be left to wait for: somebody retried in between.
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
    collected = opened.gather(
        ignore_exceptions=ignore_exceptions,
        flatten=not no_flatten,
        drop_index=drop_index,
        partial=partial,
        timeout=timeout,
    )
    table = collected.to_arrow()
    if target is not None or not is_terminal(sys.stdout):
        export(table, target, chosen, excel_safe=excel_safe)
    elif chosen == "jsonl":
        harmless = escape_for_terminal()
        for lines in json_lines(table):
            render.stdout().write(harmless(lines))
    else:
        write_table(plain_texts(table))
    # In JSON Lines every column is JSON text.
    for warning in collected.notes if chosen == "jsonl" else collected.warnings:
        render.say(warning)
    if target is not None:
        _tell_what_came_of_it(opened, target, chosen, table, as_json=json)


def _check_before_waiting(target: Path | None, chosen: str) -> None:
    """Refuse at once what would be refused after hours."""
    if target is None:
        stdout = render.stdout()
        if chosen == "parquet" and is_terminal(stdout):
            raise UsageError("Parquet is not for a terminal", "name a file: -o FILE.parquet")
        return
    folder = follow(target.absolute()).parent
    if target.is_dir():
        raise UsageError(f"{target} is a directory", "name a file in it")
    if not folder.is_dir():
        raise MachineError(f"cannot write {target}: there is no folder {folder}", f"create it first: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK) and not target.exists():
        raise MachineError(f"cannot write {target}: no permission in {folder}", "write to a folder that is yours")


def _tell_what_came_of_it(pool: JobPool[Any], target: Path, form: str, table: pa.Table, *, as_json: bool) -> None:
    status = pool.snapshot()
    succeeded = status.counts[TaskState.SUCCESS]
    left_out = status.n_jobs - succeeded
    if as_json:
        render.write_json(
            {
                "pool": pool.name,
                "file": str(target),
                "format": form,
                "rows": table.num_rows,
                "columns": table.schema.names,
                "tasks": succeeded,
                "left_out": left_out,
            }
        )
        return
    why = f"; {count(left_out)} left out" if left_out else ""
    if status.finished < status.n_jobs:
        why += ", of which some may still come"
    render.note(f"{count(table.num_rows, 'row')} from {count(succeeded)} in {target}{why}")
