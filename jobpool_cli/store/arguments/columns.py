"""Python values as one column of args.parquet: plain Arrow where that is exact, else encoded and marked so."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, cast

import pyarrow as pa

from jobpool_cli.errors import InputError
from jobpool_cli.store.arguments.stored import ENCODING, JSON, PICKLE

_SCALARS: dict[type, pa.DataType] = {
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    str: pa.string(),
    bytes: pa.binary(),
    date: pa.date32(),
    timedelta: pa.duration("us"),
}
_LIST_ITEMS = (int, float, bool, str)
_NOT_FINITE = frozenset({"nan", "inf", "-inf"})
_JSON_SCALARS = frozenset({str, int, float, bool, type(None)})


@dataclass(frozen=True)
class BadCell:
    """A cell that does not fit its parameter."""

    row: int
    problem: str
    missing: bool = False


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


def encode_column(name: str, values: Sequence[Any], *, pickles: bool = True) -> tuple[pa.Field, pa.Array]:
    """A column for values of any kind, from which exactly these values come back.

    Args:
        name: the column's name.
        values: the values, one per row; None is null.
        pickles: whether what JSON cannot hold is pickled; False for values that came from JSON.

    Raises:
        InputError: a value can be stored in no way.
    """
    array = plain_array(values)
    if array is not None:
        return pa.field(name, array.type), array
    # What came from JSON goes back into it without a question.
    if not pickles or json_exact(values):
        texts = pa.array(_json_texts(values), pa.string())
        return pa.field(name, pa.string(), metadata={ENCODING: JSON}), texts
    return pa.field(name, pa.binary(), metadata={ENCODING: PICKLE}), pickle_array(name, values)


def plain_array(values: Sequence[Any]) -> pa.Array | None:  # noqa: PLR0911 - one line a kind
    """The values as Arrow if their Python values come back exactly, types included; else None."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values), pa.string())
    if len(kinds) > 1:
        return None
    (kind,) = kinds
    try:
        if kind in _SCALARS:
            return pa.array(values, _SCALARS[kind])
        if kind is datetime:
            return _datetimes(values)
        if kind is list:
            return _lists(values)
    except (OverflowError, UnicodeEncodeError, pa.ArrowException):
        # An int or a timedelta past 64 bits, or a lone surrogate.
        return None
    return None


def _json_texts(values: Sequence[Any]) -> list[str | None]:
    """Each value as JSON."""
    if set(map(type, values)) <= {int, float} and _NOT_FINITE.isdisjoint(texts := list(map(repr, values))):
        return cast("list[str | None]", texts)
    # json.dumps would make an encoder for every value.
    encode = json.JSONEncoder(separators=(",", ":")).encode
    return [None if value is None else encode(value) for value in values]


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


def pickle_array(name: str, values: Iterable[Any]) -> pa.Array:
    """The values as pickles."""
    try:
        return pa.array([None if value is None else pickle.dumps(value, 5) for value in values], pa.binary())
    except Exception as error:  # a value's own __reduce__ may raise anything
        raise InputError(
            f"a value of {name} cannot be stored: {type(error).__name__}: {error}",
            "pass what it is made from (a path, an identifier), and make the object in the function",
        ) from error


def _datetimes(values: Sequence[Any]) -> pa.Array | None:
    """Naive, or all in UTC; other zones lose their name in Arrow, and ``fold`` has no place there."""
    zones = {value.tzinfo for value in values if value is not None}
    if any(value.fold for value in values if value is not None):
        return None
    if zones == {None}:
        return pa.array(values, pa.timestamp("us"))
    if None not in zones and all(str(zone) == "UTC" for zone in zones):
        return pa.array(values, pa.timestamp("us", tz="UTC"))
    return None


def _lists(values: Sequence[Any]) -> pa.Array | None:
    """Lists of one kind of plain value."""
    kinds = set(map(type, itertools.chain.from_iterable(value for value in values if value is not None)))
    kinds.discard(type(None))
    if not kinds:
        return None
    if len(kinds) > 1 or not kinds <= set(_LIST_ITEMS):
        return None
    return pa.array(values, pa.list_(_SCALARS[kinds.pop()]))
