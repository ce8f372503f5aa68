"""The one place that writes: data to stdout, all else to stderr; colour and escapes as the stream at hand wants them.

Nothing here imports more than the standard library; what moves on a terminal is in ``live``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, NamedTuple, TextIO

# The version of what --json prints; docs/reference/json.md says which changes raise it.
SCHEMA = 1
# How every object begins that is put together as text, because it is one of a million.
JSON_HEAD = f'{{"schema": {SCHEMA}, '

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

# What a terminal would obey instead of show: C0 but tab and newline, DEL, C1, and marks that reorder the line.
_CONTROL = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
_BREAKS = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_TSV = str.maketrans({"\\": "\\\\", **_BREAKS})

MINUTE, HOUR, DAY = 60, 3600, 86400
# Rows that are looked at to set the widths of a table on a terminal; the rest streams.
_MEASURED_ROWS = 500


# --- what a stream can do


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a person watches the stream."""
    with contextlib.suppress(ValueError):
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
        for character, shown in _BREAKS.items():
            text = text.replace(character, shown)
    return text


def for_stream(text: str, stream: TextIO | None = None, *, lines: bool = False) -> str:
    """Escape a text of the user's where the stream (stdout by default) is a terminal."""
    return escape(text, lines=lines) if is_terminal(stream or sys.stdout) else text


def shorten(text: str, length: int) -> str:
    """Cut a text to a length, and show that it was cut."""
    return text if len(text) <= length else text[: max(0, length - 1)] + "…"


# --- writing


def write(text: str = "", *, flush: bool = False) -> None:
    """Write a line to stdout."""
    if sys.stdout is not None:
        sys.stdout.write(text + "\n")
        if flush:
            sys.stdout.flush()


def say(text: str) -> None:
    """Write a line to stderr: what happened, for whoever ran the command."""
    if sys.stderr is not None:
        # Where even stderr is full or closed there is nobody left to tell.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(for_stream(text, sys.stderr, lines=True) + "\n")
            sys.stderr.flush()


def note(text: str) -> None:
    """Write a line to stderr if a person is there to read it: what one could do next."""
    if is_terminal(sys.stderr):
        say(text)


def error(message: str, hint: str) -> None:
    """Report an error: what and why, then what next."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        head = paint("jobpool: error:", "red", sys.stderr)
        sys.stderr.write(f"{head} {for_stream(message, sys.stderr, lines=True)}\n")
        if hint:
            sys.stderr.write(f"{paint('hint:', 'cyan', sys.stderr)} {for_stream(hint, sys.stderr, lines=True)}\n")
        sys.stderr.flush()


def write_json(content: dict[str, Any], *, flush: bool = False) -> None:
    """Write an object as one line of JSON, with the version of its form first."""
    import json  # noqa: PLC0415 - only for programs

    text = json.dumps({"schema": SCHEMA, **content}, ensure_ascii=False, default=_plain)
    write(for_stream(text, lines=True), flush=flush)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return iso(value)
    return repr(value)


def write_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    states: str | None = None,
) -> None:
    """Write a table to stdout: aligned on a terminal, tab-separated elsewhere; rows are written as they come.

    Args:
        headers: names of the columns.
        rows: cells as text, unescaped.
        right: names of columns that are aligned to the right.
        states: name of the column that holds states, to colour it.
    """
    if not is_terminal(sys.stdout):
        write("\t".join(headers))
        for row in rows:
            write("\t".join(cell.translate(_TSV) for cell in row))
        return
    escaped: Iterator[list[str]] = ([escape(cell) for cell in row] for row in rows)
    first = list(islice(escaped, _MEASURED_ROWS))
    layout = _Layout(
        [max(map(width, column)) for column in zip(headers, *first, strict=True)],
        [name in right for name in headers],
        headers.index(states) if states else None,
        shutil.get_terminal_size().columns,
    )
    write(paint(layout.line(headers, coloured=False), "dim"))
    for cells in chain(first, escaped):
        write(layout.line(cells))


class _Layout(NamedTuple):
    widths: Sequence[int]
    right: Sequence[bool]
    state: int | None
    room: int

    def line(self, cells: Sequence[str], *, coloured: bool = True) -> str:
        """Align one row; a row that is too long for the terminal is cut, and then has no colour."""
        padded = []
        for cell, wide, to_right in zip(cells, self.widths, self.right, strict=True):
            space = " " * (wide - width(cell))
            padded.append(space + cell if to_right else cell + space)
        plain = "  ".join(padded).rstrip()
        if width(plain) > self.room:
            return shorten(plain, self.room)
        if not coloured or self.state is None:
            return plain
        padded[self.state] = paint_state(cells[self.state], padded[self.state])
        return "  ".join(padded).rstrip()


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
