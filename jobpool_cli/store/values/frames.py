"""pandas DataFrames and Series as Arrow columns: one flat conversion for the whole batch.

A frame becomes the list of its rows, each a struct of its index levels and its columns. Frames of one batch share a
column if they agree in names, dtypes and the nature of their index; the others are pickled.

Only values that come from pandas lead here, so pandas is there already and is imported where it is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from jobpool_cli.store.values.buffers import (
    bounds,
    filled,
    fixed_width,
    lengths_of,
    lists,
    null_positions,
    numbers_of,
    presence,
    survives_parquet,
    texts,
)
from jobpool_cli.store.values.fitted import Fitted, Spec, fit_present, nothing_fits, restore_nulls, without
from jobpool_cli.store.values.geometry import (
    KIND,
    active_geometry,
    fit_geometries,
    geo_layout,
    geo_of,
    is_geo,
    is_geometry,
    restore_geometries,
    without_geo,
)
from jobpool_cli.store.values.scalars import arrow_zone, zone_name, zone_of
from jobpool_cli.store.values.tables import is_storable, rows_of, single

if TYPE_CHECKING:
    import pandas as pd

Fit = Callable[[list[Any], int], Fitted]
Restore = Callable[[pa.Array, Spec], list[Any]]

# More categories than this do not belong in a column's metadata.
MAX_CATEGORIES = 1000

# The column of a Series without a name.
RESULT = "result"


class UnfitError(Exception):
    """These frames have no exact Arrow form; never seen outside this package."""


def fit_frames(values: list[Any], depth: int, fit: Fit, kind: str) -> Fitted:
    """A column of DataFrames (kind ``dataframe``) or Series (kind ``series``)."""
    if depth:  # inside lists and dicts frames are rare, and pickles of the whole serve
        return nothing_fits(values)
    layouts = [None if value is None else _layout(value) for value in values]
    counts = Counter(layout for layout in layouts if layout is not None)
    if not counts:
        return nothing_fits(values)
    layout = counts.most_common(1)[0][0]
    misfits = [
        position
        for position, (value, own) in enumerate(zip(values, layouts, strict=True))
        if value is not None and own != layout
    ]
    kept = without(values, misfits)
    try:
        fitted = _fit_alike(kept, fit, kind)
    except (UnfitError, pa.ArrowException, NotImplementedError, OverflowError, TypeError, ValueError):
        return nothing_fits(values)
    if fitted.misfits:
        return fit_present(values, [*misfits, *fitted.misfits], lambda rest: _fit_some(rest, depth, fit, kind))
    return Fitted(fitted.array, fitted.spec, misfits)


def _fit_some(values: list[Any], depth: int, fit: Fit, kind: str) -> Fitted:
    return nothing_fits(values) if all(value is None for value in values) else fit_frames(values, depth, fit, kind)


def _layout(value: Any) -> tuple[object, ...] | None:
    """What frames must agree in to share a column; None if no column will do."""
    dtypes = (value.dtype,) if value.ndim == 1 else _dtypes(value)
    geo = geo_layout(value, dtypes)
    if geo is None or value.attrs or not value.flags.allows_duplicate_labels:
        return None
    index = value.index
    if index.nlevels > 1:
        nature: tuple[object, ...] = (*map(exact_dtype, index.dtypes.tolist()), *index.names)
    else:
        nature = (exact_dtype(index.dtype), index.name, getattr(index, "freq", None))
    if value.ndim == 1:
        return (value.name, type(value.name), exact_dtype(value.dtype), *nature, *geo)
    columns = value.columns
    # 1 == True == 1.0: where any object may be a name, its type counts too.
    types = tuple(map(type, columns)) if columns.dtype == np.dtype(object) else ()
    return (columns.dtype, columns.names, tuple(columns), types, tuple(map(exact_dtype, dtypes)), *nature, *geo)


def exact_dtype(dtype: Any) -> object:
    """What two dtypes are equal in only if they are the same: pandas overlooks the order of unordered categories."""
    if type(dtype).__name__ != "CategoricalDtype":
        return dtype
    return (dtype, dtype.categories.dtype, tuple(dtype.categories))


def _dtypes(frame: pd.DataFrame) -> tuple[object, ...]:
    try:
        # The public way makes a Series first: 36 times as long, and longer than all the rest for a small frame.
        return tuple(frame._mgr.get_dtypes())  # noqa: SLF001
    except AttributeError:
        return tuple(frame.dtypes)


def _fit_alike(values: list[Any], fit: Fit, kind: str) -> Fitted:
    import pandas as pd  # noqa: PLC0415

    present = [value for value in values if value is not None]
    lengths = lengths_of(filled(values, ()), len(values))
    geo = {"active": _json_name(active_geometry(present[0]))} if is_geo(present[0]) else None
    if geo:
        present = list(map(without_geo, present))
    counted = all(_is_count(value.index) for value in present)
    joined = present[0] if len(present) == 1 else pd.concat(present, ignore_index=counted)
    names = [joined.name] if kind == "series" else list(joined.columns)
    series = [joined] if kind == "series" else [joined.iloc[:, position] for position in range(len(names))]
    columns: list[Fitted] = []
    levels: list[Spec] = []
    if not counted:
        for level in joined_levels(present, joined):
            columns.append(fit_column(pd.Series(level, dtype=level.dtype), fit))
            levels.append({"name": _json_name(level.name)})
        freq = getattr(present[0].index, "freqstr", None)
        if freq:
            levels[0]["freq"] = freq
    columns += [fit_column(one, fit) for one in series]
    misfit_rows = sorted({row for column in columns for row in column.misfits})
    if misfit_rows:
        owners = np.searchsorted(np.cumsum(lengths), misfit_rows, side="right")
        return Fitted(pa.nulls(len(values)), {"kind": "none"}, sorted(set(owners.tolist())))
    labels = [RESULT if name is None else str(name) for name in names]
    # pandas' own convention for index levels without a usable name.
    heads = [
        level["name"] if isinstance(level["name"], str) and level["name"] not in labels else f"__index_level_{number}__"
        for number, level in enumerate(levels)
    ]
    array = lists(lengths, rows_of([column.array for column in columns], [*heads, *labels]), presence(values))
    spec: Spec = {
        "kind": kind,
        "columns": [_json_name(name) for name in names],
        "index": levels,
        "of": [column.spec for column in columns],
    }
    if geo:
        spec["geo"] = geo
    if kind == "dataframe":
        spec["labels"] = {"dtype": str(joined.columns.dtype), "name": _json_name(joined.columns.name)}
        if not joined.columns.equals(_labels_of(spec)) or joined.columns.dtype != _labels_of(spec).dtype:
            raise UnfitError
    return Fitted(array, spec)


def levels_of(index: Any) -> list[Any]:
    """The levels of an index by position, each with its name: where a level is called 0, pandas would look for that."""
    bare = index.set_names([None] * index.nlevels)
    return [bare.get_level_values(number).rename(name) for number, name in enumerate(index.names)]


def joined_levels(frames: list[Any], joined: Any) -> list[Any]:
    """The levels of what ``concat`` made of these frames, with their dtype: it makes strings of objects that are."""
    import pandas as pd  # noqa: PLC0415

    levels = levels_of(joined.index)
    for number, own in enumerate(levels_of(frames[0].index)):
        if own.dtype != levels[number].dtype:
            parts = [levels_of(frame.index)[number].to_numpy(dtype=object) for frame in frames]
            levels[number] = pd.Index(np.concatenate(parts), dtype=own.dtype, name=own.name)
    return levels


def _is_count(index: Any) -> bool:
    """Whether this is the index that pandas makes by itself: 0, 1, 2, ..."""
    start = getattr(index, "start", None)
    return start == 0 and index.step == 1 and index.name is None


def _json_name(name: object) -> str | int | None:
    if name is None or type(name) in (str, int):
        return name  # type: ignore[return-value]
    raise UnfitError


def _labels_of(spec: Spec) -> Any:
    import pandas as pd  # noqa: PLC0415

    return pd.Index(spec["columns"], dtype=spec["labels"]["dtype"], name=spec["labels"]["name"])


def fit_column(series: pd.Series[Any], fit: Fit) -> Fitted:
    """A column of a Series' values.

    Raises:
        UnfitError: its dtype has no exact Arrow form; Arrow's own errors mean that too.
    """
    import pandas as pd  # noqa: PLC0415

    dtype = series.dtype
    if dtype == np.dtype(object):
        column = fit(series.tolist(), 1)
        return Fitted(column.array, {"kind": "object", "of": column.spec}, column.misfits)
    if isinstance(dtype, pd.CategoricalDtype):
        return _fit_categories(series)
    if is_geometry(dtype):
        return fit_geometries(series)
    spec: Spec = {"kind": "pandas", "dtype": _dtype_name(dtype)}
    array = single(pa.Array.from_pandas(series))
    if not is_storable(array.type) or not survives_parquet(array):
        raise UnfitError
    if not isinstance(dtype, np.dtype):
        # Other people's types may promise more than they keep.
        restored = restore_column(array, spec, lambda *_: [])
        if restored.dtype != dtype or not pd.Series(restored, index=series.index).equals(series):
            raise UnfitError
    return Fitted(array, spec)


def _dtype_name(dtype: Any) -> str:
    import pandas as pd  # noqa: PLC0415

    name = str(dtype)
    if isinstance(dtype, pd.StringDtype) and name != "str":
        name = f"string[{dtype.storage}]"
    if pd.api.types.pandas_dtype(name) != dtype or (isinstance(dtype, np.dtype) and not dtype.isnative):
        raise UnfitError
    return name


def _fit_categories(series: pd.Series[Any]) -> Fitted:
    categories = series.cat.categories
    values: list[Any] = categories.tolist()
    kinds = set(map(type, values))
    if len(values) > MAX_CATEGORIES or categories.name is not None or len(kinds) != 1:
        raise UnfitError
    if kinds == {str}:
        stored = texts(values)
    elif kinds == {int} and categories.dtype == np.int64:
        stored = fixed_width(np.array(values, np.int64), pa.int64())
    else:
        raise UnfitError
    codes = series.cat.codes.to_numpy().astype(np.int64)
    valid = codes >= 0
    array = stored.take(fixed_width(np.maximum(codes, 0), pa.int64(), None if valid.all() else valid))
    spec = {"kind": "category", "dtype": str(categories.dtype), "categories": values, "ordered": series.cat.ordered}
    return Fitted(array, spec)


def restore_column(array: pa.Array, spec: Spec, restore: Restore) -> Any:
    """A pandas or NumPy array of the column's values."""
    import pandas as pd  # noqa: PLC0415

    if spec["kind"] == "object":
        return np.fromiter(restore(array, spec["of"]), np.dtype(object), len(array))
    if spec["kind"] == KIND:
        return restore_geometries(array, spec)
    if spec["kind"] == "category":
        categories = pd.Index(spec["categories"], dtype=spec["dtype"])
        dtype: Any = pd.CategoricalDtype(categories, ordered=spec["ordered"])
        codes = categories.get_indexer(array.to_pylist())
        return pd.Categorical.from_codes(codes, dtype=dtype)
    dtype = pd.api.types.pandas_dtype(spec["dtype"])
    if isinstance(dtype, np.dtype):
        return array.to_numpy(zero_copy_only=False).astype(dtype)
    return dtype.__from_arrow__(pa.chunked_array([array]))


def restore_frames(array: pa.Array, spec: Spec, restore: Restore) -> list[Any]:
    """The DataFrames or Series of a column; each owns its memory."""
    import pandas as pd  # noqa: PLC0415

    flat = array.flatten()
    columns = [restore_column(flat.field(number), of, restore) for number, of in enumerate(spec["of"])]
    levels = spec["index"]
    names = [level["name"] for level in levels]
    index: Any = None
    if len(levels) > 1:
        own = [pd.Index(column, dtype=column.dtype) for column in columns[: len(levels)]]
        index = pd.MultiIndex.from_arrays(own, names=names)
    elif levels:
        index = pd.Index(columns[0], name=names[0], dtype=columns[0].dtype)
    body = columns[len(levels) :]
    joined: Any
    if spec["kind"] == "series":
        joined = pd.Series(body[0], index=index, name=spec["columns"][0], dtype=body[0].dtype)
    else:
        # As Series: in bare arrays of objects pandas would look for strings and times, and change the dtype.
        typed = {number: pd.Series(column, index=index, dtype=column.dtype) for number, column in enumerate(body)}
        joined = pd.DataFrame(typed, index=index)
        joined.columns = _labels_of(spec)
    if "geo" in spec:
        joined = geo_of(joined, spec["geo"]["active"])
    frames: list[Any] = []
    absent = set(null_positions(array))
    for position, (start, end) in enumerate(zip(*bounds(array), strict=True)):
        if position in absent:
            frames.append(None)
            continue
        frame = joined.iloc[start:end].copy()
        if not levels:
            frame.index = pd.RangeIndex(end - start)
        elif "freq" in levels[0]:
            frame.index.freq = levels[0]["freq"]
        frames.append(frame)
    return frames


def fit_timestamps(values: list[Any], kind: str) -> Fitted:
    """A column of ``pandas.Timestamp`` or ``pandas.Timedelta`` of one unit and zone."""

    def form(value: Any) -> tuple[str, str] | None:
        zone = zone_name(value.tzinfo) if kind == "timestamp" else ""
        return None if zone is None or getattr(value, "fold", False) else (value.unit, zone)

    forms = [None if value is None else form(value) for value in values]
    counts = Counter(one for one in forms if one is not None)
    if not counts:
        return nothing_fits(values)
    unit, zone = counts.most_common(1)[0][0]
    misfits = [
        position
        for position, (value, own) in enumerate(zip(values, forms, strict=True))
        if value is not None and own != (unit, zone)
    ]
    kept = without(values, misfits)
    ticks = np.array([0 if value is None else value._value for value in kept], np.int64)  # noqa: SLF001 - `value` is ns
    arrow_type = pa.timestamp(unit, arrow_zone(zone)) if kind == "timestamp" else pa.duration(unit)
    array = fixed_width(ticks, arrow_type, presence(kept))
    spec: Spec = {"kind": kind, "unit": unit, "zone": zone}
    wrong = [
        position
        for position, (value, restored) in enumerate(zip(kept, restore_timestamps(array, spec), strict=True))
        if value is not None and (restored != value or type(restored) is not type(value))
    ]
    if wrong or not survives_parquet(array):
        return fit_present(kept, [*misfits, *wrong], nothing_fits)
    return Fitted(array, spec, misfits)


def restore_timestamps(array: pa.Array, spec: Spec) -> list[Any]:
    """The scalars of a column that :func:`fit_timestamps` made."""
    import pandas as pd  # noqa: PLC0415

    if spec["kind"] == "timestamp":
        moments = pd.DatetimeIndex(numbers_of(array, np.dtype(f"M8[{spec['unit']}]")))
        zone = zone_of(spec["zone"])
        return restore_nulls(list(moments if zone is None else moments.tz_localize("UTC").tz_convert(zone)), array)
    return restore_nulls(list(pd.TimedeltaIndex(numbers_of(array, np.dtype(f"m8[{spec['unit']}]")))), array)
