"""Stored columns as Python values: plain Arrow, or encoded as the field's metadata says.

Light on imports: a worker needs pyarrow here and, only for columns of an encoding that asks for it, pydantic.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.store.arguments.signature import Parameter
from jobpool_cli.store.values.buffers import null_positions
from jobpool_cli.store.values.pickles import copies_in, unpickled

# Field metadata: how a stored column is read.
ENCODING = b"jobpool.encoding"
JSON = b"json"  # JSON text; validated against the annotation where there is one
VALIDATE = b"validate"  # a plain value that the annotation turns into the real one (a path, an enum's value)
TEXT = b"text"  # the text as the user wrote it; converted to the annotation as `map` did
PICKLE = b"pickle"  # a pickle; only from the Python API or where nothing else gives the value back
COLUMN = b"column"  # as a column of results is stored; the codec's own metadata says how
LITERAL = b"literal"  # JSON text that is the value, whatever the annotation

# In CONSTANTS: {"name": ..., "bytes": ..., "kind": ...}, a file with a pickle, in a folder beside args.parquet.
FILE = "file"

# Field metadata: a null is no value; the task does not give that argument, and the parameter's default counts.
OPTIONAL = b"jobpool.optional"

# Field metadata: pandas' type of the column (or ``Geometries``), where the arguments were a DataFrame and it is still
# the same: a pickle in base64, since other readers of Parquet refuse metadata that is no text.
DTYPE = b"jobpool.dtype"

# Schema metadata: values that are the same for every task, as JSON {name: [encoding, stored value]}.
CONSTANTS = b"jobpool.constants"
# Schema metadata: whether the tasks were given as values for the first parameter, or as rows.
FORM = b"jobpool.form"
VALUES_FORM = b"values"
# Schema metadata: the number of tasks, which Parquet forgets if there is no column.
ROWS = b"jobpool.rows"

_BUFFER_FORMATS = {
    pa.int8(): "b",
    pa.int16(): "h",
    pa.int32(): "i",
    pa.int64(): "q",
    pa.uint8(): "B",
    pa.uint16(): "H",
    pa.uint32(): "I",
    pa.uint64(): "Q",
    pa.float32(): "f",
    pa.float64(): "d",
}
_NOT_A_TIME = -(2**63)


class _NotGiven:
    """Stands where a task does not give an argument that has no default: it goes to ``**kwargs``, or not at all."""


NOT_GIVEN = _NotGiven()


def decode_column(
    column: pa.ChunkedArray | pa.Array, field: pa.Field, parameter: Parameter | None = None
) -> list[object]:
    """Python values of a stored column, as its metadata says; ``parameter`` brings the annotation."""
    encoding = (field.metadata or {}).get(ENCODING)
    if encoding is None:
        return _fill(plain_values(column), field, parameter)
    if encoding == COLUMN:
        return _fill(_codec_values(column, field), field, parameter)
    try:
        decoder = DECODERS[encoding]
    except KeyError:
        raise DamagedPoolError(
            f"the arguments' column {field.name} is stored in a way this jobpool does not know: {encoding!r}",
            "use the jobpool that made the pool, or a newer one",
        ) from None
    stored = plain_values(column)
    present = [value for value in stored if value is not None]
    if not present:
        return _fill(stored, field, parameter)
    decoded = decoder(present, field, parameter)
    if len(present) == len(stored):
        return decoded
    following = iter(decoded)
    instead = filler(field, parameter)
    return [instead if value is None else next(following) for value in stored]


def filler(field: pa.Field, parameter: Parameter | None) -> object:
    """What a null stands for."""
    if OPTIONAL not in (field.metadata or {}):
        return None
    return NOT_GIVEN if parameter is None or parameter.required else parameter.default


def _fill(values: list[object], field: pa.Field, parameter: Parameter | None) -> list[object]:
    instead = filler(field, parameter)
    return values if instead is None else [instead if value is None else value for value in values]


def _codec_values(column: pa.ChunkedArray | pa.Array, field: pa.Field) -> list[object]:
    from jobpool_cli.store.values.codec import decode  # noqa: PLC0415 - plain columns do without

    return decode(column, field, None)


def plain_values(column: pa.ChunkedArray | pa.Array) -> list[object]:
    """Python values of an Arrow column without encoding.

    ``to_pylist`` makes an Arrow scalar of every value, which is ten to fifty times slower than reading the buffer;
    ``to_numpy`` is quick too, but imports pandas.
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return list(itertools.chain.from_iterable(map(_chunk_values, chunks)))


def _chunk_values(chunk: pa.Array) -> list[object]:
    kind = chunk.type
    values: list[object]
    if pa.types.is_timestamp(kind) and kind.unit == "us" and kind.tz in {None, "UTC"}:
        values = _moments(chunk.cast(pa.int64()), "datetime64[us]")
        if kind.tz:
            # Arrow itself would pick pytz or zoneinfo by what happens to be installed.
            values = [value.replace(tzinfo=UTC) if isinstance(value, datetime) else value for value in values]
    elif pa.types.is_date32(kind):
        values = _moments(chunk.cast(pa.int32()).cast(pa.int64()), "datetime64[D]")
    elif pa.types.is_boolean(kind):
        values = _numbers(chunk.cast(pa.uint8()), "?")
    elif kind in _BUFFER_FORMATS:
        values = _numbers(chunk, _BUFFER_FORMATS[kind])
    else:
        values = chunk.to_pylist()
    return values


def _numbers(chunk: pa.Array, form: str) -> list[object]:
    """Numbers straight from the buffer, None where the validity bitmap says so."""
    if chunk.null_count == len(chunk):
        return [None] * len(chunk)
    size = struct.calcsize(form)
    content = memoryview(chunk.buffers()[1])[chunk.offset * size : (chunk.offset + len(chunk)) * size]
    # One format stands for all of them: the type checker wants to see a literal.
    values = cast("list[object]", content.cast(cast("Literal['q']", form)).tolist())
    if chunk.null_count:
        for position in null_positions(chunk):
            values[position] = None
    return values


def _moments(chunk: pa.Array, kind: str) -> list[object]:
    """Dates and times from their numbers; the smallest number is NumPy's NaT, which becomes None."""
    if not len(chunk):
        return []
    numbers = np.frombuffer(chunk.buffers()[1], np.int64, len(chunk), chunk.offset * 8)
    if chunk.null_count:
        numbers = numbers.copy()
        numbers[null_positions(chunk)] = _NOT_A_TIME
    values: list[object] = numbers.view(kind).astype(object).tolist()
    return values


def _from_json(stored: list[Any], _field: pa.Field, parameter: Parameter | None) -> list[object]:
    text = "[" + ",".join(stored) + "]"
    if parameter is None or not parameter.annotated:
        plain: list[object] = json.loads(text)
        return plain
    from jobpool_cli.store.arguments.convert import list_adapter  # noqa: PLC0415

    validated: list[object] = list_adapter(parameter.annotation).validate_json(text)
    return validated


def _from_literal(stored: list[Any], _field: pa.Field, _parameter: Parameter | None) -> list[object]:
    values: list[object] = json.loads("[" + ",".join(stored) + "]")
    return values


def _from_value(stored: list[Any], _field: pa.Field, parameter: Parameter | None) -> list[object]:
    if parameter is None or not parameter.annotated:
        return stored
    from jobpool_cli.store.arguments.convert import value_converter  # noqa: PLC0415

    return list(map(value_converter(parameter.annotation), stored))


def _from_text(stored: list[Any], _field: pa.Field, parameter: Parameter | None) -> list[object]:
    if parameter is None or not parameter.annotated:
        return stored
    from jobpool_cli.store.arguments.convert import text_converter  # noqa: PLC0415

    return list(map(text_converter(parameter.annotation), stored))


def load_pickles(stored: list[Any], field: pa.Field | None = None) -> list[object]:
    """Values from pickles of a pool that belongs to the user who runs this.

    Args:
        stored: the pickles.
        field: that of their column, where they are from one.

    Raises:
        DamagedPoolError: one cannot be loaded, say because its class is gone.
    """
    try:
        copies = copies_in(field.metadata) if field is not None else None
        return [unpickled(each, copies) for each in stored]
    except Exception as error:  # any class may raise anything when it is restored
        raise DamagedPoolError(
            f"a stored argument cannot be loaded: {type(error).__name__}: {error}",
            "its class must be importable where it is read",
        ) from error


def _from_pickle(stored: list[Any], field: pa.Field, _parameter: Parameter | None) -> list[object]:
    return load_pickles(stored, field)


DECODERS: dict[bytes, Callable[[list[Any], pa.Field, Parameter | None], list[object]]] = {
    JSON: _from_json,
    VALIDATE: _from_value,
    TEXT: _from_text,
    PICKLE: _from_pickle,
    LITERAL: _from_literal,
}
