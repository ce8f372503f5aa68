"""``jobpool tail``: watch tasks end."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.cli.render import status_json
from jobpool_cli.cli.waiting import end_quietly
from jobpool_cli.errors import ExitCode, TasksFailedError
from jobpool_cli.finding import LAST
from jobpool_cli.model import Ended, PoolStatus
from jobpool_cli.pool import JobPool
from jobpool_cli.show.tail import ManyEnded, TailLines, Told
from jobpool_cli.show.text import iso, summary


def command(
    pool: options.Pool = LAST,
    *,
    stop_on_exception: Annotated[
        bool, typer.Option("--stop-on-exception", help="Stop watching at the first failure.", show_default=False)
    ] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Watch tasks end until the pool is done; Ctrl-C ends the watching, not the pool.

    A line for each task, and for each failed attempt after which it runs again; where many end at once, a line for all
    of them. Exits 0 if no task failed, 1 if some did, 4 if nobody works on the pool.
    """
    opened = JobPool.open(pool, home=home)
    watch = opened.watch()
    lines = TailLines(sys.stdout, tell=_write_json if json else None)

    def look(status: PoolStatus) -> None:
        changes = watch.look()
        lines.add(status, changes)
        first = changes.first_failure
        if stop_on_exception and first is not None:
            raise TasksFailedError(
                f"task {first.task} of {opened.name} failed: {first.error}",
                f"see: jobpool errors {opened.name} --task {first.task}; the pool goes on",
            )

    try:
        with lines:
            status = opened.follow(on_look=look, look_every=lines.look_every)
    except KeyboardInterrupt:
        end_quietly(opened.name)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if json:
        render.write_json({"event": "end", **status_json(status)})
    else:
        render.write(summary(status))
    if status.failed:
        render.note(f"see why: jobpool errors {opened.name}")
        raise typer.Exit(ExitCode.TASKS_FAILED)


def _write_json(told: Told) -> None:
    render.write_json(_many_json(told) if isinstance(told, ManyEnded) else _ended_json(told), flush=True)


def _many_json(many: ManyEnded) -> dict[str, Any]:
    return {"event": "attempts" if many.again else "tasks", "state": many.state.value, "count": many.many}


def _ended_json(ended: Ended) -> dict[str, Any]:
    return {
        "event": "attempt" if ended.again else "task",
        "task": ended.task,
        "attempt": ended.attempt,
        "state": ended.state.value,
        "finished": iso(ended.finished),
        "duration": ended.duration,
        "error": ended.error or None,
        "where": str(ended.where) if ended.where is not None else None,
    }
