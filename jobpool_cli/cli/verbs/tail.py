"""``jobpool tail``: watch tasks end."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.cli.live import PlainProgress, Progress, end_quietly, progress
from jobpool_cli.cli.render_status import status_json, summary
from jobpool_cli.errors import ExitCode, TasksFailedError
from jobpool_cli.finding import LAST
from jobpool_cli.model import FAILED_STATES, Changes, Ended, PoolStatus, TaskState
from jobpool_cli.pool import JobPool

# Where tasks end by the thousand, one line tells of all that ended in so many seconds.
GATHER_SECONDS = 10.0
GATHER_SECONDS_LIVE = 2.0
_OUTCOMES = {TaskState.SUCCESS: "succeeded", TaskState.ERROR: "failed", TaskState.CANCELLED: "were cancelled"}


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
    shown: Progress = PlainProgress(sys.stdout, lines=False) if json else progress(sys.stdout, lines=False)
    lines = _Lines(shown, as_json=json)
    watch = opened.watch()

    def look(status: PoolStatus) -> None:
        shown.update(status)
        changes = watch.look()
        lines.add(changes)
        failed = [each for each in changes.listed if each.state in FAILED_STATES and not each.again]
        if stop_on_exception and failed:
            first = failed[0]
            raise TasksFailedError(
                f"task {first.task} of {opened.name} failed: {first.error}",
                f"see: jobpool errors {opened.name} --task {first.task}; the pool goes on",
            )

    try:
        with shown:
            try:
                status = opened.wait(on_look=look)
            finally:
                lines.flush()
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


class _Lines:
    """Turns changes into lines, and gathers those that come too fast to be read."""

    def __init__(self, shown: Progress, *, as_json: bool) -> None:
        self._shown = shown
        self._json = as_json
        self._gathered: Counter[TaskState] = Counter()
        self._gathered_again = 0
        live = render.is_live(sys.stdout) and not as_json
        self._every = GATHER_SECONDS_LIVE if live else GATHER_SECONDS
        self._due = 0.0

    def add(self, changes: Changes) -> None:
        for ended in changes.listed:
            self._write(_ended_json(ended), "" if self._json else _ended_line(ended))
        if not (self._gathered or self._gathered_again):
            self._due = time.monotonic() + self._every
        self._gathered.update(changes.others)
        self._gathered_again += changes.others_again
        if (self._gathered or self._gathered_again) and time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        for state, many in self._gathered.items():
            line = render.paint_state(state, f"… {render.count(many)} {_OUTCOMES[state]}")
            self._write({"event": "tasks", "state": state.value, "count": many}, line)
        if self._gathered_again:
            line = f"… {render.count(self._gathered_again, 'attempt')} failed, their tasks run again"
            self._write(
                {"event": "attempts", "state": TaskState.ERROR.value, "count": self._gathered_again},
                render.paint(line, "yellow"),
            )
        self._gathered.clear()
        self._gathered_again = 0

    def _write(self, event: Mapping[str, Any], line: str) -> None:
        if self._json:
            render.write_json({**event}, flush=True)
        else:
            self._shown.line(line)


def _ended_json(ended: Ended) -> dict[str, Any]:
    return {
        "event": "attempt" if ended.again else "task",
        "task": ended.task,
        "attempt": ended.attempt,
        "state": ended.state.value,
        "finished": render.iso(ended.finished),
        "duration": ended.duration,
        "error": ended.error or None,
        "where": str(ended.where) if ended.where is not None else None,
    }


def _ended_line(ended: Ended) -> str:
    at = ended.finished.astimezone().strftime("%H:%M:%S") if ended.finished is not None else " " * 8
    head = f"{at}  task {ended.task:<7} "
    tail = f" {render.duration(ended.duration):>8}"
    state = render.paint_state(ended.state.value, f"{ended.state.value:<9}")
    if ended.again:
        state = render.paint(f"{ended.state.value:<9}", "yellow")
        tail += f"  attempt {ended.attempt}, runs again"
    elif ended.attempt > 1:
        tail += f"  attempt {ended.attempt}"
    if ended.error:
        text = render.escape(ended.error)
        if render.is_terminal(sys.stdout):
            used = len(head) + 9 + len(tail) + 2
            text = render.shorten(text, max(20, shutil.get_terminal_size().columns - used))
        tail += f"  {text}"
    return f"{head}{state}{tail}"
