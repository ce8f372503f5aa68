"""Reading the user's table of arguments: CSV, TSV, JSON Lines or Parquet, from a file or from standard input.

Nothing is interpreted here. The cells of CSV stay text, JSON's values stay what they are; ``binding`` turns them into
what the function's annotations ask for. Whatever is wrong is named by line and column, found by a second, slower look
at the text that only an error has to pay for.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from jobpool_cli.errors import InputError, UsageError
from jobpool_cli.store.arguments import textscan
from jobpool_cli.store.arguments.jsonlines import parse_json_lines
from jobpool_cli.store.arguments.raw import RawArguments
from jobpool_cli.store.arguments.sources import read_whole

STDIN_NAME = "<stdin>"

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
FORMATS = ("csv", "tsv", "jsonl", "parquet")
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_PARQUET_MAGIC = b"PAR1"
_GZIP_MAGIC = b"\x1f\x8b"
# One pass of pyarrow's CSV reader; a row must fit into a block, so it grows for a file with longer ones.
_BLOCK_SIZE = 4 << 20


def read_arguments(source: str, *, format: str | None = None, stdin: BinaryIO | None = None) -> RawArguments:  # noqa: A002
    """Read a table of arguments.

    Args:
        source: a path, or ``-`` for standard input.
        format: csv, tsv, jsonl or parquet; by default the file's suffix decides, and where there is none the content.
        stdin: what ``-`` reads from; the process's own standard input by default.

    Raises:
        InputError: the table cannot be read; the message says where.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"{format!r} is no format that jobpool reads", f"choose one of {', '.join(FORMATS)}")
    if source == "-":
        name, path = STDIN_NAME, None
        stream = stdin or (sys.stdin.buffer if sys.stdin is not None else None)
        if stream is None:
            raise InputError("standard input is closed", "name a file, or give the arguments on standard input")
        data = stream.read()
    else:
        name, path = source, Path(os.path.expanduser(source))
        suffix = path.suffix.lower()
        format = format or _SUFFIXES.get(suffix)  # noqa: A001
        data = _read(path, name)
    format = format or _sniff(data)  # noqa: A001
    if not data and format != "jsonl":
        needed = "a header line that names the columns" if format in _DELIMITERS else "its columns"
        raise InputError(f"{name} is empty", f"it needs at least {needed}")
    if format == "parquet":
        return RawArguments(_parse_parquet(data, name), textual=False, source=name)
    # Only a regular file can be read once more; of a pipe the text is kept.
    kept = None if path is not None and path.is_file() else data

    def reread() -> bytes:
        return _read(path, name) if path is not None and kept is None else kept or b""

    _check_text(data, name)
    if format == "jsonl":
        table = parse_json_lines(data, name)
        return RawArguments(table, textual=False, source=name, _locate=lambda rows: textscan.json_lines(reread(), rows))
    delimiter = _DELIMITERS[format]
    table = _parse_csv(data, name, delimiter)
    return RawArguments(
        table, textual=True, source=name, _locate=lambda rows: textscan.csv_lines(reread(), delimiter, rows)
    )


def _read(path: Path, name: str) -> bytes:
    """A file's bytes, or why there are none."""
    try:
        return read_whole(path, name)
    except FileNotFoundError:
        raise InputError(f"there is no file {name}", _did_you_mean(path)) from None
    except IsADirectoryError:
        raise InputError(f"{name} is a folder, not a table", "name a CSV, TSV, JSON Lines or Parquet file") from None
    except PermissionError:
        raise InputError(f"{name} may not be read: permission denied", f"see who may read it: ls -l {name}") from None
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the path
        raise InputError(f"{name!r} cannot be read: {error}", "check the path") from None


def _did_you_mean(path: Path) -> str:
    """A file of nearly that name, if there is one."""
    try:
        names = [each.name for each in path.parent.iterdir()]
    except OSError:
        return "check the path"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.with_name(close[0])}?" if close else "check the path"


def _sniff(data: bytes) -> str:
    """The format by the content."""
    if data.startswith(_PARQUET_MAGIC):
        return "parquet"
    start = data[:65_536].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] in {b"{", b"["}:
        return "jsonl"
    header = start.split(b"\n", 1)[0]
    return "tsv" if b"\t" in header and b"," not in header else "csv"


def _check_text(data: bytes, name: str) -> None:
    """Refuse what is no UTF-8 text, saying what it is instead."""
    if data.startswith(_GZIP_MAGIC):
        raise InputError(f"{name} is compressed", f"unpack it on the way: zcat {name} | jobpool map UDF -")
    if data.startswith(_PARQUET_MAGIC):
        raise InputError(f"{name} is a Parquet file, not text", "name it .parquet, or give --format parquet")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{name} is UTF-16, not UTF-8", f"convert it: iconv -f UTF-16 -t UTF-8 {name}")
    at = data.find(b"\0")
    if at >= 0:
        raise InputError(f"{name} line {textscan.line_at(data, at)}: a NUL byte, so this is no text file")
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            line, byte = textscan.line_at(data, error.start), data[error.start]
            raise InputError(
                f"{name} line {line}: byte 0x{byte:02x} is not UTF-8",
                f"if it is Latin-1, convert it: iconv -f ISO-8859-1 -t UTF-8 {name}",
            ) from None


def _parse_csv(data: bytes, name: str, delimiter: str) -> pa.Table:
    """Parse CSV with every column as text."""
    header, line, size = textscan.csv_header(data, delimiter, name)
    _check_header(header, line, name, delimiter)
    if not data[size:].strip(b"\r\n"):
        return pa.table({column: pa.array([], pa.string()) for column in header})
    # The header's last byte goes along: pyarrow takes the blank line for nothing, but a byte order mark at the very
    # beginning, where it would be a cell's first character, for none of the text.
    body = pa.py_buffer(data).slice(size - 1)
    # In a table of one column a blank line is a row whose cell is empty, except at the end of the file.
    blanks = len(header) == 1
    if blanks:
        body = body.slice(0, len(data.rstrip(b"\r\n")) - size + 1)
    block = _BLOCK_SIZE
    while True:
        try:
            table = pa.csv.read_csv(
                pa.BufferReader(body),
                read_options=pa.csv.ReadOptions(column_names=header, block_size=block),
                parse_options=pa.csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=not blanks
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()),
                    strings_can_be_null=True,
                    null_values=[""],
                    quoted_strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            if "straddling" in str(error) and block < len(data):
                block *= 8
                continue
            textscan.check_csv(data, delimiter, name, len(header), header)
            raise InputError(f"{name} cannot be read as CSV: {error}") from error
        else:
            if _ends_in_quotes(data, table):
                textscan.check_csv(data, delimiter, name, len(header), header)
            return table.slice(1) if blanks else table


def _ends_in_quotes(data: bytes, table: pa.Table) -> bool:
    """Whether the text may end inside a cell in quotes: pyarrow takes the end of the text for the end of the cell.

    Such a cell is the very last one, and before it stands the quote that opened it; after it, none that closes it.
    """
    if data.count(b'"') % 2:
        return True
    last = (table.column(table.num_columns - 1)[-1].as_py() or "").encode().replace(b'"', b'""')
    return data.endswith(b'"' + last) if last else data.endswith(b'"') and not data.endswith(b'""')


def _check_header(header: list[str], line: int, name: str, delimiter: str) -> None:
    """Every column needs a name of its own."""
    if len(header) == 1 and delimiter == ",":
        for other, called in ((";", "semicolons"), ("\t", "tabs")):
            if other in header[0]:
                hint = "give --format tsv" if other == "\t" else "convert it to commas"
                raise InputError(f"{name} line {line}: the columns seem to be separated by {called}", hint)
    for position, column in enumerate(header, start=1):
        if not column.strip():
            raise InputError(
                f"{name} line {line}: column {position} has no name",
                "name it in the header, or drop it (pandas writes one unless index=False)",
            )
    doubled = [column for column, times in Counter(header).items() if times > 1]
    if doubled:
        places = [str(place) for place, column in enumerate(header, start=1) if column == doubled[0]]
        raise InputError(
            f"{name} line {line}: {len(places)} columns are named {doubled[0]} (columns {', '.join(places)})",
            "give each column a name of its own",
        )


def _check_size(metadata: pq.FileMetaData, name: str) -> None:
    """Refuse what would unpack to more than the machine has: a few bytes can stand for billions of equal rows."""
    width = sum(map(_bits, metadata.schema.to_arrow_schema().types)) // 8
    needed = width * metadata.num_rows + sum(
        metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)
    )
    if needed > free_memory():
        raise InputError(
            f"{name} does not fit into the memory of this machine: {metadata.num_rows:,} rows take about"
            f" {needed / 1e9:,.0f} GB",
            "map a part of it at a time",
        )


def _bits(kind: pa.DataType) -> int:
    """What a value takes at least, apart from its text."""
    try:
        return int(kind.bit_width)
    except ValueError:
        return 32


def free_memory() -> int:
    """Return how many bytes the machine could still give."""
    try:
        with open("/proc/meminfo", "rb") as file:
            return 1024 * int(next(line for line in file if line.startswith(b"MemAvailable")).split()[1])
    except (OSError, StopIteration):
        return sys.maxsize


def _parse_parquet(data: bytes, name: str) -> pa.Table:
    """Read a Parquet file; an index that pandas left without a name is no argument."""
    try:
        _check_size(pq.read_metadata(pa.BufferReader(data)), name)
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name} is not a readable Parquet file: {what}", "write the file anew") from error
    doubled = [column for column, times in Counter(table.column_names).items() if times > 1]
    if doubled:
        raise InputError(f"{name}: several columns are named {doubled[0]}", "give each column a name of its own")
    unnamed = [column for column in table.column_names if column.startswith("__index_level_") and column.endswith("__")]
    table = table.drop_columns(unnamed)
    # Metadata of other programs must not be taken for ours.
    return table.cast(pa.schema([each.remove_metadata() for each in table.schema]))
