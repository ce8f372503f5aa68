"""What is told of tasks as they end: a line for each, and one for many where they come too fast to be read."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Self, TextIO

from jobpool_cli.model import Changes, Ended, PoolStatus, TaskState
from jobpool_cli.show.progress import PlainProgress, Progress, progress_here
from jobpool_cli.show.text import count, duration, escape, is_live, is_terminal, paint, paint_state, shorten, summary

# Where tasks end by the thousand, one line tells of all that ended in so many seconds.
GATHER_SECONDS = 10.0
GATHER_SECONDS_LIVE = 2.0
# Whoever watches tasks end wants to see each when it does.
LOOK_EVERY_SECONDS = 0.2
_OUTCOMES = {TaskState.SUCCESS: "succeeded", TaskState.ERROR: "failed", TaskState.CANCELLED: "were cancelled"}
_SHORTEST_ERROR = 20


class ManyEnded(NamedTuple):
    """Tasks, or attempts, that ended within a few seconds.

    Attributes:
        state: in which they ended.
        many: how many.
        again: these are attempts that failed, and their tasks run again.
    """

    state: TaskState
    many: int
    again: bool = False


Told = Ended | ManyEnded


class TailLines:
    """Lines that tell what ends while one watches, above a bar; what ended last is told when the block is left.

    Example:
        >>> with TailLines(sys.stdout) as lines:  # doctest: +SKIP
        ...     lines.end(pool.follow(on_look=lambda status: lines.add(status, watch.look())))
    """

    def __init__(self, stream: TextIO | None, *, bar: bool = True, tell: Callable[[Told], None] | None = None) -> None:
        """Prepare to watch.

        Args:
            stream: where lines and bar go.
            bar: show a bar, on a terminal or in a notebook.
            tell: gets what is told instead of the stream; then there is no bar.
        """
        self._stream = stream
        if stream is None or tell is not None:
            self._shown: Progress = PlainProgress(None, lines=False)
        else:
            self._shown = progress_here(stream, enabled=bar)
        self._tell = tell or self._write
        self._gathered: Counter[TaskState] = Counter()
        self._gathered_again = 0
        self._every = GATHER_SECONDS_LIVE if tell is None and is_live(stream) else GATHER_SECONDS
        self._due = 0.0

    @property
    def look_every(self) -> float:
        """Seconds between looks at a pool whose end is far."""
        return min(LOOK_EVERY_SECONDS, self._shown.look_every)

    def __enter__(self) -> Self:
        """Begin."""
        self._shown.__enter__()
        return self

    def __exit__(self, *what: object) -> None:
        """Tell the rest, and take the bar away."""
        try:
            self._flush()
        finally:
            self._shown.__exit__(*what)

    def add(self, status: PoolStatus, changes: Changes) -> None:
        """Take in a look at the pool, and what ended since the one before."""
        self._shown.update(status)
        for ended in changes.listed:
            self._tell(ended)
        if not (self._gathered or self._gathered_again):
            self._due = time.monotonic() + self._every
        self._gathered.update(changes.others)
        self._gathered_again += changes.others_again
        if time.monotonic() >= self._due:
            self._flush()

    def end(self, status: PoolStatus) -> None:
        """Say what came of the pool."""
        self._flush()
        self._shown.line(summary(status, self._stream))

    def _write(self, told: Told) -> None:
        self._shown.line(line_of(told, self._stream))

    def _flush(self) -> None:
        for state, many in self._gathered.items():
            self._tell(ManyEnded(state, many))
        if self._gathered_again:
            self._tell(ManyEnded(TaskState.ERROR, self._gathered_again, again=True))
        self._gathered.clear()
        self._gathered_again = 0


def line_of(told: Told, stream: TextIO | None = None) -> str:
    """Write what is told as a line for people, coloured and cut as a stream (stdout by default) wants it."""
    return _line_of_many(told, stream) if isinstance(told, ManyEnded) else _line_of_one(told, stream)


def _line_of_many(many: ManyEnded, stream: TextIO | None) -> str:
    if many.again:
        return paint(f"… {count(many.many, 'attempt')} failed, their tasks run again", "yellow", stream)
    return paint_state(many.state, f"… {count(many.many)} {_OUTCOMES[many.state]}", stream)


def _line_of_one(ended: Ended, stream: TextIO | None) -> str:
    at = ended.finished.astimezone().strftime("%H:%M:%S") if ended.finished is not None else " " * 8
    head = f"{at}  task {ended.task:<7} "
    tail = f" {duration(ended.duration):>8}"
    state = paint_state(ended.state.value, f"{ended.state.value:<9}", stream)
    if ended.again:
        state = paint(f"{ended.state.value:<9}", "yellow", stream)
        tail += f"  attempt {ended.attempt}, runs again"
    elif ended.attempt > 1:
        tail += f"  attempt {ended.attempt}"
    if ended.error:
        text = escape(ended.error)
        if is_terminal(stream or sys.stdout):
            used = len(head) + 9 + len(tail) + 2
            text = shorten(text, max(_SHORTEST_ERROR, shutil.get_terminal_size().columns - used))
        tail += f"  {text}"
    return f"{head}{state}{tail}"
