"""Lists, tuples and dicts as Arrow columns: all their items in one flat column, and offsets.

Dicts with much the same text keys become a struct with one field per key; other dicts become a map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import pyarrow as pa

from jobpool_cli.store.values.buffers import (
    INT32_MAX,
    Numbers,
    bounds,
    filled,
    lengths_of,
    lists,
    nulls,
    offsets_column,
    offsets_of,
    presence,
)
from jobpool_cli.store.values.fitted import MAX_DEPTH, Fitted, Spec, fit_present, nothing_fits, restore_nulls

# A list that contains itself many times grows without bound while it is flattened; no honest nesting is that large.
MAX_NESTED_ITEMS = 20_000_000

# Struct fields beyond the size of a typical dict: more, and the keys are data (word counts), not field names.
MAX_SPARE_FIELDS = 16

Fit = Callable[[list[Any], int], Fitted]
Restore = Callable[[pa.Array, Spec], list[Any]]

# Kinds of map keys; anything else hashable (tuples, enums, frozensets) is pickled.
MAP_KEYS = frozenset({"bool", "bytes", "date", "float", "int", "str"})


def fit_lists(values: list[Any], depth: int, fit: Fit, kind: str) -> Fitted:
    """A column of lists or tuples."""
    valid = presence(values)
    present = values if valid is None else filled(values, ())
    lengths = lengths_of(present, len(present))
    total = int(lengths.sum())
    if _too_much(depth, total):
        return nothing_fits(values)
    items = fit(list(chain.from_iterable(present)), depth + 1)
    if items.misfits:
        return fit_present(values, _owners(lengths, items.misfits), lambda kept: fit_lists(kept, depth, fit, kind))
    return Fitted(lists(lengths, items.array, valid), {"kind": kind, "of": items.spec})


def fit_dicts(values: list[Any], depth: int, fit: Fit) -> Fitted:
    """A column of dicts: a struct, or a map where the keys differ too much."""
    keys = _shared_keys(values)
    if keys and not _too_much(depth, 0) and all(map(_is_field_name, keys)):
        return _fit_structs(values, values, keys, depth, fit)
    present = [value for value in values if value is not None]
    layouts: dict[tuple[Any, ...], None] = dict.fromkeys(map(tuple, present))
    # Long layouts first: the order of their keys is the one that most short ones agree with.
    by_length: list[tuple[Any, ...]] = sorted(layouts, key=len, reverse=True)
    keys = tuple(dict.fromkeys(chain.from_iterable(by_length)))
    if not keys or _too_much(depth, 0):
        return nothing_fits(values)
    spare = len(keys) - sum(map(len, present)) / len(present)
    if spare > MAX_SPARE_FIELDS or not all(map(_is_field_name, keys)):
        return _fit_maps(values, depth, fit)
    if len(layouts) == 1:
        return _fit_structs(values, present, keys, depth, fit)
    out_of_order = {layout for layout in layouts if layout != tuple(key for key in keys if key in layout)}
    optional = {key for key in keys if not all(key in layout for layout in layouts)}
    misfits = [
        position
        for position, value in enumerate(values)
        if value is not None
        # A null stands for a missing key, hence it cannot stand for None too.
        and (tuple(value) in out_of_order or any(value.get(key, 0) is None for key in optional))
    ]
    if misfits:
        return fit_present(values, misfits, lambda kept: _fit_dicts_or_nothing(kept, depth, fit))
    return _fit_structs(values, present, keys, depth, fit, [key for key in keys if key in optional])


def _shared_keys(values: list[Any]) -> tuple[Any, ...]:
    """The keys of all these dicts if they have the same in the same order, and none is None."""
    if None in values:
        return ()
    keys = tuple(values[0])
    # Keys are unique within a dict, hence their flat sequence leaves no doubt about where each dict begins.
    return keys if list(chain.from_iterable(values)) == list(keys) * len(values) else ()


def _fit_dicts_or_nothing(values: list[Any], depth: int, fit: Fit) -> Fitted:
    return fit_dicts(values, depth, fit) if any(value is not None for value in values) else nothing_fits(values)


def _fit_structs(
    values: list[Any],
    present: list[dict[str, Any]],
    keys: tuple[str, ...],
    depth: int,
    fit: Fit,
    optional: list[str] | None = None,
) -> Fitted:
    valid = presence(values) if len(present) < len(values) else None
    rows = values if valid is None else filled(values, {})
    if valid is None and not optional:
        width = len(keys)
        flat = list(chain.from_iterable(map(dict.values, rows)))
        columns = [fit(flat[start::width], depth + 1) for start in range(width)]
    else:
        columns = [fit([row.get(key) for row in rows], depth + 1) for key in keys]
    misfits = sorted(set(chain.from_iterable(column.misfits for column in columns)))
    if misfits:
        return fit_present(values, misfits, lambda kept: _fit_dicts_or_nothing(kept, depth, fit))
    array = pa.StructArray.from_arrays([column.array for column in columns], list(keys), mask=nulls(valid))
    spec: Spec = {"kind": "dict", "of": [column.spec for column in columns]}
    if optional:
        spec["optional"] = optional
    return Fitted(array, spec)


def _fit_maps(values: list[Any], depth: int, fit: Fit) -> Fitted:
    valid = presence(values)
    present = values if valid is None else filled(values, {})
    lengths = lengths_of(present, len(present))
    total = int(lengths.sum())
    if _too_much(depth, total) or total > INT32_MAX:
        return nothing_fits(values)
    flat_keys: list[Any] = list(chain.from_iterable(present))
    keys = fit(flat_keys, depth + 1)
    items = fit(list(chain.from_iterable(map(dict.values, present))), depth + 1)
    if keys.spec["kind"] not in MAP_KEYS:
        return nothing_fits(values)
    misfits = {*keys.misfits, *items.misfits}
    if None in flat_keys:
        misfits.update(position for position, key in enumerate(flat_keys) if key is None)
    if misfits:
        owners = _owners(lengths, sorted(misfits))
        return fit_present(values, owners, lambda kept: _fit_dicts_or_nothing(kept, depth, fit))
    array = pa.MapArray.from_arrays(offsets_column(offsets_of(lengths)), keys.array, items.array, mask=nulls(valid))
    return Fitted(array, {"kind": "map", "keys": keys.spec, "of": items.spec})


def restore_lists(array: pa.Array, spec: Spec, restore: Restore) -> list[Any]:
    """The lists or tuples of a column."""
    items: Any = restore(array.flatten(), spec["of"])
    if spec["kind"] == "tuple":
        items = tuple(items)
    starts, ends = bounds(array)
    return restore_nulls([items[start:end] for start, end in zip(starts, ends, strict=True)], array)


def restore_dicts(array: pa.Array, spec: Spec, restore: Restore) -> list[Any]:
    """The dicts of a struct column."""
    keys = [field.name for field in array.type]
    optional = frozenset(spec.get("optional", ()))
    columns = [restore(array.field(index), of) for index, of in enumerate(spec["of"])]
    rows = zip(*columns, strict=True)
    if not optional:
        return restore_nulls(list(map(dict, map(zip, repeat(keys), rows))), array)
    return restore_nulls(
        [
            {key: value for key, value in zip(keys, row, strict=True) if value is not None or key not in optional}
            for row in rows
        ],
        array,
    )


def restore_maps(array: pa.Array, spec: Spec, restore: Restore) -> list[Any]:
    """The dicts of a map column."""
    starts, ends = bounds(array)
    # Nulls hold no entries, hence first and last offset bound the entries of a slice.
    first, last = array.offsets[0].as_py(), array.offsets[len(array)].as_py()
    keys = restore(array.keys[first:last], spec["keys"])
    items = restore(array.items[first:last], spec["of"])
    dicts = [dict(zip(keys[start:end], items[start:end], strict=True)) for start, end in zip(starts, ends, strict=True)]
    return restore_nulls(dicts, array)


def _too_much(depth: int, items: int) -> bool:
    return depth >= MAX_DEPTH or (depth > 0 and items > MAX_NESTED_ITEMS)


def _is_field_name(key: object) -> bool:
    if type(key) is not str or "\0" in key:
        return False
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _owners(lengths: Numbers, items: Sequence[int]) -> list[int]:
    """Which rows the flat items belong to."""
    owners: list[int] = np.unique(np.searchsorted(np.cumsum(lengths), np.asarray(items), side="right")).tolist()
    return owners
