"""The one place that writes: data to stdout, all else to stderr; colour and escapes as the stream at hand wants them.

Nothing here imports more than the standard library. How numbers, times and states read is in ``show.text``.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any, NamedTuple, TextIO

from jobpool_cli.errors import MachineError
from jobpool_cli.model import PoolStatus, TaskState
from jobpool_cli.show.text import (
    BREAKS,
    escape,
    for_stream,
    is_terminal,
    iso,
    paint,
    paint_state,
    shorten,
    width,
)

# The version of what --json prints; docs/reference/json.md says which changes raise it.
SCHEMA = 1
# How every object begins that is put together as text, because it is one of a million.
JSON_HEAD = f'{{"schema": {SCHEMA}, '

# How a cell of tab-separated text is written.
TSV = str.maketrans({"\\": "\\\\", **BREAKS})

# Rows that are looked at to set the widths of a table on a terminal; the rest streams.
_MEASURED_ROWS = 500


# --- writing


def write(text: str = "", *, flush: bool = False) -> None:
    """Write a line to stdout."""
    if sys.stdout is not None:
        sys.stdout.write(text + "\n")
        if flush:
            sys.stdout.flush()


def stdout() -> TextIO:
    """Return stdout for data: of a command that is all about them, and not of one that mainly does something.

    Raises:
        MachineError: it is closed.
    """
    if sys.stdout is None:
        raise MachineError(
            "the output could not be written: stdout is closed", "let it go somewhere: > FILE, or > /dev/null"
        )
    return sys.stdout


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


def warn(text: str) -> None:
    """Write a line to stderr: what is wrong, and no reason to stop."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            head = paint("jobpool: warning:", "yellow", sys.stderr)
            sys.stderr.write(f"{head} {for_stream(text, sys.stderr, lines=True)}\n")
            sys.stderr.flush()


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


def status_json(status: PoolStatus) -> dict[str, Any]:
    """Return a status as programs read it; a public contract, keys are only ever added."""
    return {
        "pool": status.pool,
        "state": status.state.value,
        "n_jobs": status.n_jobs,
        "counts": {state.value: status.counts[state] for state in TaskState},
        "finished": status.finished,
        "failed": status.failed,
        "created": iso(status.created),
        "total_time": status.total_time,
        "retry_time": status.retry_time,
        "udf": status.udf,
        "udf_versions": {str(version): many for version, many in status.udf_versions.items()},
        "workers": status.workers,
        "reason": status.reason,
    }


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
            write("\t".join(cell.translate(TSV) for cell in row))
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
