"""``jobpool logs``: what tasks printed."""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.cli.render_tables import LogWriter, escape_for_terminal
from jobpool_cli.errors import UsageError
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import is_terminal
from jobpool_cli.store.values.jsonable import json_text

if TYPE_CHECKING:
    from jobpool_cli.store.logs import TaskLog


def command(
    pool: options.Pool = LAST,
    tasks: Annotated[
        list[int] | None, typer.Argument(metavar="[TASK]...", help="Only these tasks.", show_default=False)
    ] = None,
    *,
    first: Annotated[
        bool, typer.Option("--first", help="Only the first task that printed anything.", show_default=False)
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Go on as more is printed, until the task, or the pool, ends.", show_default=False
        ),
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="N", min=0, help="Only the last N lines of each task.")
    ] = None,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", min=1, help="This attempt instead of the latest.")
    ] = None,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Show what tasks wrote to stdout and stderr, in order, with the traceback of those that failed.

    Also of tasks that still run. Through a pipe the output is what the task wrote, byte for byte.
    """
    opened = JobPool.open(pool, home=home)
    if follow:
        if first or json or attempt is not None:
            raise UsageError("--follow goes with neither --first, --json nor --attempt")
        _follow(opened, tasks or [], tail)
        return
    writer = LogWriter(headers=(not first and len(tasks or []) != 1) or is_terminal(sys.stdout))
    found: set[int] = set()
    for log in opened.task_logs(tasks or None, attempt=attempt, tail=tail):
        if not tasks and log.start == log.end and not log.missing:
            continue  # runs, and has printed nothing so far
        found.add(log.task)
        if json:
            _write_json(log)
        else:
            writer.begin(log, _title(log))
            for chunk in log.chunks():
                writer.write(chunk)
            _say_if_cut(log)
        if first:
            break
    writer.end()
    _say_what_is_not_there(opened, tasks or [], found, attempt)


def _follow(pool: JobPool[Any], tasks: list[int], tail: int | None) -> None:
    writer = LogWriter(headers=len(tasks) != 1)
    if tasks:
        for task in tasks:
            log = None
            for log, chunk in pool.follow_log(task, tail=tail):
                writer.begin((log.task, log.attempt), f"task {log.task}, attempt {log.attempt}")
                writer.write(chunk)
                writer.flush()
            if log is None:
                render.say(f"task {task} printed nothing, and nobody works on {pool.name} any more")
            else:
                _say_if_cut(log)
    else:
        for piece in pool.follow_logs():
            what = f"worker {piece.worker}" + ("" if piece.task is None else f", task {piece.task}")
            writer.begin((piece.worker, piece.task), what)
            writer.write(piece.data)
            writer.flush()
    writer.end()


def _title(log: TaskLog) -> str:
    attempt = f", attempt {log.attempt}" if log.attempt > 1 else ""
    return f"task {log.task} ({log.state}{attempt})"


def _say_if_cut(log: TaskLog) -> None:
    if log.missing:
        render.say(f"[log cut short] task {log.task}: {log.missing:,} bytes are not in {log.path}")


def _write_json(log: TaskLog) -> None:
    """Write a log as a line of JSON, a piece at a time; bytes that are no UTF-8 become escapes."""
    out, harmless = render.stdout(), escape_for_terminal()
    facts = {
        "schema": render.SCHEMA,
        "task": log.task,
        "attempt": log.attempt,
        "state": str(log.state),
        "worker": log.worker,
        "missing_bytes": log.missing,
    }
    out.write(f'{json_text(facts)[:-1]}, "log": "')
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    for chunk in log.chunks():
        out.write(harmless(json_text(decoder.decode(chunk))[1:-1]))
    out.write(json_text(decoder.decode(b"", final=True))[1:-1] + '"}\n')


def _say_what_is_not_there(pool: JobPool[Any], tasks: list[int], found: set[int], attempt: int | None) -> None:
    missing = [task for task in tasks if task not in found]
    if missing and attempt is not None:
        for task in missing:
            render.say(f"task {task} has no log of attempt {attempt}")
    elif missing:
        for row in pool.task_table(missing).select(["task", "state"]).to_pylist():
            render.say(f"task {row['task']} is {row['state']}: it has no log")
    elif not found and not tasks:
        render.note(f"no task of {pool.name} has printed anything")
