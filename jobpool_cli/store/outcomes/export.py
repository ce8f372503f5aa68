"""A table to a file or to stdout, whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.types as pt

from jobpool_cli.errors import MachineError, UsageError
from jobpool_cli.layout import TEMPORARY_PREFIX
from jobpool_cli.store.values.buffers import presence, texts
from jobpool_cli.store.values.geometry import WKB, wkt_texts
from jobpool_cli.store.values.jsonable import json_text, jsonable

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
KNOWN = ("parquet", "csv", "tsv", "jsonl")
ROWS_AT_ONCE = 65_536
ROW_GROUP = 122_880


def format_of(target: Path | None, given: str | None) -> str:
    """Which format to write: the given one, else by the file's suffix; CSV for stdout.

    Raises:
        UsageError: the format or the suffix is unknown.
    """
    if given is not None:
        name = given.lower().removeprefix(".")
        name = {"ndjson": "jsonl", "pq": "parquet"}.get(name, name)
        if name not in KNOWN:
            raise UsageError(f"{given!r} is not a format", f"use one of {', '.join(KNOWN)}")
        return name
    if target is None:
        return "csv"
    try:
        return FORMATS[target.suffix.lower()]
    except KeyError:
        what = f"suffix {target.suffix!r} of" if target.suffix else "missing suffix of"
        raise UsageError(
            f"cannot tell the format from the {what} {target}",
            f"end the name in {', '.join(FORMATS)}, or name the format: {', '.join(KNOWN)}",
        ) from None


def export(table: pa.Table, target: Path | None, format: str) -> None:  # noqa: A002 - what it is called everywhere
    """Write the table to a file, which keeps its old content until the new one is complete; None is stdout.

    Raises:
        MachineError: the disk is full, there is no permission, or the like; the old file is untouched.
        UsageError: the target cannot be a file.
        BrokenPipeError: whoever read stdout has gone.
    """
    if target is None:
        _write(table, sys.stdout.buffer, format)
        sys.stdout.buffer.flush()
        return
    with _replaced(target) as sink:
        _write(table, sink, format)


@contextmanager
def _replaced(target: Path) -> Iterator[BinaryIO]:
    """A new file that takes the target's place if the block ends well, and vanishes if not."""
    if target.is_dir():
        raise UsageError(f"{target} is a directory", "name a file in it")
    # What a symbolic link points to is replaced; the link stays.
    final = target.resolve() if target.is_symlink() else target.absolute()
    if final.exists() and not final.is_file():  # /dev/stdout, a named pipe: nothing to keep whole
        with _explained(target), final.open("wb") as sink:
            yield sink
        return
    with _explained(target):
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=f"-{final.name[-40:]}", dir=final.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                # mkstemp gives 0600; the user's file has the mode it had, or that of any new file.
                os.fchmod(sink.fileno(), final.stat().st_mode & 0o7777 if final.exists() else 0o666 & ~_umask())
                yield sink
                sink.flush()
                os.fsync(sink.fileno())
            temporary.replace(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _umask() -> int:
    # There is no way to ask without setting.
    current = os.umask(0o077)
    os.umask(current)
    return current


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        hint = {
            errno.ENOSPC: "free some space, or write to another disk",
            errno.EDQUOT: "your quota is used up: free some space, or write elsewhere",
            errno.EACCES: "write to a folder that is yours",
            errno.EPERM: "write to a folder that is yours",
            errno.EROFS: "this file system is read-only: write elsewhere",
            errno.ENOENT: f"create the folder first: mkdir -p {target.parent}",
            errno.ENOTDIR: "a part of the path is a file, not a folder",
        }.get(error.errno or 0, "nothing was changed; try again or write elsewhere")
        raise MachineError(f"cannot write {target}: {error.strerror or error}", hint) from error


def _write(table: pa.Table, sink: BinaryIO, format: str) -> None:  # noqa: A002
    if format == "parquet":
        import pyarrow.parquet as pq  # noqa: PLC0415 - 30 ms, not needed for text

        pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    elif format == "jsonl":
        _write_json_lines(table, sink)
    else:
        _write_csv(table, sink, "\t" if format == "tsv" else ",")


def _write_csv(table: pa.Table, sink: BinaryIO, delimiter: str) -> None:
    special = re.compile(rf'[{delimiter}"\r\n]')
    # A line of one empty field would be an empty line, which readers skip.
    missing = '""' if table.num_columns == 1 else ""
    header = delimiter.join(_quoted(name, special) for name in table.schema.names)
    sink.write(f"{header}\n".encode())
    for batch in plain_texts(table).to_batches(max_chunksize=ROWS_AT_ONCE):
        columns = [_csv_cells(column, special, missing) for column in batch.columns]
        sink.write("".join(f"{delimiter.join(row)}\n" for row in zip(*columns, strict=True)).encode())


def plain_texts(table: pa.Table) -> pa.Table:
    """The table with what is text among its JSON text as that text, without quotes: for CSV, and for people."""
    table = _with_wkt(table)
    for number, field in enumerate(table.schema):
        if _is_json(field):
            chunks = [_texts_of_json(chunk) for chunk in table.column(number).chunks]
            table = table.set_column(number, pa.field(field.name, field.type), pa.chunked_array(chunks, field.type))
    return table


def _with_wkt(table: pa.Table) -> pa.Table:
    """The table with its geometries as text, where there is shapely to write it."""
    for number, field in enumerate(table.schema):
        if field.metadata == WKB:
            column = wkt_texts(table.column(number))
            if column is not None:
                table = table.set_column(number, field.name, column)
    return table


def _is_json(field: pa.Field) -> bool:
    return bool(field.metadata) and field.metadata.get(b"jobpool.encoding") == b"json"


def _texts_of_json(column: pa.Array) -> pa.Array:
    values = [
        json.loads(cell).encode(errors="backslashreplace").decode() if cell is not None and cell[:1] == '"' else cell
        for cell in column.to_pylist()
    ]
    return texts(values, presence(values)).cast(column.type)


def _csv_cells(column: pa.Array, special: re.Pattern[str], missing: str) -> list[str]:
    """The column's values as they stand in the file; an empty string is quoted, a null is nothing at all."""
    values = _values(column)
    if pt.is_integer(column.type) or pt.is_floating(column.type):
        return [missing if value is None else repr(value) for value in values]
    if pt.is_boolean(column.type):
        return [missing if value is None else "true" if value else "false" for value in values]
    return [missing if value is None else _quoted(_cell_text(value), special) for value in values]


def _quoted(text: str, special: re.Pattern[str]) -> str:
    if text and not special.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def _cell_text(value: object) -> str:
    plain = jsonable(value)
    return plain if isinstance(plain, str) else json_text(plain)


def _write_json_lines(table: pa.Table, sink: BinaryIO) -> None:
    sink.writelines(lines.encode() for lines in json_lines(table))


def json_lines(table: pa.Table) -> Iterator[str]:
    """Yield the table as JSON Lines, many at a time."""
    names = [json_text(name).replace("%", "%%") for name in table.schema.names]
    line = "{" + ", ".join(f"{name}: %s" for name in names) + "}\n"
    table = _with_wkt(table)
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        columns = [
            ["null" if cell is None else cell for cell in column.to_pylist()]
            if _is_json(field)
            else _json_cells(column)
            for field, column in zip(table.schema, batch.columns, strict=True)
        ]
        yield "".join(line % row for row in zip(*columns, strict=True))


def _json_cells(column: pa.Array) -> list[str]:
    values = _values(column)
    if pt.is_integer(column.type):
        return ["null" if value is None else repr(value) for value in values]
    if pt.is_string(column.type) or pt.is_large_string(column.type):
        # One encoder for all cells: json.dumps with options makes a new one for each.
        encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
        return ["null" if value is None else encode(value) for value in values]
    return [json_text(value) for value in values]


def _values(column: pa.Array) -> list[Any]:
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pt.is_map(column.type):
        # As the dicts that they were; two keys may be one in JSON, which json_text knows how to say.
        return [None if pairs is None else dict(pairs) for pairs in column.to_pylist()]
    if (pt.is_timestamp(column.type) or pt.is_duration(column.type)) and column.type.unit == "ns":
        # Python's datetime knows microseconds only; pandas need not be there.
        return _moments(column) if pt.is_timestamp(column.type) else _seconds(column)
    return column.to_pylist()  # type: ignore[no-any-return]


def _moments(column: pa.Array) -> list[Any]:
    return [None if text is None else text.replace(" ", "T", 1) for text in column.cast(pa.string()).to_pylist()]


def _seconds(column: pa.Array) -> list[Any]:
    return [None if value is None else value / 1e9 for value in column.cast(pa.int64()).to_pylist()]
