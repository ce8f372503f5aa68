"""Columns of NumPy, pandas, Polars and Arrow as arguments: plain Python values, without a Python object for each.

Nothing here imports a library: a frame that is given has brought its own.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobpool_cli.errors import InputError
from jobpool_cli.store.values.buffers import fixed_width
from jobpool_cli.store.values.geometry import Geometries, active_geometry, crs_text, is_geometry

if TYPE_CHECKING:
    import pandas as pd

# Where Arrow has no type that gives the plain Python values back, a column is a list of Python objects.
Column: TypeAlias = pa.ChunkedArray | list[Any]

_MOMENTS = (np.datetime64(datetime.min, "us"), np.datetime64(datetime.max, "us"))  # noqa: DTZ901 - naive, as NumPy's
_DAY_UNITS = frozenset({"Y", "M", "W", "D"})
_FLOAT_SIZES = frozenset({2, 4, 8})


def is_frame(value: object) -> bool:
    """Whether it is a table, of which each row is a task."""
    return _is_a(value, "pandas", "DataFrame") or _is_a(value, "polars", "DataFrame") or _is_arrow_table(value)


def is_series(value: object) -> bool:
    """Whether it is one column, of which each value is a task; NumPy's arrays are asked for separately."""
    return (
        _is_a(value, "pandas", "Series")
        or _is_a(value, "pandas", "Index")
        or _is_a(value, "polars", "Series")
        or isinstance(value, pa.Array | pa.ChunkedArray)
    )


def is_lazy(value: object) -> bool:
    """Whether it is a table of Polars that has not been computed."""
    return _is_a(value, "polars", "LazyFrame")


def frame_columns(frame: Any) -> tuple[list[Any], list[Column], dict[Any, object], int]:
    """A table's column names, its columns, pandas' types of them where it is pandas', and the number of rows.

    In the place of the type of geometries stands what it does not tell: ``Geometries``.
    """
    if _is_a(frame, "pandas", "DataFrame"):
        columns = [frame.iloc[:, position] for position in range(frame.shape[1])]
        active = active_geometry(frame)
        dtypes = {
            name: Geometries(crs_text(column.array), name == active) if is_geometry(column.dtype) else column.dtype
            for name, column in zip(frame.columns, columns, strict=True)
        }
        return list(frame.columns), [series_column(column) for column in columns], dtypes, len(frame)
    if _is_a(frame, "polars", "DataFrame"):
        return list(frame.columns), [series_column(frame[name]) for name in frame.columns], {}, frame.height
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    elif not isinstance(frame, pa.Table):
        frame = _read_stream(frame)
    return list(frame.column_names), list(frame.columns), {}, frame.num_rows


def series_column(series: Any) -> Column:
    """One column of pandas, Polars or Arrow."""
    if isinstance(series, pa.ChunkedArray):
        return series
    if isinstance(series, pa.Array):
        return pa.chunked_array([series])
    if _is_a(series, "polars", "Series"):
        return _polars_column(series)
    return _pandas_column(series)


def array_column(array: np.ndarray[Any, Any]) -> Column:  # noqa: PLR0911 - one a kind
    """A NumPy array; of an array of several dimensions, its rows."""
    kind = array.dtype.kind
    if array.ndim > 1:
        return list(array)
    if isinstance(array, np.ma.MaskedArray):
        return _items(array)
    if kind == "b":
        return _chunked(fixed_width(array, pa.bool_()))
    if kind == "i":
        return _chunked(fixed_width(array.astype(np.int64), pa.int64()))
    if kind == "u":
        wide = array.astype(np.uint64)
        if len(wide) and wide.max() >= 2**63:
            return _chunked(fixed_width(wide, pa.uint64()))
        return _chunked(fixed_width(wide.astype(np.int64), pa.int64()))
    if kind == "f" and array.dtype.itemsize in _FLOAT_SIZES:
        return _chunked(fixed_width(array.astype(np.float64), pa.float64()))
    if kind == "M":
        return _moments(array)
    if kind == "m":
        return _durations(array)
    return list(array) if kind == "V" else _items(array)


def without_nan(column: Column) -> Column:
    """The column with null in place of NaN, for parameters that take no float."""
    if isinstance(column, list) or not pa.types.is_floating(column.type):
        return column
    return pa.chunked_array(
        [pc.if_else(pc.is_nan(chunk), pa.nulls(len(chunk), chunk.type), chunk) for chunk in column.chunks], column.type
    )


def _is_arrow_table(value: object) -> bool:
    if isinstance(value, pa.Table | pa.RecordBatch | pa.RecordBatchReader):
        return True
    # DuckDB's relations and others; those of one column have this, too, and were asked for before.
    return hasattr(value, "__arrow_c_stream__") and not isinstance(value, type) and not is_series(value)


def _read_stream(stream: Any) -> pa.Table:
    """Everything that a reader of batches gives, or an object that hands out such a reader."""
    kind = type(stream).__name__
    try:
        return pa.table(stream)
    except Exception as error:  # whatever computes the batches may raise anything
        raise InputError(
            f"the {kind} cannot be read as a table: {type(error).__name__}: {error}",
            "make a DataFrame of it, or a list of values",
        ) from error


def _is_a(value: object, library: str, name: str) -> bool:
    """Whether it is an object of a library's class, if the library has been imported at all."""
    module = sys.modules.get(library)
    kind = getattr(module, name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _chunked(array: pa.Array) -> pa.ChunkedArray:
    return pa.chunked_array([array])


def _items(array: np.ndarray[Any, Any]) -> list[Any]:
    items: list[Any] = array.tolist()
    return items


def _moments(array: np.ndarray[Any, Any]) -> Column:
    """Times: dates where the unit is a day or longer, pandas' Timestamp where it is a nanosecond or shorter."""
    unit, step = np.datetime_data(array.dtype)
    missing = np.isnat(array)
    valid = None if not missing.any() else ~missing
    if unit == "ns" and step == 1:
        return _chunked(fixed_width(array.view(np.int64), pa.timestamp("ns"), valid))
    present = array[~missing]
    if unit in {"ns", "ps", "fs", "as", "generic"} or (
        len(present) and not _MOMENTS[0] <= present.min() <= present.max() <= _MOMENTS[1]
    ):
        return list(array)
    if unit in _DAY_UNITS:
        days = np.where(missing, np.datetime64(0, "D"), array.astype("M8[D]")).view(np.int64)
        return _chunked(fixed_width(days.astype(np.int32), pa.date32(), valid))
    return _chunked(fixed_width(array.astype("M8[us]").view(np.int64), pa.timestamp("us"), valid))


def _durations(array: np.ndarray[Any, Any]) -> Column:
    """Durations: pandas' Timedelta where the unit is a nanosecond."""
    unit, step = np.datetime_data(array.dtype)
    missing = np.isnat(array)
    valid = None if not missing.any() else ~missing
    if unit == "ns" and step == 1:
        return _chunked(fixed_width(array.view(np.int64), pa.duration("ns"), valid))
    if unit not in {"W", "D", "h", "m", "s", "ms", "us"}:
        return list(array)
    micros = array.astype("m8[us]")
    if not np.array_equal(micros.astype(array.dtype)[~missing], array[~missing]):
        return list(array)
    return _chunked(fixed_width(micros.view(np.int64), pa.duration("us"), valid))


def _polars_column(series: Any) -> Column:
    if str(series.dtype) == "Object":
        return list(series)
    return _chunked(series.to_arrow())


def _pandas_column(series: pd.Series[Any]) -> Column:
    """A pandas column; missing values of its own types are null, in columns of objects they stay what they are."""
    import pandas as pd  # noqa: PLC0415 - the column is pandas'

    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return array_column(series.to_numpy())
    if isinstance(dtype, pd.CategoricalDtype):
        categories = series_column(dtype.categories)
        codes = np.asarray(cast("Any", series.array).codes)
        if isinstance(categories, list):
            return [None if code < 0 else categories[code] for code in codes.tolist()]
        positions = fixed_width(np.maximum(codes, 0).astype(np.int64), pa.int64(), codes >= 0)
        return categories.take(positions)
    if isinstance(dtype, pd.StringDtype | pd.ArrowDtype | pd.DatetimeTZDtype) or _is_masked(dtype):
        try:
            found = pa.array(series.array, from_pandas=True)
        except (pa.ArrowException, UnicodeEncodeError):
            return [None if missing else value for value, missing in zip(series, series.isna(), strict=True)]
        return found if isinstance(found, pa.ChunkedArray) else _chunked(found)
    return list(series)


def _is_masked(dtype: object) -> bool:
    """Whether it is one of pandas' types with a mask of missing values: Int64, Float64, boolean."""
    return hasattr(dtype, "numpy_dtype")
