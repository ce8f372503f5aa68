"""Reading args.parquet: a worker's rows as Python values, and plain tables for people.

``binding`` writes the file. A column is plain Arrow where Arrow gives the Python value back exactly; otherwise its
field's metadata says how the stored values are to be read (``ENCODING``). Light on imports: a worker needs pyarrow
here and, only for columns of an encoding that asks for it, pydantic.
"""

from __future__ import annotations

import functools
import itertools
import json
import pickle
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.store.arguments.signature import Parameter, Signature
from jobpool_cli.store.values.buffers import fixed_width, null_positions

# Field metadata: how a stored column is read.
ENCODING = b"jobpool.encoding"
JSON = b"json"  # JSON text; validated against the annotation where there is one
VALIDATE = b"validate"  # a plain value that the annotation turns into the real one (a path, an enum's value)
TEXT = b"text"  # the text as the user wrote it; converted to the annotation as `map` did
PICKLE = b"pickle"  # a pickle; only from the Python API or where nothing else gives the value back

# Schema metadata: values that are the same for every task, as JSON {name: [encoding, stored value]}.
CONSTANTS = b"jobpool.constants"
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

# Scattered tasks (a retry) must not make the worker hold the whole file.
_GROUPS_KEPT = 2


class TaskArguments:
    """The arguments of a pool's tasks, as the worker calls the function with them.

    Attributes:
        columns: names of the arguments, in the order in which ``rows`` returns them and ``call()`` takes them.
        positional: whether the function itself can be called with the columns' values in order.
        n_rows: tasks in the pool.
    """

    def __init__(self, path: Path, function: Callable[..., Any], signature: Signature | None = None) -> None:
        """Open the file; nothing but its footer is read yet.

        Raises:
            DamagedPoolError: the file is not readable.
        """
        self._path = path
        self._function = function
        self._signature = signature or Signature.of(function)
        self._file, self._schema = _open(path)
        metadata = self._schema.metadata or {}
        self.n_rows = int(metadata.get(ROWS, self._file.metadata.num_rows))
        stored = set(self._schema.names)
        # Leading parameters first, in their order: then the function needs no adapter.
        ordered = [each.name for each in self._signature.parameters if each.name in stored]
        self.columns: list[str] = ordered + [name for name in self._schema.names if name not in set(ordered)]
        self._constants = read_constants(self._schema, self._signature)
        leading = [each.name for each in self._signature.parameters if not each.keyword_only][: len(self.columns)]
        self.positional = leading == self.columns and not any(
            each.positional_only and each.name in self._constants for each in self._signature.parameters
        )
        self._starts = [0]
        for group in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)
        self._groups: dict[int, pa.Table] = {}

    def call(self) -> Callable[..., Any]:
        """A callable that takes one row's values in the order of ``columns``, constants already in place."""
        function = self._function
        if self.positional:
            return functools.partial(function, **self._constants) if self._constants else function
        names = tuple(self.columns)
        constants = self._constants
        before = tuple(each for each in self._signature.parameters if each.positional_only)
        if not before:

            def by_keyword(*row: object) -> Any:
                return function(**dict(zip(names, row, strict=True)), **constants)

            return by_keyword

        def with_positional(*row: object) -> Any:
            given = dict(zip(names, row, strict=True)) | constants
            return function(*[given.pop(each.name, each.default) for each in before], **given)

        return with_positional

    def rows(self, ranges: Sequence[tuple[int, int]]) -> list[list[object]]:
        """The values of the tasks in half-open ranges, in the order given: one list per column of ``columns``.

        Raises:
            DamagedPoolError: the file does not hold these rows, or not what it should.
        """
        pieces = [piece for low, high in ranges for piece in self._slices(low, high)] if self.columns else []
        if not pieces:
            return [[] for _ in self.columns]
        # One table first: scattered tasks (a retry) may come by the thousand, and each decoding has its price.
        table = pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces).combine_chunks()
        return [self._decode(name, table) for name in self.columns]

    def _slices(self, low: int, high: int) -> list[pa.Table]:
        """The range's rows, a table per row group that it touches."""
        if low < 0 or high > self.n_rows or high > self._starts[-1]:
            raise DamagedPoolError(f"{self._path} holds {self._starts[-1]} rows; rows {low} to {high} were asked for")
        pieces = []
        for group, start in enumerate(self._starts[:-1]):
            end = self._starts[group + 1]
            if start < high and low < end:
                first = max(low, start)
                pieces.append(self._group(group).slice(first - start, min(high, end) - first))
        return pieces

    def _group(self, group: int) -> pa.Table:
        """One row group, kept for the next batch, which most likely lies in it too."""
        found = self._groups.pop(group, None)
        if found is None:
            while len(self._groups) >= _GROUPS_KEPT:
                del self._groups[next(iter(self._groups))]
            try:
                found = self._file.read_row_group(group).combine_chunks()
            except (OSError, pa.ArrowException) as error:
                raise DamagedPoolError(f"{self._path} cannot be read: {error}") from error
        self._groups[group] = found
        return found

    def _decode(self, name: str, table: pa.Table) -> list[object]:
        """The Python values of one column."""
        return decode_column(table.column(name), table.schema.field(name), self._signature.parameter(name))


def read_table(path: Path, tasks: Sequence[int] | None = None) -> pa.Table:
    """The arguments for people: one plain column per argument, in the order of the user's file.

    Values that Arrow has no type for show as text: JSON as it is stored, a pickle by the value's ``repr``. Loading a
    pickle runs code, so only for a pool of one's own.

    Args:
        path: the pool's args.parquet.
        tasks: which rows, in this order; all by default.
    """
    table = read_stored(path, tasks)
    for index, field in enumerate(table.schema):
        if (field.metadata or {}).get(ENCODING) == PICKLE:
            shown = [None if value is None else repr(value) for value in decode_column(table.column(index), field)]
            table = table.set_column(index, field.name, pa.array(shown, pa.string()))
    return table.cast(pa.schema([field.remove_metadata() for field in table.schema]))


def read_stored(path: Path, tasks: Sequence[int] | None = None) -> pa.Table:
    """The arguments as they are stored, encoded columns and all metadata included."""
    file, schema = _open(path)
    try:
        table = file.read() if tasks is None else _take(file, tasks)
    except (OSError, pa.ArrowException) as error:
        raise DamagedPoolError(f"{path} cannot be read: {error}") from error
    return table.replace_schema_metadata(schema.metadata)


def stored_constants(path: Path) -> dict[str, object]:
    """The constants of a pool for people, from its args.parquet."""
    return read_constants(_open(path)[1])


def read_constants(schema: pa.Schema, signature: Signature | None = None) -> dict[str, object]:
    """The constants of a pool as Python values; with a signature, as the annotations have them."""
    stored = json.loads((schema.metadata or {}).get(CONSTANTS, b"{}"))
    constants: dict[str, object] = {}
    for name, (encoding, value) in stored.items():
        if encoding == "":
            constants[name] = value
            continue
        raw = bytes.fromhex(value) if encoding == PICKLE.decode() else value
        field = pa.field(name, pa.null(), metadata={ENCODING: encoding.encode()})
        parameter = signature.parameter(name) if signature else None
        (constants[name],) = _decoders[encoding.encode()]([raw], field, parameter)
    return constants


def decode_column(
    column: pa.ChunkedArray | pa.Array, field: pa.Field, parameter: Parameter | None = None
) -> list[object]:
    """Python values of a stored column, as its metadata says; ``parameter`` brings the annotation."""
    encoding = (field.metadata or {}).get(ENCODING)
    if encoding is None:
        return plain_values(column)
    try:
        decoder = _decoders[encoding]
    except KeyError:
        raise DamagedPoolError(
            f"the arguments' column {field.name} is stored in a way this jobpool does not know: {encoding!r}",
            "use the jobpool that made the pool, or a newer one",
        ) from None
    stored = plain_values(column)
    present = [value for value in stored if value is not None]
    if not present:
        return stored
    decoded = decoder(present, field, parameter)
    if len(present) == len(stored):
        return decoded
    following = iter(decoded)
    return [None if value is None else next(following) for value in stored]


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


def _open(path: Path) -> tuple[pq.ParquetFile, pa.Schema]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DamagedPoolError(f"{path} cannot be read: {error}") from error
    return file, file.schema_arrow


def _take(file: pq.ParquetFile, tasks: Sequence[int]) -> pa.Table:
    """Some rows, reading only the row groups that hold them."""
    wanted = sorted(set(tasks))
    pieces = []
    start = 0
    position: dict[int, int] = {}
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        inside = [task for task in wanted if start <= task < end]
        if inside:
            pieces.append(file.read_row_group(group).take(_positions([task - start for task in inside])))
            for task in inside:
                position[task] = len(position)
        start = end
    if not pieces:
        return file.schema_arrow.empty_table()
    return pa.concat_tables(pieces).take(_positions([position[task] for task in tasks]))


def _positions(rows: Sequence[int]) -> pa.Array:
    return fixed_width(np.array(rows, np.int64), pa.int64())


def _from_json(stored: list[Any], _field: pa.Field, parameter: Parameter | None) -> list[object]:
    text = "[" + ",".join(stored) + "]"
    if parameter is None or not parameter.annotated:
        plain: list[object] = json.loads(text)
        return plain
    from jobpool_cli.store.arguments.convert import list_adapter  # noqa: PLC0415

    validated: list[object] = list_adapter(parameter.annotation).validate_json(text)
    return validated


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


def _from_pickle(stored: list[Any], _field: pa.Field, _parameter: Parameter | None) -> list[object]:
    # Only this module's own file is unpickled: the pool belongs to the user who runs this.
    return [pickle.loads(each) for each in stored]  # noqa: S301


_decoders: dict[bytes, Callable[[list[Any], pa.Field, Parameter | None], list[object]]] = {
    JSON: _from_json,
    VALIDATE: _from_value,
    TEXT: _from_text,
    PICKLE: _from_pickle,
}
