"""The second look at a text file, one line at a time, to say where something stands or what is wrong with it.

Reading itself is pyarrow's work; this runs only for the header, and when there is an error to report.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import sys
from collections.abc import Generator, Sequence

from jobpool_cli.errors import InputError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def line_at(data: bytes, position: int) -> int:
    """The line, from 1, in which a byte stands."""
    return data.count(b"\n", 0, position) + 1


def csv_header(data: bytes, delimiter: str, name: str) -> tuple[list[str], int, int]:
    """The first row of a CSV file that is not blank, its line, and the position of the byte after it."""
    with contextlib.closing(_records(data, delimiter)) as records:
        try:
            for line, end, record in records:
                lines = itertools.islice(_text(data), end)
                mark = len(_BYTE_ORDER_MARK) if data.startswith(_BYTE_ORDER_MARK) else 0
                return record, line, mark + sum(len(each.encode()) for each in lines)
        except csv.Error as error:
            raise InputError(f"{name} line 1: the header cannot be read: {error}") from None
    raise InputError(f"{name} holds only blank lines", "it needs at least a header line that names the columns")


def csv_lines(data: bytes, delimiter: str, rows: Sequence[int]) -> list[int | None]:
    """The lines on which data rows (from 0) begin."""
    wanted = set(rows)
    last = max(wanted, default=-1)
    found: dict[int, int] = {}
    header, header_line, _ = csv_header(data, delimiter, "the table")
    row = -1
    with (
        contextlib.closing(_records(data, delimiter, blanks=len(header) == 1)) as records,
        contextlib.suppress(csv.Error),
    ):
        for line, _end, _record in records:
            if line <= header_line:
                continue
            row += 1
            if row in wanted:
                found[row] = line
            if row >= last:
                break
    return [found.get(row) for row in rows]


def json_lines(data: bytes, rows: Sequence[int]) -> list[int | None]:
    """The lines on which rows (from 0) of JSON Lines stand; blank lines are no rows."""
    wanted = set(rows)
    found: dict[int, int] = {}
    row = 0
    for line, text in enumerate(data.split(b"\n"), start=1):
        if text.strip() in {b"", _BYTE_ORDER_MARK}:
            continue
        if row in wanted:
            found[row] = line
        row += 1
    return [found.get(row) for row in rows]


def check_csv(data: bytes, delimiter: str, name: str, width: int, header: Sequence[str]) -> None:
    """Find what is wrong with a CSV file.

    Raises:
        InputError: a row has too many or too few cells, or a quote is never closed.
    """
    began = 1
    with contextlib.closing(_records(data, delimiter)) as records:
        try:
            for line, _end, record in records:
                began = line
                if len(record) != width:
                    raise InputError(
                        f"{name} line {line}: {_describe(record, width, header)}", _ragged_hint(record, width)
                    )
        except csv.Error as error:
            at = _next_line(data, delimiter, began)
            if "unexpected end of data" in str(error):
                raise InputError(
                    f'{name} line {at}: a quote (") opens a cell and is never closed',
                    'close it, or double every quote inside a quoted cell ("")',
                ) from None
            raise InputError(f"{name} line {at}: {error}") from None


def _describe(record: list[str], width: int, header: Sequence[str]) -> str:
    """How a row differs from the header."""
    cells = f"{len(record)} cell" + ("" if len(record) == 1 else "s")
    if len(record) < width:
        return f"{cells} where the header names {width} columns; none for {header[len(record)]}"
    return f"{cells} where the header names {width} columns; one too many is {_short(record[width])}"


def _ragged_hint(record: list[str], width: int) -> str:
    if len(record) > width:
        return 'put a cell that holds the separator in quotes: "a,b"'
    return "an empty cell needs its separator too"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")  # noqa: PLR2004


def _next_line(data: bytes, delimiter: str, after: int) -> int:
    """The line of the record that follows the one that began on a given line."""
    line = after
    with contextlib.closing(_records(data, delimiter, strict=False)) as records:
        for line, _end, _record in records:
            if line > after:
                return line
    return line


def _text(data: bytes) -> io.TextIOWrapper:
    """The text, a line at a time, every line with the ending that it has."""
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")


def _records(
    data: bytes, delimiter: str, *, strict: bool = True, blanks: bool = False
) -> Generator[tuple[int, int, list[str]], None, None]:
    """Rows, each with the lines on which it begins and ends; blank lines only if asked for."""
    # A setting of the whole process: given back, whoever reads CSV next.
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        reader = csv.reader(_text(data), delimiter=delimiter, strict=strict)
        line = 1
        for record in reader:
            if record or blanks:
                yield line, reader.line_num, record
            line = reader.line_num + 1
    finally:
        csv.field_size_limit(before)
