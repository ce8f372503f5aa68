"""JSON Lines to columns, keeping every value exactly: 1 and 1.0 and "1" in one column stay three different things."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from jobpool_cli.errors import InputError
from jobpool_cli.store.arguments.columns import json_column, many_objects


def parse_json_lines(data: bytes, name: str) -> pa.Table:
    """A table of one row per line; a key that a line does not have is null there.

    Raises:
        InputError: a line is not JSON, or no object; the message names line and column.
    """
    with many_objects():
        return _table(_parse_rows(data, name), name)


def _table(rows: list[dict[str, Any]], name: str) -> pa.Table:
    names, columns = _columns(rows)
    # The rows themselves are no longer needed, and there may be millions.
    n_rows = len(rows)
    del rows[:]
    for column in names:
        if not column.strip():
            raise InputError(f"{name}: a key is empty", "every key names an argument")
        if not _is_text(column):
            raise InputError(f"{name}: the key {column!a:.100} is no text: it has half of a surrogate pair")
    encoded = [json_column(column, values) for column, values in zip(names, columns, strict=True)]
    if not encoded:
        # Objects without keys: rows without arguments still count.
        return pa.table({"": pa.nulls(n_rows)}).select([])
    return pa.Table.from_arrays([array for _, array in encoded], schema=pa.schema([field for field, _ in encoded]))


def _parse_rows(data: bytes, name: str) -> list[dict[str, Any]]:
    """The objects, one per line that is not blank."""
    rows: list[dict[str, Any]] = []
    decoder = json.JSONDecoder()
    # Saves decode() looking for white space in every line.
    scan = decoder.scan_once  # type: ignore[attr-defined]
    line = 0
    try:
        # Split at newlines only: JSON strings may hold the other characters that str.splitlines splits at.
        for line, text in enumerate(data.decode("utf-8-sig").split("\n"), start=1):
            if not text or text.isspace():
                continue
            try:
                row, end = scan(text, 0)
            except StopIteration:
                end = -1
            if end != len(text):
                # White space around the value, or no JSON: decode() accepts the one and describes the other.
                row = decoder.decode(text)
            if type(row) is not dict:
                raise InputError(
                    f'{name} line {line}: {_kind(row)} where an object was expected, such as {{"x": 1}}',
                    "write one object per line; an array of objects becomes that with: jq -c '.[]'",
                )
            rows.append(row)
    except json.JSONDecodeError as error:
        hint = "write one JSON object per line"
        if text.lstrip()[:1] == "[":
            hint += "; an array of objects becomes that with: jq -c '.[]'"
        raise InputError(f"{name} line {line}, column {error.pos + 1}: not JSON: {error.msg}", hint) from None
    except RecursionError:
        raise InputError(f"{name} line {line}: nested too deeply") from None
    return rows


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    """What JSON calls a value."""
    kinds = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _columns(rows: list[dict[str, Any]]) -> tuple[list[str], list[Sequence[Any]]]:
    """Turn rows into columns, in the order in which the keys appear first."""
    if not rows:
        return [], []
    names = list(rows[0])
    if len(set(map(tuple, rows))) == 1:
        return names, list(zip(*map(dict.values, rows), strict=True))
    every = dict.fromkeys(key for keys in dict.fromkeys(map(tuple, rows)) for key in keys)
    return list(every), [[row.get(key) for row in rows] for key in every]
