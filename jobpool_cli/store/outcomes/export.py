"""A table to a file or to stdout, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.types as pt

from jobpool_cli.errors import REFUSALS, MachineError, UsageError
from jobpool_cli.layout import TEMPORARY_PREFIX
from jobpool_cli.store.ownership import follow
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
# With these spreadsheets take a cell for a formula (OWASP, "CSV injection"); the last four have the full width of East
# Asian text.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
Guard = Callable[[str], str]


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


def export(
    table: pa.Table,
    target: Path | None,
    format: str,  # noqa: A002 - what it is called everywhere
    *,
    excel_safe: bool = False,
) -> None:
    """Write the table to a file, which keeps its old content until the new one is complete; None is stdout.

    Args:
        table: what to write.
        target: the file.
        format: csv, tsv, jsonl or parquet.
        excel_safe: in CSV and TSV, let no text look like a formula to a spreadsheet.

    Raises:
        MachineError: the disk is full, there is no permission, or the like; the old file is untouched.
        UsageError: the target cannot be a file.
        BrokenPipeError: whoever read stdout has gone.
    """
    if target is None:
        _write(table, sys.stdout.buffer, format, excel_safe=excel_safe)
        sys.stdout.buffer.flush()
        return
    with _replaced(target) as sink:
        _write(table, sink, format, excel_safe=excel_safe)


@contextmanager
def _replaced(target: Path) -> Iterator[BinaryIO]:
    """A new file that takes the target's place if the block ends well, and vanishes if not."""
    if target.is_dir():
        raise UsageError(f"{target} is a directory", "name a file in it")
    # What a symbolic link points to is replaced; the link stays.
    final = follow(target.absolute())
    if final.exists() and not final.is_file():  # /dev/stdout, a named pipe: nothing to keep whole
        with _explained(target), final.open("wb") as sink:
            yield sink
        return
    with _explained(target):
        _remove_left_over(final)
        descriptor, temporary = _new_beside(final)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                # mkstemp gives 0600; the user's file has the mode it had, or that of any new file.
                os.fchmod(sink.fileno(), final.stat().st_mode & 0o7777 if final.exists() else 0o666 & ~_umask())
                yield sink
                sink.flush()
                os.fsync(sink.fileno())
                # While it is locked.
                temporary.replace(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _new_beside(final: Path) -> tuple[int, Path]:
    """Make a temporary file that is locked for as long as its descriptor is open."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=_ending(final), dir=final.parent)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            # Somebody may have taken it for one that was left over, in the moment without a lock.
            if os.path.samestat(os.stat(name), os.fstat(descriptor)):
                return descriptor, Path(name)
        os.close(descriptor)


def _remove_left_over(final: Path) -> None:
    """Delete the temporary files of this target whose writers were killed: nobody holds their locks."""
    pattern = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}[a-z0-9_]{{8}}{re.escape(_ending(final))}")
    with suppress(PermissionError):  # a folder that may be written to, and not listed
        for entry in os.scandir(final.parent):
            if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_left(entry.path)


def _remove_if_left(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(descriptor)


def _ending(final: Path) -> str:
    return f"-{final.name[-40:]}"


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
            errno.EFBIG: REFUSALS[errno.EFBIG][1],
            errno.ENOENT: f"create the folder first: mkdir -p {target.parent}",
            errno.ENOTDIR: "a part of the path is a file, not a folder",
        }.get(error.errno or 0, "nothing was changed; try again or write elsewhere")
        # What the system says of this one, "File too large", says nothing of the limit.
        why = REFUSALS[errno.EFBIG][0] if error.errno == errno.EFBIG else error.strerror or error
        raise MachineError(f"cannot write {target}: {why}", hint) from error


def _write(table: pa.Table, sink: BinaryIO, format: str, *, excel_safe: bool) -> None:  # noqa: A002
    if format == "parquet":
        import pyarrow.parquet as pq  # noqa: PLC0415 - 30 ms, not needed for text

        pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    elif format == "jsonl":
        _write_json_lines(table, sink)
    else:
        _write_csv(table, sink, "\t" if format == "tsv" else ",", _guarded if excel_safe else str)


def _write_csv(table: pa.Table, sink: BinaryIO, delimiter: str, guard: Guard) -> None:
    special = re.compile(rf'[{delimiter}"\r\n]')
    # A line of one empty field would be an empty line, which readers skip.
    missing = '""' if table.num_columns == 1 else ""
    header = delimiter.join(_quoted(guard(name), special) for name in table.schema.names)
    sink.write(f"{header}\n".encode())
    # In JSON text only what was text is guarded, which cannot be told any more once it is plain.
    guards = [str if _is_json(field) else guard for field in table.schema]
    for batch in plain_texts(table, guard).to_batches(max_chunksize=ROWS_AT_ONCE):
        columns = [_csv_cells(column, special, missing, own) for column, own in zip(batch.columns, guards, strict=True)]
        sink.write("".join(f"{delimiter.join(row)}\n" for row in zip(*columns, strict=True)).encode())


def _guarded(text: str) -> str:
    """Text that a spreadsheet takes for text: one that looks like a formula gets the quote that says so to it."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def plain_texts(table: pa.Table, guard: Guard = str) -> pa.Table:
    """The table with what is text among its JSON text as that text, without quotes: for CSV, and for people."""
    table = _with_wkt(table)
    for number, field in enumerate(table.schema):
        if _is_json(field):
            chunks = [_texts_of_json(chunk, guard) for chunk in table.column(number).chunks]
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


def _texts_of_json(column: pa.Array, guard: Guard) -> pa.Array:
    values = [
        guard(json.loads(cell).encode(errors="backslashreplace").decode())
        if cell is not None and cell[:1] == '"'
        else cell
        for cell in column.to_pylist()
    ]
    return texts(values, presence(values)).cast(column.type)


def _csv_cells(column: pa.Array, special: re.Pattern[str], missing: str, guard: Guard) -> list[str]:
    """The column's values as they stand in the file; an empty string is quoted, a null is nothing at all."""
    values = _values(column)
    if pt.is_integer(column.type) or pt.is_floating(column.type):
        return [missing if value is None else repr(value) for value in values]
    if pt.is_boolean(column.type):
        return [missing if value is None else "true" if value else "false" for value in values]
    if pt.is_decimal(column.type):
        guard = str
    return [missing if value is None else _quoted(_cell_text(value, guard), special) for value in values]


def _quoted(text: str, special: re.Pattern[str]) -> str:
    if text and not special.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def _cell_text(value: object, guard: Guard) -> str:
    plain = jsonable(value)
    return guard(plain) if isinstance(plain, str) else json_text(plain)


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
