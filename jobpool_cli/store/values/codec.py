"""Python values as Arrow columns and back, exactly.

A batch of results becomes one column of the Arrow type that suits most of them; what does not fit goes, pickled, to a
second column. ``decode(encode(values)) == values`` holds with the same types: a ``bool`` never becomes an ``int``, a
tuple never a list, NaN never None. Subclasses (named tuples, enums) are pickled rather than flattened to their base.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.store.values.arrays import fit_arrays, fit_numpy_scalars, restore_arrays, restore_numpy_scalars
from jobpool_cli.store.values.buffers import binaries, presence
from jobpool_cli.store.values.containers import fit_dicts, fit_lists, restore_dicts, restore_lists, restore_maps
from jobpool_cli.store.values.fitted import Fitted, Spec, nothing_fits, without
from jobpool_cli.store.values.frames import fit_frames, fit_timestamps, restore_frames, restore_timestamps
from jobpool_cli.store.values.pickles import Copies, copies_in, copies_metadata, pickled, unpickled
from jobpool_cli.store.values.scalars import SCALARS, fit_scalars, fit_scalars_and_nulls, restore_scalars
from jobpool_cli.store.values.tables import fit_tables, restore_tables

RESULT = "result"
PICKLE = "result_pickle"
KIND_KEY = b"jobpool.kind"

NoneType = type(None)

# (top-level package, name of the type) -> kind; subclasses elsewhere are pickled.
FOREIGN = {
    ("geopandas", "GeoDataFrame"): "dataframe",
    ("geopandas", "GeoSeries"): "series",
    ("numpy", "ndarray"): "array",
    ("pandas", "DataFrame"): "dataframe",
    ("pandas", "Series"): "series",
    ("pandas", "Timestamp"): "timestamp",
    ("pandas", "Timedelta"): "timedelta_ns",
    ("polars", "DataFrame"): "polars",
    ("pyarrow", "Table"): "table",
}


@dataclass(frozen=True)
class EncodedResults:
    """A batch of results as columns.

    Attributes:
        result: one row per value; null for None and for what is pickled.
        field: the column's Arrow field, named ``result``; its metadata says how to decode it.
        pickles: binary, one row per value, null where ``result`` holds the value; None if nothing is pickled.
        unstorable: positions of values that cannot even be pickled, null in both columns, with what pickle said.
        copies: what the pickles share.
    """

    result: pa.Array
    field: pa.Field
    pickles: pa.Array | None = None
    unstorable: dict[int, BaseException] = field(default_factory=dict)
    copies: Copies = field(default_factory=dict)

    @property
    def pickle_field(self) -> pa.Field:
        """The Arrow field of ``pickles``, named ``result_pickle``; its metadata holds what they share."""
        return pa.field(PICKLE, pa.binary(), metadata=copies_metadata(self.copies))


def encode(values: Sequence[object]) -> EncodedResults:
    """Turn a batch of results into columns."""
    column = fit_values(values if type(values) is list else list(values), 0)
    metadata = {} if column.spec["kind"] == "none" else {KIND_KEY: json.dumps(column.spec).encode()}
    result_field = pa.field(RESULT, column.array.type, metadata=metadata)
    if not column.misfits:
        return EncodedResults(column.array, result_field)
    pickles: list[bytes | None] = [None] * len(values)
    unstorable: dict[int, BaseException] = {}
    copies: Copies = {}
    for position in column.misfits:
        try:
            pickles[position] = pickled(values[position], copies)
        except Exception as error:  # noqa: BLE001 - __reduce__ is the user's code and may raise anything
            unstorable[position] = error
    if len(unstorable) == len(column.misfits):
        return EncodedResults(column.array, result_field, None, unstorable)
    return EncodedResults(column.array, result_field, binaries(pickles, presence(pickles)), unstorable, copies)


def refuse(values: Sequence[object], error: BaseException) -> EncodedResults:
    """Return the columns of values of which none can be stored, for a reason that encoding them ran into."""
    nothing = pa.nulls(len(values))
    return EncodedResults(nothing, pa.field(RESULT, nothing.type), None, dict.fromkeys(range(len(values)), error))


def decode(
    result: pa.Array | pa.ChunkedArray,
    field: pa.Field,
    pickles: pa.Array | pa.ChunkedArray | None,
    on_error: Callable[[int, Exception], object] | None = None,
    *,
    pickle_field: pa.Field | None = None,
) -> list[object]:
    """Turn columns back into values.

    Args:
        result: the column ``result``.
        field: its field, with the metadata that :func:`encode` wrote.
        pickles: the column ``result_pickle`` if there is one. Unpickling runs code: only for a pool that one owns.
        on_error: what to put in the place of a value that cannot be unpickled; without it such a value raises.
        pickle_field: the field of ``pickles``, with what they share; without it a reader needs their classes itself.

    Raises:
        DamagedPoolError: a value cannot be unpickled, say because its class is gone, and there is no ``on_error``.
    """
    spec = spec_of(field)
    values: list[object] = []
    for chunk in result.chunks if isinstance(result, pa.ChunkedArray) else [result]:
        values.extend(restore_values(chunk, spec))
    if pickles is None or pickles.null_count == len(pickles):
        return values
    copies = copies_in(pickle_field.metadata) if pickle_field is not None else None
    for position, data in enumerate(pickles.to_pylist()):
        if data is None:
            continue
        try:
            values[position] = unpickled(data, copies)
        except Exception as error:  # any class may raise anything when it is restored
            if on_error is None:
                raise DamagedPoolError(
                    f"a stored result cannot be unpickled: {type(error).__name__}: {error}",
                    "its class must be importable where results are read",
                ) from error
            values[position] = on_error(position, error)
    return values


def spec_of(field: pa.Field) -> Spec:
    """How the column of this field is decoded."""
    text = (field.metadata or {}).get(KIND_KEY)
    spec: Spec = json.loads(text) if text else {"kind": "none" if pa.types.is_null(field.type) else "arrow"}
    return spec


def fit_values(values: list[Any], depth: int) -> Fitted:
    """The column that suits most of the values."""
    kinds = set(map(type, values))
    nullable = NoneType in kinds
    kinds.discard(NoneType)
    if not kinds:
        return Fitted(pa.nulls(len(values)), {"kind": "none"})
    if len(kinds) == 1:
        (kind,) = kinds
        if kind in SCALARS and not nullable:
            return fit_scalars(values, kind)
        return _fit_kind(values, kind, depth)
    counts = Counter(map(type, values))
    candidates = [kind for kind in kinds if _has_column(kind)]
    if not candidates:
        return nothing_fits(values)
    # By name where counts are equal: the same batch gives the same bytes.
    kind = max(candidates, key=lambda one: (counts[one], one.__qualname__))
    misfits = [position for position, value in enumerate(values) if type(value) is not kind and value is not None]
    column = _fit_kind(without(values, misfits), kind, depth)
    return Fitted(column.array, column.spec, sorted({*misfits, *column.misfits}))


def _has_column(kind: type) -> bool:
    return kind in SCALARS or kind in (list, tuple, dict) or _foreign_kind(kind) is not None


def _fit_kind(values: list[Any], kind: type, depth: int) -> Fitted:
    """A column of values of one type."""
    if kind in SCALARS:
        return fit_scalars_and_nulls(values, kind)
    if kind is list or kind is tuple:
        return fit_lists(values, depth, fit_values, kind.__name__)
    if kind is dict:
        return fit_dicts(values, depth, fit_values)
    name = _foreign_kind(kind)
    fit = FOREIGN_FITS.get(name or "")
    if fit is None:
        return nothing_fits(values)
    try:
        return fit(values, depth)
    except Exception:  # noqa: BLE001 - newer types of other libraries (128-bit integers): theirs to raise, ours to pickle
        return nothing_fits(values)


def _foreign_kind(kind: type) -> str | None:
    """Which of our kinds a type of another library is; by name, so that nothing is imported for it."""
    library = kind.__module__.partition(".")[0]
    if library == "numpy" and hasattr(kind, "dtype") and kind.__name__ != "ndarray":
        # Not the last of its bases but one: a float64 is a float, too.
        return "numpy" if any(base.__name__ == "generic" for base in kind.__mro__) else None
    return FOREIGN.get((library, kind.__name__))


def restore_values(array: pa.Array, spec: Spec) -> list[Any]:
    """The values of a column."""
    kind = spec["kind"]
    if kind == "none":
        return [None] * len(array)
    if kind in RESTORES:
        return RESTORES[kind](array, spec, restore_values)
    if kind in FOREIGN_RESTORES:
        return FOREIGN_RESTORES[kind](array, spec)
    return restore_scalars(array, spec)


FOREIGN_FITS: dict[str, Callable[[list[Any], int], Fitted]] = {
    "numpy": lambda values, _: fit_numpy_scalars(values),
    "array": lambda values, _: fit_arrays(values),
    "dataframe": lambda values, depth: fit_frames(values, depth, fit_values, "dataframe"),
    "polars": lambda values, depth: fit_tables(values, depth, "polars"),
    "series": lambda values, depth: fit_frames(values, depth, fit_values, "series"),
    "table": lambda values, depth: fit_tables(values, depth, "table"),
    "timedelta_ns": lambda values, _: fit_timestamps(values, "timedelta_ns"),
    "timestamp": lambda values, _: fit_timestamps(values, "timestamp"),
}
# Columns of these kinds hold columns of others.
RESTORES: dict[str, Callable[[pa.Array, Spec, Any], list[Any]]] = {
    "dataframe": restore_frames,
    "dict": restore_dicts,
    "list": restore_lists,
    "map": restore_maps,
    "series": restore_frames,
    "tuple": restore_lists,
}
FOREIGN_RESTORES: dict[str, Callable[[pa.Array, Spec], list[Any]]] = {
    "array": restore_arrays,
    "numpy": restore_numpy_scalars,
    "polars": restore_tables,
    "table": restore_tables,
    "timedelta_ns": restore_timestamps,
    "timestamp": restore_timestamps,
}
