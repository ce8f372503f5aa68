"""What moves: a live bar where a person watches a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from jobpool_cli.cli import render
from jobpool_cli.cli.render_status import progress_line, rate
from jobpool_cli.model import PoolState, PoolStatus, TaskState

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
    return LiveBar(stream) if render.is_live(stream) else PlainProgress(stream, lines=lines)


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


class LiveBar:
    """A bar at the bottom of the terminal; lines scroll above it."""

    look_every = 0.2

    def __init__(self, stream: TextIO) -> None:
        """Prepare a bar on a terminal; it appears with the first look at a pool that is not done."""
        self._stream = stream
        self._live: Live | None = None
        self._status: PoolStatus | None = None
        self._rate = Rate()
        self._speed: float | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away; the lines stay."""
        if self._live is not None:
            self._live.stop()

    def update(self, status: PoolStatus) -> None:
        """Take in a new look; the bar redraws itself at its own pace."""
        self._status = status
        self._speed = self._rate.add(time.monotonic(), status.finished)
        if self._live is None and status.state is not PoolState.DONE:
            self._live = self._start()

    def line(self, text: str) -> None:
        """Write a line, which may hold colour codes of ours, above the bar."""
        if self._live is None:
            self._stream.write(text + "\n")
            return
        from rich.text import Text  # noqa: PLC0415

        self._live.console.print(Text.from_ansi(text))

    def _start(self) -> Live:
        from rich.console import Console  # noqa: PLC0415 - only where a person watches something that moves
        from rich.live import Live  # noqa: PLC0415

        console = Console(
            file=self._stream,
            force_terminal=True,
            no_color=not render.has_colour(self._stream),
            markup=False,
            highlight=False,
            emoji=False,
            soft_wrap=True,
        )
        live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        live.start()
        return live

    def _draw(self) -> Text:
        from rich.text import Text  # noqa: PLC0415

        status = self._status
        text = Text(no_wrap=True, overflow="ellipsis", end="")
        if status is None:
            return text
        total = max(1, status.n_jobs)
        good = status.finished - status.failed
        red = max(1, status.failed * BAR_CELLS // total) if status.failed else 0
        green = min(BAR_CELLS - red, good * BAR_CELLS // total)
        text.append("━" * green, "green")
        text.append("━" * red, "red")
        text.append("─" * (BAR_CELLS - green - red), "dim")
        text.append(f" {render.number(status.finished)}/{render.number(status.n_jobs)} done")
        if status.failed:
            text.append(f" · {render.number(status.failed)} failed", "red")
        if status.state is PoolState.PAUSED:
            text.append(" · paused", "yellow")
        text.append(f" · {render.number(status.counts[TaskState.RUNNING])} running")
        left = status.n_jobs - status.finished
        if self._speed:
            text.append(f" · {rate(self._speed)}")
            if left:
                text.append(f" · {_whole(left / self._speed)} left")
        return text


def _whole(seconds: float) -> str:
    """Write a time that is only a guess, without decimals."""
    return render.duration(seconds) if seconds >= render.MINUTE else f"{max(1, round(seconds))} s"


def end_quietly(name: str) -> None:
    """Tell whoever pressed Ctrl-C that only the watching ended."""
    if render.is_terminal(sys.stderr):
        render.say("")
    render.say(f"jobpool: stopped watching; {name} goes on (jobpool cancel {name} would stop it)")
