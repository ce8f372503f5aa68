"""Tables, logs and values on the terminal, and as TSV or JSON Lines for programs; columns become text as columns.

A million rows are a matter of seconds: nothing here calls a function per cell where a column can be had at once.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from jobpool_cli.cli import render
from jobpool_cli.show.text import escape, is_terminal, paint, shorten
from jobpool_cli.store.values.jsonable import json_text, jsonable, safe_repr

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 16_384
LONGEST_CELL = 200

Cells = Callable[[Sequence[object]], Sequence[str]]

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """Return the Python values of a column."""
    from jobpool_cli.store.arguments.decoding import plain_values  # noqa: PLC0415 - pyarrow

    if _is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return plain_values(column)


# --- values as text


def cell_text(value: object) -> str:
    """Return a value as a cell of a table: text as it is, nothing for None, else as JSON has it."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float) and type(value) is float:
        return repr(value)
    found = jsonable(value)
    return found if isinstance(found, str) else "" if found is None else json_text(found)


def shown(value: object) -> str:
    """Return a value as Python would write it, in one line and not too long, for messages."""
    return shorten(safe_repr(value), LONGEST_CELL)


def call_text(arguments: Mapping[str, object]) -> str:
    """Return arguments as they would stand in a call: ``x=3, y='a'``."""
    return ", ".join(f"{name}={shown(value)}" for name, value in arguments.items())


# --- tables


def write_table(table: pa.Table, *, states: str | None = None, people: Mapping[str, Cells] | None = None) -> None:
    """Write a table: aligned for people on a terminal, as TSV elsewhere.

    Args:
        table: what to write.
        states: name of the column that holds states, to colour it.
        people: how columns are written on a terminal, where that is not as elsewhere.
    """
    names = table.schema.names
    if not is_terminal(sys.stdout):
        _write_tsv(table, names)
        return
    rows = _rows_for_people(table, names, people or {})
    right = [name for name in names if _is_number(table.schema.field(name).type)]
    render.write_table(names, rows, right=right, states=states)


def _write_tsv(table: pa.Table, names: Sequence[str]) -> None:
    out = render.stdout()
    out.write("\t".join(map(_tsv, names)) + "\n")
    for part in _parts(table):
        columns = [_tsv_cells(part.column(number)) for number in range(len(names))]
        out.write("".join(f"{row}\n" for row in map("\t".join, zip(*columns, strict=True))))


def _tsv_cells(column: pa.ChunkedArray) -> Sequence[str]:
    if column.null_count == len(column):
        return [""] * len(column)
    if _is_dictionary(column.type):
        return _looked_up(column, lambda value: _tsv(cell_text(value)))
    bare = _bare_texts(column)
    if bare is not None:
        return ["" if text is None else text for text in bare] if column.null_count else bare
    return _each_once(values_of(column), lambda value: _tsv(cell_text(value)))


def _is_dictionary(kind: pa.DataType) -> bool:
    import pyarrow.types as pt  # noqa: PLC0415

    return bool(pt.is_dictionary(kind))


def _looked_up(column: pa.ChunkedArray, write: Callable[[Any], str]) -> list[str]:
    """Write each value of a dictionary once."""
    from jobpool_cli.store.arguments.decoding import plain_values  # noqa: PLC0415

    written: list[str] = []
    for chunk in column.chunks:
        known = [write(value) for value in plain_values(chunk.dictionary)]
        codes = plain_values(chunk.indices)
        written += [known[code] if isinstance(code, int) else write(None) for code in codes]
    return written


def _each_once(values: list[Any], write: Callable[[Any], str]) -> list[str]:
    """Write values of which many are alike: states, errors, names."""
    try:
        known: dict[Any, str] = {value: write(value) for value in {*values} if isinstance(value, str)}
    except TypeError:  # lists and dicts
        return list(map(write, values))
    return [known[value] if value in known else write(value) for value in values]


def _bare_texts(column: pa.ChunkedArray) -> list[Any] | None:
    """Numbers and moments as text, None where they are null; these need neither quotes nor escapes. None for others."""
    import numpy as np  # noqa: PLC0415
    import pyarrow.types as pt  # noqa: PLC0415

    kind = column.type
    if pt.is_integer(kind) or pt.is_floating(kind):
        values = values_of(column)
        if not column.null_count:
            return list(map(repr, values))
        return [None if value is None else repr(value) for value in values]
    if pt.is_timestamp(kind) and kind.unit == "us" and kind.tz == "UTC":
        texts: list[Any] = []
        for chunk in column.chunks:
            numbers = np.frombuffer(chunk.buffers()[1], np.int64, len(chunk), chunk.offset * 8)
            part = np.datetime_as_string(numbers.view("datetime64[us]"), timezone="UTC").tolist()
            if chunk.null_count:
                part = [text if there else None for text, there in zip(part, chunk.is_valid().to_pylist(), strict=True)]
            texts += part
        return texts
    return None


def _tsv(text: str) -> str:
    return text if text.isalnum() else text.translate(render.TSV)


def _rows_for_people(table: pa.Table, names: Sequence[str], people: Mapping[str, Cells]) -> Iterator[tuple[str, ...]]:
    for part in _parts(table):
        columns = []
        for number, name in enumerate(names):
            values = values_of(part.column(number))
            columns.append(people[name](values) if name in people else [_short_cell(value) for value in values])
        yield from zip(*columns, strict=True)


def _short_cell(value: object) -> str:
    return shorten(cell_text(value), LONGEST_CELL)


def each(write: Callable[[Any], str]) -> Cells:
    """Return how to write a column whose cells are written one by one; None is nothing."""
    return lambda values: ["" if value is None else write(value) for value in values]


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow.types as pt  # noqa: PLC0415

    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        yield table.slice(start, ROWS_AT_ONCE)


def write_json_lines(table: pa.Table, nested: Mapping[str, pa.Table] | None = None, *, bare: bool = False) -> None:
    """Write a table as JSON Lines.

    Args:
        table: what to write, an object per row.
        nested: tables of as many rows, which become an object each in every line.
        bare: without the version of the form: the columns are the user's own, as `collect` writes them.
    """
    out, end = render.stdout(), escape_for_terminal()
    head = "{" if bare else render.JSON_HEAD
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        lines = _objects(table.slice(start, ROWS_AT_ONCE), nested or {}, start, head)
        out.write(end("".join(f"{line}\n" for line in lines)))


def _objects(table: pa.Table, nested: Mapping[str, pa.Table], start: int, head: str = "{") -> Iterator[str]:
    names = list(table.schema.names)
    columns: list[Any] = [_json_cells(table.column(number)) for number in range(len(names))]
    for name, inner in nested.items():
        names.append(name)
        part = inner.slice(start, table.num_rows)
        columns.append(_objects(part, {}, 0) if part.num_columns else repeat("{}", table.num_rows))
    form = head + ", ".join(f"{_encode(name)}: %s".replace("%", "%%").replace("%%s", "%s") for name in names) + "}"
    return map(form.__mod__, zip(*columns, strict=True))


def _json_cells(column: pa.ChunkedArray) -> Sequence[str]:
    import pyarrow.types as pt  # noqa: PLC0415

    if column.null_count == len(column):
        return ["null"] * len(column)
    if pt.is_floating(column.type):
        return [json_text(value) if value is None or value - value != 0 else repr(value) for value in values_of(column)]
    if _is_dictionary(column.type):
        return _looked_up(column, json_text)
    bare = _bare_texts(column)
    if bare is None:
        return _each_once(values_of(column), json_text)
    quote = '"' if pt.is_timestamp(column.type) else ""
    return ["null" if text is None else f"{quote}{text}{quote}" for text in bare]


def escape_for_terminal() -> Callable[[str], str]:
    """Return what makes a text harmless where stdout is a terminal, and leaves it alone elsewhere."""
    return partial(escape, lines=True) if is_terminal(sys.stdout) else str


# --- logs


class LogWriter:
    """Writes what tasks wrote: byte for byte through a pipe, on a terminal with its control characters shown."""

    def __init__(self, *, headers: bool) -> None:
        """Write a header wherever another source begins, or none at all."""
        self._headers = headers
        self._source: object = None
        self._at_line_start = True
        self._out = render.stdout()
        self._terminal = is_terminal(self._out)
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def begin(self, source: object, title: str) -> None:
        """Say what comes now, if it is not what came before."""
        if source == self._source:
            return
        first = self._source is None
        self._source = source
        if self._headers:
            self._end_line()
            self._send(("" if first else "\n") + paint(f"==> {title} <==", "dim") + "\n")

    def write(self, data: bytes) -> None:
        """Write a piece."""
        if not data:
            return
        if self._terminal:
            self._send(escape(self._decoder.decode(data).replace("\r\n", "\n"), lines=True))
        else:
            self._out.buffer.write(data)
        self._at_line_start = data.endswith(b"\n")

    def flush(self) -> None:
        """Let it be seen now."""
        (self._out if self._terminal else self._out.buffer).flush()

    def end(self) -> None:
        """Leave the prompt of a terminal at the beginning of a line."""
        if self._terminal:
            self._end_line()
        self.flush()

    def _send(self, text: str) -> None:
        # Through a pipe everything goes the way of the bytes, so that nothing overtakes them.
        if self._terminal:
            self._out.write(text)
        else:
            self._out.buffer.write(text.encode(errors="backslashreplace"))

    def _end_line(self) -> None:
        if not self._at_line_start:
            rest = self._decoder.decode(b"", final=True) if self._terminal else ""
            self._decoder.reset()
            self._send(f"{rest}\n")
            self._at_line_start = True


# --- results


def result_text(value: Any, *, for_people: bool) -> str:
    """Return a result in one line: text as it is (with tabs and line ends shown), else JSON, else ``repr``.

    For people a table is drawn as its library draws it, over several lines.
    """
    if isinstance(value, str):
        return _tsv(value)
    if isinstance(value, float):
        return repr(float(value))
    if for_people and type(value).__module__.partition(".")[0] in ("pandas", "polars", "pyarrow", "numpy"):
        with contextlib.suppress(Exception):  # what is drawn is the user's: objects in cells, classes of their own
            drawn = str(value)
            return f"\n{drawn}" if "\n" in drawn else drawn
    found = jsonable(value)
    return _tsv(found) if isinstance(found, str) else json_text(found)
