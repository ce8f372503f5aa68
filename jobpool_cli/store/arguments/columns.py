"""Python values as one column of args.parquet: plain Arrow where that is exact, else encoded and marked so."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pyarrow as pa

from jobpool_cli.errors import InputError
from jobpool_cli.store.arguments.decoding import ENCODING, JSON, PICKLE
from jobpool_cli.store.values.buffers import binaries, filled, fixed_width, lengths_of, lists, presence, texts
from jobpool_cli.store.values.pickles import Copies, copies_metadata, pickled
from jobpool_cli.store.values.scalars import SCALARS, fit_scalars, fit_scalars_and_nulls, microseconds_of

NoneType = type(None)

_LIST_ITEMS = frozenset({int, float, bool, str})
# Messages show so many; there may be millions.
BAD_CELLS_KEPT = 5
_NOT_FINITE = frozenset({"nan", "inf", "-inf"})
_JSON_SCALARS = frozenset({str, int, float, bool, type(None)})


@dataclass(frozen=True)
class BadCell:
    """A cell that does not fit its parameter, is missing where it must not be, or cannot be stored."""

    row: int
    problem: str
    missing: bool = False
    unstorable: bool = False


@dataclass(frozen=True)
class Converted:
    """A column in the form in which it is stored; the first cells that do not fit, and how many there are."""

    field: pa.Field
    column: pa.ChunkedArray
    bad: Sequence[BadCell] = ()
    n_bad: int = 0


@contextlib.contextmanager
def many_objects() -> Iterator[None]:
    """Make millions of objects without the cyclic garbage collector, which would walk all of them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def json_column(name: str, values: Sequence[Any]) -> tuple[pa.Field, pa.Array]:
    """A column for values that came from JSON, one per row, None for null; exactly these come back."""
    array = plain_array(values)
    if array is not None:
        return pa.field(name, array.type), array
    array = json_array(values)
    return pa.field(name, array.type, metadata={ENCODING: JSON}), array


def plain_array(values: Sequence[Any]) -> pa.Array | None:
    """The values as Arrow if their Python values come back exactly, types included; else None."""
    kinds = set(map(type, values))
    nullable = NoneType in kinds
    kinds.discard(NoneType)
    if not kinds:
        return pa.nulls(len(values), pa.string())
    if len(kinds) > 1:
        return None
    (kind,) = kinds
    items = values if type(values) is list else list(values)
    if kind is datetime:
        return _datetimes(items)
    if kind is list:
        return _lists(items)
    if kind not in SCALARS:
        return None
    fitted = fit_scalars_and_nulls(items, kind) if nullable else fit_scalars(items, kind)
    # An int or a timedelta past 64 bits, or a lone surrogate, does not fit.
    return None if fitted.misfits else fitted.array


def json_array(values: Sequence[Any], *, null: str | None = None) -> pa.Array:
    """Each value as JSON; ``null`` stands for None."""
    stored = _json_texts(values, null)
    return texts(stored, presence(stored))


def _json_texts(values: Sequence[Any], null: str | None) -> list[str | None]:
    if set(map(type, values)) <= {int, float} and _NOT_FINITE.isdisjoint(written := list(map(repr, values))):
        return cast("list[str | None]", written)
    # json.dumps would make an encoder for every value.
    encode = json.JSONEncoder(separators=(",", ":")).encode
    return [null if value is None else encode(value) for value in values]


def json_exact(value: object) -> bool:
    """Whether JSON gives the value back as it was, types included (NaN and infinities are read back by Python)."""
    kind = type(value)
    if kind in _JSON_SCALARS:
        return True
    if kind is dict:
        return all(type(key) is str for key in value) and json_exact_all(value.values())  # type: ignore[attr-defined]
    return kind in {list, tuple} and json_exact_all(value)  # type: ignore[arg-type]


def json_exact_all(values: Iterable[object]) -> bool:
    """Whether JSON gives every one of them back."""
    return all(type(value) in _JSON_SCALARS or (type(value) is not tuple and json_exact(value)) for value in values)


def pickle_array(name: str, values: Iterable[Any]) -> tuple[pa.Array, dict[bytes, bytes]]:
    """The values as pickles, and the metadata of their column."""
    copies: Copies = {}
    try:
        stored = [None if value is None else pickled(value, copies) for value in values]
    except Exception as error:  # a value's own __reduce__ may raise anything
        raise InputError(
            f"a value of {name} cannot be stored: {type(error).__name__}: {error}",
            "pass what it is made from (a path, an identifier), and make the object in the function",
        ) from error
    return binaries(stored, presence(stored)), {ENCODING: PICKLE, **copies_metadata(copies)}


def _datetimes(values: list[Any]) -> pa.Array | None:
    """Naive, or all in UTC; other zones lose their name in Arrow, and ``fold`` has no place there."""
    zones = {id(value.tzinfo): value.tzinfo for value in values if value is not None}
    if any(value.fold for value in values if value is not None):
        return None
    valid = presence(values)
    if list(zones.values()) == [None]:
        return fixed_width(microseconds_of(values, naive=True), pa.timestamp("us"), valid)
    # Pydantic has a class of zones of its own.
    if all(zone is UTC or (type(zone).__name__ == "TzInfo" and str(zone) == "UTC") for zone in zones.values()):
        return fixed_width(microseconds_of(values, naive=False), pa.timestamp("us", "UTC"), valid)
    return None


def _lists(values: list[Any]) -> pa.Array | None:
    """Lists of one kind of plain value."""
    valid = presence(values)
    present = values if valid is None else filled(values, ())
    flat = list(itertools.chain.from_iterable(present))
    kinds = set(map(type, flat)) - {NoneType}
    if len(kinds) != 1 or not kinds <= _LIST_ITEMS:
        return None
    items = plain_array(flat)
    return None if items is None else lists(lengths_of(present, len(present)), items, valid)
