"""The arguments as levels of the collected table's index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.store.arguments.decoding import ENCODING, LITERAL, OPTIONAL, PICKLE, decode_column
from jobpool_cli.store.outcomes.columns import Level, take
from jobpool_cli.store.values.buffers import Numbers, fixed_width, presence, texts
from jobpool_cli.store.values.jsonable import json_text, safe_repr

TASK = "task"
# Arguments that are stored as something else than what they are, and are what they were in the index.
OBJECTS = (LITERAL, PICKLE)


def key_levels(arguments: pa.Table, tasks: Numbers) -> list[Level]:
    """Levels with the arguments of these tasks, one entry per row; the tasks' positions if there are no arguments.

    Args:
        arguments: a column per argument, row i belongs to task i; fields may say how they are encoded.
        tasks: of each row, ascending.

    Raises:
        DamagedPoolError: an argument cannot be unpickled.
    """
    positions = tasks.astype(np.int64)
    if not arguments.num_columns:
        return [Level(TASK, fixed_width(positions, pa.int64()))]
    return [_level(arguments, number, positions) for number in range(arguments.num_columns)]


def _level(arguments: pa.Table, number: int, positions: Numbers) -> Level:
    field = arguments.schema.field(number)
    column = arguments.column(number)
    if (field.metadata or {}).get(ENCODING) in OBJECTS:
        return _object_level(field, column, positions)
    if pt.is_nested(column.type):
        # An index cannot hold lists and dicts: they are JSON text there.
        values = [None if value is None else json_text(value) for value in column.to_pylist()]
        column = pa.chunked_array([texts(values, presence(values))])
    return Level(field.name, take(column, positions))


def _object_level(field: pa.Field, column: pa.ChunkedArray, positions: Numbers) -> Level:
    """Arguments that are any objects: they themselves in pandas, their ``repr`` in Arrow."""
    # A table of many rows has the same argument in each; and decoding may be left out where a task has no rows.
    tasks, rows = np.unique(positions, return_inverse=True)
    # What a task was not given is None in an index.
    required = field.with_metadata({key: value for key, value in field.metadata.items() if key != OPTIONAL})
    try:
        found = decode_column(take(column, tasks), required)
    except DamagedPoolError as error:
        raise DamagedPoolError(
            f"the index cannot be made of argument {field.name!r}: {error.message}",
            "its class must be importable where results are read; to do without the arguments: drop_index,"
            " --drop-index",
        ) from error
    shown = [None if value is None else _text(value) for value in found]
    kept = [value if _is_hashable(value) else text for value, text in zip(found, shown, strict=True)]
    stored = texts(shown, presence(shown)).take(fixed_width(rows.astype(np.int64), pa.int64()))
    return Level(field.name, stored, objects=_repeated(kept, rows))


def _repeated(values: list[Any], rows: Numbers) -> Callable[[], list[Any]]:
    return lambda: [values[row] for row in rows.tolist()]


def _text(value: object) -> str:
    """What Arrow has for an object; a lone surrogate has no UTF-8."""
    text = value if isinstance(value, str) else safe_repr(value)
    return text.encode(errors="backslashreplace").decode()


def _is_hashable(value: object) -> bool:
    try:
        hash(value)  # a tuple may hold a list
    except Exception:  # noqa: BLE001 - __hash__ is the user's code
        return False
    return True
