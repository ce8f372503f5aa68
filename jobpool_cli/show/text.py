"""How things read for people: numbers, times, a pool in a line; and what a stream can show of that: colour, escapes.

Standard library only, and one module: `jobpool status` loads it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

from jobpool_cli.model import PoolState, PoolStatus, TaskState

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
STATE_STYLES = {
    "success": "green",
    "done": "green",
    "running": "cyan",
    "error": "red",
    "timeout": "red",
    "damaged": "red",
    "paused": "yellow",
    "interrupted": "yellow",
    "cancelled": "yellow",
    "pending": "dim",
}

# What a terminal would obey instead of show: C0 but tab and newline, DEL, C1; what reorders the line (bidi), or ends it
# (2028, 2029); what nobody sees, so that two texts look alike: zero-width spaces, invisible operators, tags. The
# joiners 200C and 200D stay, which Persian, Hindi and emoji need.
_CONTROL = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
# What would end a record of tab-separated text, and how it is shown.
BREAKS = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}

MINUTE, HOUR, DAY = 60, 3600, 86400


# --- what a stream can do


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a person watches the stream."""
    # Closed, or not much of a stream: what a test, a notebook or a window system has put in its place.
    with contextlib.suppress(ValueError, AttributeError):
        return stream is not None and stream.isatty()
    return False


def is_live(stream: TextIO | None) -> bool:
    """Return whether lines of the stream can be redrawn."""
    return is_terminal(stream) and os.environ.get("TERM", "dumb") != "dumb"


def has_colour(stream: TextIO | None) -> bool:
    """Return whether colour is wanted: NO_COLOR says no, FORCE_COLOR yes, else a terminal that is not dumb."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in {"", "0"}:
        return True
    return is_live(stream)


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """Colour a text for a stream (stdout by default) where that is wanted."""
    code = STYLES.get(style)
    return f"\x1b[{code}m{text}\x1b[0m" if code and text and has_colour(stream or sys.stdout) else text


def paint_state(state: str, text: str | None = None, stream: TextIO | None = None) -> str:
    """Colour the name of a state, or a text, as that state."""
    return paint(state if text is None else text, STATE_STYLES.get(state, ""), stream)


# --- the user's data


def escape(text: str, *, lines: bool = False) -> str:
    """Show control characters instead of sending them; with ``lines``, tabs and newlines stay."""
    text = re.sub(_CONTROL, lambda found: repr(found[0])[1:-1], text)
    if not lines:
        for character, shown in BREAKS.items():
            text = text.replace(character, shown)
    return text


def for_stream(text: str, stream: TextIO | None = None, *, lines: bool = False) -> str:
    """Escape a text of the user's where the stream (stdout by default) is a terminal."""
    return escape(text, lines=lines) if is_terminal(stream or sys.stdout) else text


def shorten(text: str, length: int) -> str:
    """Cut a text to a length, and show that it was cut."""
    return text if len(text) <= length else text[: max(0, length - 1)] + "…"


def width(text: str) -> int:
    """Return the columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width  # noqa: PLC0415 - a shared library, for few tables

    return sum(0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text)


# --- numbers, times


def iso(moment: datetime | None) -> str | None:
    """Write a moment for programs: ISO 8601, UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment is not None else None


def clock(moment: datetime) -> str:
    """Write a moment for people: local time."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float | None) -> str:
    """Write a length of time for people, in at most two units."""
    if seconds is None:
        return ""
    if seconds < 0.001 - 5e-7:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.1 - 5e-5:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < MINUTE - 0.05:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, below, part in ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name} {rest} {part}" if rest else f"{whole // unit} {name}"
    return f"{whole} s"


def number(count: int) -> str:
    """Write a number for people, with its thousands apart."""
    return f"{count:,}"


def count(many: int, what: str = "task") -> str:
    """Write how many of something: ``1 task``, ``12,345 tasks``."""
    return f"{many:,} {what}" if many == 1 else f"{many:,} {what}s"


def rate(per_second: float) -> str:
    """Write a rate in the unit that gives a number one can read."""
    if per_second >= 10:  # noqa: PLR2004 - below, a decimal matters
        return f"{number(round(per_second))} tasks/s"
    if per_second >= 1:
        return f"{per_second:.1f} tasks/s"
    if per_second * 60 >= 1:
        return f"{per_second * 60:.1f} tasks/min"
    return f"{per_second * 3600:.1f} tasks/h"


# --- a pool in a line


def progress_line(status: PoolStatus) -> str:
    """Say in a line how far a pool is, where there is no live bar."""
    parts = [f"{number(status.finished)} of {count(status.n_jobs)} finished"]
    if status.failed:
        parts.append(f"{number(status.failed)} failed")
    if status.counts[TaskState.RUNNING]:
        parts.append(f"{number(status.counts[TaskState.RUNNING])} running")
    paused = " (paused)" if status.state is PoolState.PAUSED else ""
    return f"{status.pool}{paused}: {', '.join(parts)}"


def summary(status: PoolStatus, stream: TextIO | None = None) -> str:
    """Say in a line what came of a pool that is done, for a stream (stdout by default)."""
    parts = []
    for state, word in ((TaskState.SUCCESS, "succeeded"), (None, "failed"), (TaskState.CANCELLED, "cancelled")):
        many = status.failed if state is None else status.counts[state]
        if many:
            text = f"{number(many)} {word}"
            parts.append(paint_state("error" if state is None else state.value, text, stream))
    what = ", ".join(parts) or "no tasks"
    return f"{for_stream(status.pool, stream)} is {status.state.value} after {duration(status.total_time)}: {what}"


def done_share(status: PoolStatus) -> str:
    """Say how much of a pool is done: ``3 of 4 tasks finished (75 %)``; 100 % only if it is all."""
    share = status.finished / status.n_jobs if status.n_jobs else 1.0
    percent = 100 if status.finished == status.n_jobs else min(99, int(share * 100))
    return f"{number(status.finished)} of {count(status.n_jobs)} finished ({percent} %)"


def time_taken(status: PoolStatus) -> str:
    """Say how long a pool has taken so far, and how fast it was where no retry makes that a poor measure."""
    time = duration(status.total_time)
    ran = status.finished - status.counts[TaskState.CANCELLED]
    if status.retry_time is not None:
        return f"{time} ({duration(status.retry_time)} since the last retry)"
    return f"{time}, {rate(ran / status.total_time)}" if ran and status.total_time > 0 else time
