"""NumPy scalars and arrays as Arrow columns."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from jobpool_cli.store.values.buffers import (
    Flags,
    Numbers,
    bounds,
    filled,
    fixed_width,
    lengths_of,
    lists,
    numbers_of,
    presence,
    survives_parquet,
)
from jobpool_cli.store.values.fitted import Fitted, Spec, fit_present, nothing_fits, restore_nulls, without

TIME_UNITS = frozenset({"s", "ms", "us", "ns"})


def fit_numpy_scalars(values: list[Any]) -> Fitted:
    """A column of NumPy scalars of one type."""
    dtype = next(value.dtype for value in values if value is not None)
    if not _is_columnar(dtype):
        return nothing_fits(values)
    # Of all scalar types only times carry a unit beside their type.
    if dtype.kind in "mM":
        misfits = [
            position
            for position, value in enumerate(values)
            if value is not None and (value.dtype != dtype or np.isnat(value))
        ]
        if misfits:
            return fit_present(values, misfits, _fit_scalars_or_nothing)
    valid = presence(values)
    present = values if valid is None else filled(values, np.zeros((), dtype)[()])
    column = _to_arrow(np.array(present, dtype), valid)
    return Fitted(column, {"kind": "numpy", "dtype": dtype.str}) if survives_parquet(column) else nothing_fits(values)


def _fit_scalars_or_nothing(values: list[Any]) -> Fitted:
    return fit_numpy_scalars(values) if any(value is not None for value in values) else nothing_fits(values)


def restore_numpy_scalars(array: pa.Array, spec: Spec) -> list[Any]:
    """The scalars of a column."""
    return restore_nulls(list(_to_numpy(array, np.dtype(spec["dtype"]))), array)


def fit_arrays(values: list[Any]) -> Fitted:
    """A column of arrays of one dtype and, but for their length, one shape: the most frequent."""
    counts = Counter(_layout(value) for value in values if value is not None)
    counts.pop(None, None)
    if not counts:
        return nothing_fits(values)
    layout = counts.most_common(1)[0][0]
    misfits = [position for position, value in enumerate(values) if value is not None and _layout(value) != layout]
    if misfits:
        values = without(values, misfits)
    present = [value for value in values if value is not None]
    dtype, inner = present[0].dtype, present[0].shape[1:]
    lengths = lengths_of(filled(values, ()), len(values))
    items = _to_arrow(np.concatenate(present).reshape(-1), None)
    if not survives_parquet(items):
        return fit_present(values, misfits, nothing_fits)
    for size in reversed(inner):
        items = pa.FixedSizeListArray.from_arrays(items, size)
    array = lists(lengths, items, presence(values))
    return Fitted(array, {"kind": "array", "dtype": dtype.str, "inner": list(inner)}, misfits)


def restore_arrays(array: pa.Array, spec: Spec) -> list[Any]:
    """The arrays of a column; each owns its memory."""
    inner = tuple(spec["inner"])
    items = array.flatten()
    for _ in inner:
        items = items.flatten()
    flat = _to_numpy(items, np.dtype(spec["dtype"])).reshape(-1, *inner)
    return restore_nulls([flat[start:end].copy() for start, end in zip(*bounds(array), strict=True)], array)


def _layout(array: Numbers) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """Arrays of equal layout share a column; None for those that no column can hold."""
    if array.ndim == 0 or not _is_columnar(array.dtype) or prod(array.shape[1:]) == 0:
        return None
    if array.dtype.kind in "mM" and np.isnat(array).any():
        return None
    return array.dtype, array.shape[1:]


def _is_columnar(dtype: np.dtype[Any]) -> bool:
    """Whether Arrow holds values of this dtype exactly."""
    if not dtype.isnative or dtype.metadata:
        return False
    if dtype.kind in "mM":
        unit, step = np.datetime_data(dtype)
        return unit in TIME_UNITS and step == 1
    return dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize <= np.dtype(np.float64).itemsize)


def _to_arrow(array: Numbers, valid: Flags | None) -> pa.Array:
    if array.dtype == np.float16:  # few readers know half floats; wider ones hold the same numbers
        array = array.astype(np.float32)
    return fixed_width(array, pa.from_numpy_dtype(array.dtype), valid)


def _to_numpy(array: pa.Array, dtype: np.dtype[Any]) -> Numbers:
    stored = np.dtype(np.float32) if dtype == np.float16 else dtype
    return numbers_of(array, stored).astype(dtype)
