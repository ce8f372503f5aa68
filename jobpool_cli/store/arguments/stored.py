"""Reading args.parquet for people: what the tasks were given, as plain tables and as Python values.

``binding`` writes the file, and workers read it by ``rows``. A column is plain Arrow where Arrow gives the Python value
back exactly; otherwise its field's metadata says how the stored values are to be read (``decoding.ENCODING``).
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.arguments.decoding import (
    CONSTANTS,
    DECODERS,
    DTYPE,
    ENCODING,
    FILE,
    FORM,
    NOT_GIVEN,
    OPTIONAL,
    PICKLE,
    ROWS,
    VALUES_FORM,
    decode_column,
    load_pickles,
    plain_values,
)
from jobpool_cli.store.arguments.signature import Signature
from jobpool_cli.store.ownership import is_alone
from jobpool_cli.store.values.buffers import fixed_width, presence, texts
from jobpool_cli.store.values.geometry import Geometries, geo_of, geometries_of
from jobpool_cli.store.values.pickles import unpickled

if TYPE_CHECKING:
    import pandas as pd


_ADVICE = "restore it from a copy; the results can be read without it"


def read_table(path: Path, tasks: Sequence[int] | None = None) -> pa.Table:
    """The arguments for people: one plain column per argument, in the order of the user's file.

    Values that Arrow has no type for show as text: JSON as it is stored, a pickle by the value's ``repr``. Loading a
    pickle runs code: from a pool that is not the user's alone, none is.

    Args:
        path: the pool's args.parquet.
        tasks: which rows, in this order; all by default.
    """
    table = read_stored(path, tasks)
    show: Callable[[Any, pa.Field], str] | None = None
    for index, field in enumerate(table.schema):
        if (field.metadata or {}).get(ENCODING) == PICKLE:
            if show is None:
                show = _shown if is_alone(path.parent) else _not_loaded
            shown = [None if data is None else show(data, field) for data in plain_values(table.column(index))]
            table = table.set_column(index, field.name, texts(shown, presence(shown)))
    return table.cast(pa.schema([field.remove_metadata() for field in table.schema]))


def check_rows(table: pa.Table, n_jobs: int) -> pa.Table:
    """Return the arguments of all tasks, if it is those of so many.

    Raises:
        DamagedPoolError: they are another pool's.
    """
    if table.num_columns and table.num_rows != n_jobs:
        raise DamagedPoolError(
            f"args.parquet holds the arguments of {table.num_rows} tasks, and pool.json tells of {n_jobs}",
            "they are not of one pool: restore both from a copy",
        )
    return table


def read_calls(
    path: Path, tasks: Sequence[int] | None = None, *, skip_unreadable: bool = False
) -> list[dict[str, object]]:
    """What each task's call is given by name, constants aside, as Python values.

    A value that its annotation made of stored text (a path, an enum's member) is that text: the code is not loaded.
    Other pickles are loaded, so only for a pool of one's own.

    Args:
        path: the pool's args.parquet.
        tasks: which ones, in this order; all by default.
        skip_unreadable: a task of which a value cannot be loaded has an empty call.

    Raises:
        DamagedPoolError: the file cannot be read, or a value cannot be loaded.
    """
    table = read_stored(path, tasks)
    try:
        return _calls(table, tasks)
    except DamagedPoolError:
        if not skip_unreadable:
            raise
    return [_readable_call(table.slice(row, 1)) for row in range(table.num_rows)]


def read_values(path: Path, tasks: Sequence[int] | None = None) -> list[object]:
    """What each task was given, in the form in which it was: a value for the first parameter, or a dict of its row.

    Args and errors are those of ``read_calls``.
    """
    table = read_stored(path, tasks)
    if (table.schema.metadata or {}).get(FORM) != VALUES_FORM:
        return list(_calls(table, tasks))
    # One column, or none where there are no tasks.
    return [value for field in table.schema for value in decode_column(table.column(field.name), field)]


def arguments_frame(path: Path, tasks: Sequence[int] | None = None) -> pd.DataFrame:
    """The arguments as a DataFrame of real values, a row per task.

    A DataFrame that was given, or a GeoDataFrame, comes back as it was, but for its index; other columns have the types
    that pandas gives such values.

    Args and errors are those of ``read_calls``.
    """
    import pandas as pd  # noqa: PLC0415 - half a second, and nothing else here needs it

    table = read_stored(path, tasks)
    dtypes = {field.name: _dtype(field) for field in table.schema}
    columns = {field.name: _series(table.column(field.name), field, dtypes[field.name]) for field in table.schema}
    frame = pd.DataFrame(columns, index=pd.RangeIndex(_n_rows(table, tasks)))
    active = [name for name, dtype in dtypes.items() if isinstance(dtype, Geometries) and dtype.active]
    return geo_of(frame, active[0]) if active else frame


def read_stored(path: Path, tasks: Sequence[int] | None = None) -> pa.Table:
    """The arguments as they are stored, encoded columns and all metadata included."""
    file, schema = open_arguments(path)
    try:
        table = file.read() if tasks is None else _take(file, tasks)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    return table.replace_schema_metadata(schema.metadata)


class Description(str):
    """Text that stands for a value: shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the text."""
        return str(self)


def show_constants(path: Path) -> dict[str, object]:
    """The constants of a pool for people: plain values as they are, a ``Description`` of others.

    Large ones are described unread, and in a pool that is not the user's alone all that would have to be unpickled.

    Args:
        path: the pool's args.parquet.

    Raises:
        DamagedPoolError: the file cannot be read.
    """
    _, schema = open_arguments(path)
    constants = _constants_in(schema)
    pickles = any(encoding == PICKLE.decode() for encoding, _ in constants.values())
    show = _shown if pickles and is_alone(path.parent) else _not_loaded
    shown: dict[str, object] = {}
    for name, (encoding, value) in constants.items():
        if encoding == FILE:
            shown[name] = Description(f"<{value['kind']}, {value['bytes']:,} bytes>")
        elif encoding == PICKLE.decode():
            shown[name] = Description(show(bytes.fromhex(value), pa.field(name, pa.binary())))
        else:
            shown[name] = value
    return shown


def read_constants(path: Path, schema: pa.Schema, signature: Signature | None = None) -> dict[str, object]:
    """The constants of a pool as Python values; with a signature, as the annotations have them.

    Args:
        path: the pool's args.parquet.
        schema: its schema.
        signature: what the function takes.

    Raises:
        DamagedPoolError: a constant's file is not whole.
    """
    constants: dict[str, object] = {}
    for name, (encoding, value) in _constants_in(schema).items():
        if encoding == "":
            constants[name] = value
        elif encoding == FILE:
            (constants[name],) = load_pickles([_read_constant(path, value)])
        else:
            raw = bytes.fromhex(value) if encoding == PICKLE.decode() else value
            column = pa.field(name, pa.null(), metadata={ENCODING: encoding.encode()})
            parameter = signature.parameter(name) if signature else None
            (constants[name],) = DECODERS[encoding.encode()]([raw], column, parameter)
    return constants


def unreadable(path: Path, error: Exception) -> DamagedPoolError:
    """Return what to raise of arguments that cannot be read."""
    why = "it is missing" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
    return DamagedPoolError(
        f"{path} cannot be read: {why}",
        f"restore it from a copy; the results can be read without it: jobpool results {path.parent.name},"
        " or jobpool collect --drop-index",
    )


def open_arguments(path: Path) -> tuple[pq.ParquetFile, pa.Schema]:
    """The file and its schema; nothing but the footer is read yet.

    Raises:
        DamagedPoolError: the file is not readable.
    """
    try:
        os.close(durable.open_old(path))
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    return file, file.schema_arrow


def _constants_in(schema: pa.Schema) -> dict[str, tuple[str, Any]]:
    """The encoding and the stored value of each constant."""
    try:
        found: dict[str, tuple[str, Any]] = json.loads((schema.metadata or {}).get(CONSTANTS, b"{}"))
    except ValueError as error:
        raise DamagedPoolError(f"the constants in args.parquet cannot be read: {error}", _ADVICE) from error
    return found


def check_arguments(path: Path) -> int:
    """Read the whole file, a row group at a time; return for how many tasks it has arguments.

    Raises:
        DamagedPoolError: it cannot be read.
    """
    file, schema = open_arguments(path)
    try:
        for group in range(file.num_row_groups):
            file.read_row_group(group)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    try:
        return int((schema.metadata or {}).get(ROWS, file.metadata.num_rows))
    except ValueError as error:
        raise unreadable(path, error) from error


def check_constants(path: Path) -> None:
    """Read the files of large constants, without loading what is in them.

    Raises:
        DamagedPoolError: one is missing, or not as it was written.
    """
    _, schema = open_arguments(path)
    for encoding, value in _constants_in(schema).values():
        if encoding == FILE:
            _read_constant(path, value)


def _read_constant(path: Path, stored: dict[str, Any]) -> bytes:
    name, size = stored["name"], stored["bytes"]
    if Path(name).name != name:
        raise DamagedPoolError(f"{path} names a file outside of its pool: {name!r}")
    file = PoolPaths(path.parent).constants / name
    try:
        data = durable.read_old(file)
    except OSError as error:
        raise DamagedPoolError(f"{file} cannot be read: {error.strerror or error}", _ADVICE) from error
    if len(data) != size:
        raise DamagedPoolError(f"{file} holds {len(data):,} bytes instead of {size:,}", _ADVICE)
    if zlib.crc32(data) != stored["crc"]:
        raise DamagedPoolError(f"{file} is not as it was written", _ADVICE)
    return data


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
    if file.metadata.num_columns and len(position) < len(wanted):
        raise DamagedPoolError(
            f"args.parquet holds the arguments of {start} tasks, and not of task {wanted[-1]}", _ADVICE
        )
    if not pieces:
        return file.schema_arrow.empty_table()
    return pa.concat_tables(pieces).take(_positions([position[task] for task in tasks]))


def _positions(rows: Sequence[int]) -> pa.Array:
    return fixed_width(np.array(rows, np.int64), pa.int64())


def _calls(table: pa.Table, tasks: Sequence[int] | None) -> list[dict[str, object]]:
    if not table.num_columns:
        return [{} for _ in range(_n_rows(table, tasks))]
    names = table.column_names
    rows = zip(*(decode_column(table.column(field.name), field) for field in table.schema), strict=True)
    calls: list[dict[str, object]] = [dict(zip(names, row, strict=True)) for row in rows]
    if any(OPTIONAL in (field.metadata or {}) for field in table.schema):
        return [{name: value for name, value in call.items() if value is not NOT_GIVEN} for call in calls]
    return calls


def _readable_call(row: pa.Table) -> dict[str, object]:
    try:
        return _calls(row, None)[0]
    except DamagedPoolError:
        return {}


def _n_rows(table: pa.Table, tasks: Sequence[int] | None) -> int:
    """The number of rows, which Parquet forgets if there is no column."""
    if table.num_columns:
        return int(table.num_rows)
    return int((table.schema.metadata or {}).get(ROWS, b"0")) if tasks is None else len(tasks)


def _shown(data: object, field: pa.Field) -> str:
    """A pickled value for people; where its class is gone, why there is none to show."""
    try:
        (value,) = load_pickles([data], field)
        return repr(value)
    except Exception as error:  # noqa: BLE001 - the user's own __reduce__ and __repr__ may raise anything
        return f"<not readable here: {type(error).__name__}: {error}>"


def _not_loaded(_data: object, _field: pa.Field) -> str:
    """Stands for a pickle that may not be loaded."""
    return "<not shown: it would have to be unpickled, and the pool is not yours alone>"


def _dtype(field: pa.Field) -> Any:
    """The type that a column had in the DataFrame that was given; None if that is not known, or out of reach here."""
    data = (field.metadata or {}).get(DTYPE)
    try:
        return None if data is None else unpickled(base64.b64decode(data))
    except Exception:  # noqa: BLE001 - a type of the user's own, or of another version of pandas
        return None


def _series(column: pa.ChunkedArray, field: pa.Field, dtype: Any) -> pd.Series[Any]:
    """One column of the arguments as pandas has it."""
    import pandas as pd  # noqa: PLC0415 - as above

    series: pd.Series[Any]
    plain = ENCODING not in (field.metadata or {})
    if plain and not column.null_count and _is_number(column.type):
        series = pd.Series(column.to_numpy(), dtype=dtype, name=field.name)
        return series
    values = decode_column(column, field)
    if isinstance(dtype, Geometries):
        return pd.Series(geometries_of(values, dtype.crs), name=field.name)
    if dtype is not None and dtype != np.dtype(object):
        return pd.Series(pd.array(values, dtype=dtype), name=field.name)
    objects = np.empty(len(values), object)
    objects[:] = [np.nan if value is NOT_GIVEN else value for value in values]
    series = pd.Series(objects, name=field.name, dtype=object)
    return series.infer_objects() if dtype is None else series


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
