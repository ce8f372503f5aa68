"""A bar in a notebook: a piece of HTML in the cell's output, replaced as the pool goes on."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any, Self, TextIO

from jobpool_cli.model import PoolState, PoolStatus
from jobpool_cli.show.html import progress_html
from jobpool_cli.show.progress import Rate
from jobpool_cli.show.text import escape, progress_line

# Each picture is a message to the browser; more than a few in a second nobody sees.
DRAW_EVERY_SECONDS = 0.25


class NotebookBar:
    """A bar in the output of a notebook's cell; its last state stays there."""

    look_every = DRAW_EVERY_SECONDS

    def __init__(self, stream: TextIO | None) -> None:
        """Prepare a bar; it appears with the first look at a pool that is not done, and lines go to the stream."""
        self._stream = stream
        self._display: Any = None
        self._status: PoolStatus | None = None
        self._rate = Rate()
        self._speed: float | None = None
        self._due = 0.0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Draw the last state, which stays; of a pool that is not done it says that nobody watches any more."""
        if self._display is not None and self._status is not None:
            self._draw(self._status, watching=False)

    def update(self, status: PoolStatus) -> None:
        """Take in a new look, and draw it if it is time to."""
        now = time.monotonic()
        self._status = status
        self._speed = self._rate.add(now, status.finished)
        if now >= self._due and (self._display is not None or status.state is not PoolState.DONE):
            self._due = now + DRAW_EVERY_SECONDS
            self._draw(status, watching=True)

    def line(self, text: str) -> None:
        """Write a line below the bar."""
        if self._stream is not None:
            self._stream.write(text + "\n")
            self._stream.flush()

    def _draw(self, status: PoolStatus, *, watching: bool) -> None:
        content = {
            "text/html": progress_html(status, self._speed, watching=watching),
            "text/plain": escape(progress_line(status)),
        }
        if self._display is None:
            self._display = import_module("IPython.display").display(content, raw=True, display_id=True)
        else:
            self._display.update(content, raw=True)
