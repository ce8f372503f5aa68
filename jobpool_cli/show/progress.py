"""How far a pool is: a live bar on a terminal or in a notebook, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from jobpool_cli.model import PoolState, PoolStatus, TaskState
from jobpool_cli.show.text import MINUTE, duration, escape, has_colour, is_live, number, progress_line, rate

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

LINE_EVERY_SECONDS = 10.0
# The rate is that of the last seconds, not of the pool's whole life: it is about how long one still has to wait.
RATE_WINDOW_SECONDS = 15.0
BAR_CELLS = 24
REFRESH_PER_SECOND = 8


class Progress(Protocol):
    """Shows how far a pool is while its lines scroll by.

    Attributes:
        look_every: seconds between looks at a pool whose end is far, as far as this shows them.
    """

    look_every: float

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """Clear away what moves."""

    def update(self, status: PoolStatus) -> None:
        """Take in a new look at the pool."""

    def line(self, text: str) -> None:
        """Write a line above the bar."""


def progress(stream: TextIO | None, *, quiet: bool = False, lines: bool = True) -> Progress:
    """Return the progress that suits a stream.

    Args:
        stream: where to show it.
        quiet: show none at all.
        lines: without a terminal, tell how far it is every few seconds.
    """
    if quiet or stream is None:
        return PlainProgress(stream, lines=False)
    return LiveBar(stream) if is_live(stream) else PlainProgress(stream, lines=lines)


def progress_here(stream: TextIO | None = None, *, enabled: bool) -> Progress:
    """Return the progress that suits a Python session: a bar in a notebook or on a terminal, elsewhere none.

    Args:
        stream: where lines go, and the bar if it is a terminal; stderr by default.
        enabled: False for no bar anywhere.
    """
    stream = stream or sys.stderr
    if enabled and in_notebook():
        from jobpool_cli.show.notebook import NotebookBar  # noqa: PLC0415 - in a notebook only

        return NotebookBar(stream)
    return progress(stream, quiet=not enabled, lines=False)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook; that can be only where IPython is loaded."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


class PlainProgress:
    """A line every few seconds, or none."""

    # Nobody sees the looks, and the tasks need the cores.
    look_every = 0.5

    def __init__(self, stream: TextIO | None, *, lines: bool) -> None:
        """Write to a stream; the first line comes after the first interval."""
        self._stream = stream
        self._next = time.monotonic() + LINE_EVERY_SECONDS if lines else float("inf")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: lines stay."""

    def update(self, status: PoolStatus) -> None:
        """Tell how far the pool is if it is time to."""
        if time.monotonic() >= self._next and status.state is not PoolState.DONE:
            self._next = time.monotonic() + LINE_EVERY_SECONDS
            self.line(progress_line(status))

    def line(self, text: str) -> None:
        """Write a line at once: whoever reads the pipe wants it now."""
        if self._stream is not None:
            self._stream.write(text + "\n")
            self._stream.flush()


class Rate:
    """Tasks per second over the last seconds."""

    def __init__(self) -> None:
        """Begin without a look."""
        self._looks: deque[tuple[float, int]] = deque()

    def add(self, now: float, finished: int) -> float | None:
        """Take in a look; None while there is nothing to say."""
        looks = self._looks
        if looks and finished < looks[-1][1]:
            looks.clear()  # a retry took tasks back
        looks.append((now, finished))
        while now - looks[0][0] > RATE_WINDOW_SECONDS:
            looks.popleft()
        span = now - looks[0][0]
        return (finished - looks[0][1]) / span if span > 0 and finished > looks[0][1] else None


def words_of_bar(status: PoolStatus, speed: float | None) -> list[tuple[str, str]]:
    """Return what is said beside a bar: texts, each with its colour (or none).

    Args:
        status: the last look.
        speed: tasks per second, None while it is not known.
    """
    words = [(f"{number(status.finished)}/{number(status.n_jobs)} done", "")]
    if status.failed:
        words.append((f"{number(status.failed)} failed", "red"))
    if status.state is PoolState.PAUSED:
        words.append(("paused", "yellow"))
    words.append((f"{number(status.counts[TaskState.RUNNING])} running", ""))
    if speed:
        words.append((rate(speed), ""))
        left = status.n_jobs - status.finished
        if left and status.state is not PoolState.PAUSED:
            words.append((f"{_whole(left / speed)} left", ""))
    return words


def _whole(seconds: float) -> str:
    """Write a time that is only a guess, without decimals."""
    return duration(seconds) if seconds >= MINUTE else f"{max(1, round(seconds))} s"


class LiveBar:
    """A bar at the bottom of the terminal; lines scroll above it."""

    look_every = 0.2

    def __init__(self, stream: TextIO) -> None:
        """Prepare a bar on a terminal; it appears with the first look at a pool that is not done."""
        self._stream = stream
        self._board: _Board | None = None
        self._status: PoolStatus | None = None
        self._rate = Rate()
        self._speed: float | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away; the lines stay."""
        if self._board is not None:
            self._board.remove(self)

    def update(self, status: PoolStatus) -> None:
        """Take in a new look; the bar redraws itself at its own pace."""
        self._status = status
        self._speed = self._rate.add(time.monotonic(), status.finished)
        if self._board is None and status.state is not PoolState.DONE:
            with _Board.lock:
                self._board = _Board.of(self._stream)
                self._board.add(self)

    def line(self, text: str) -> None:
        """Write a line, which may hold colour codes of ours, above the bar."""
        if self._board is None:
            self._stream.write(text + "\n")
        else:
            self._board.line(text)

    def draw(self, *, named: bool) -> Text:
        """Return the bar as it is now, behind the pool's name if it is not the only one."""
        from rich.text import Text  # noqa: PLC0415

        status = self._status
        text = Text(no_wrap=True, overflow="ellipsis", end="")
        if status is None:
            return text
        total = max(1, status.n_jobs)
        good = status.finished - status.failed
        red = max(1, status.failed * BAR_CELLS // total) if status.failed else 0
        green = min(BAR_CELLS - red, good * BAR_CELLS // total)
        if named:
            text.append(f"{escape(status.pool)} ")
        text.append("━" * green, "green")
        text.append("━" * red, "red")
        text.append("─" * (BAR_CELLS - green - red), "dim")
        between = " "
        for word, style in words_of_bar(status, self._speed):
            text.append(between + word, style)
            between = " · "
        return text


def _is_same(one: TextIO, other: TextIO) -> bool:
    """Return whether two streams are one terminal, as stdout and stderr mostly are."""
    try:
        return one is other or os.fstat(one.fileno()).st_rdev == os.fstat(other.fileno()).st_rdev
    except (OSError, ValueError):
        return False


class _Board:
    """The bottom lines of a terminal, a bar in each: two that redraw themselves would overwrite each other."""

    _shown: set[_Board] = set()  # noqa: RUF012 - of the process, as the terminal is
    lock = threading.RLock()

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._bars: list[LiveBar] = []
        self._live = self._make()

    @classmethod
    def of(cls, stream: TextIO) -> _Board:
        """Return the board of a terminal; the lock is held until there is a bar on it."""
        return next((each for each in cls._shown if _is_same(each.stream, stream)), None) or cls(stream)

    def add(self, bar: LiveBar) -> None:
        """Show a bar below those that are there; the lock is held."""
        self._bars.append(bar)
        if len(self._bars) == 1:
            self._shown.add(self)
            self._live.start()
        self._live.refresh()

    def remove(self, bar: LiveBar) -> None:
        """Take a bar away, if it got as far as being there: Ctrl-C comes when it likes."""
        with self.lock:
            if bar not in self._bars:
                return
            self._bars.remove(bar)
            if self._bars:
                self._live.refresh()
            else:
                self._shown.discard(self)
                self._live.stop()

    def line(self, text: str) -> None:
        """Write a line above all bars."""
        from rich.text import Text  # noqa: PLC0415

        self._live.console.print(Text.from_ansi(text))

    def _make(self) -> Live:
        from rich.console import Console  # noqa: PLC0415 - only where a person watches something that moves
        from rich.live import Live  # noqa: PLC0415

        console = Console(
            file=self.stream,
            force_terminal=True,
            no_color=not has_colour(self.stream),
            markup=False,
            highlight=False,
            emoji=False,
            soft_wrap=True,
        )
        return Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def _draw(self) -> Text:
        from rich.text import Text  # noqa: PLC0415

        bars = list(self._bars)
        lines = Text("\n", end="").join(bar.draw(named=len(bars) > 1) for bar in bars)
        lines.no_wrap, lines.overflow = True, "ellipsis"
        return lines
