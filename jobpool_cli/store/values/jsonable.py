"""Any Python value as JSON text, come what may: the one place for it.

What functions return is theirs: lists may contain themselves, numbers may have more digits than Python prints, and
``__repr__`` may raise. None of that keeps the other results from being read.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

# Deeper, and readers of JSON refuse too, and Python's own stack is in sight.
MAX_DEPTH = 250
TOO_DEEP = f"<nested deeper than {MAX_DEPTH} levels>"
# Python neither prints nor reads whole numbers of more than 4300 digits, unless told to.
MOST_BITS = 14_000

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False).encode
_NO_MOMENTS = frozenset({"NaTType", "NAType"})


def json_text(value: object) -> str:
    """Return a value as JSON, in one line of valid UTF-8; see `jsonable`."""
    text = _encode(jsonable(value))
    # Lone surrogates have no UTF-8; as escapes they are JSON.
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def jsonable(value: object) -> object:
    """Return what JSON can say about a value.

    Text, numbers, truth values, lists and dicts as they are; NaN and what is missing as null; times in ISO 8601,
    durations in seconds; bytes in base64; tables as lists of records; geometries as WKT; what JSON has no form for as
    its ``repr``. Where keys or column names collide, a dict is a list of pairs, and a table has its columns apart.
    """
    return _jsonable(value, ())


def safe_repr(value: object) -> str:
    """Return ``repr(value)``, or why there is none."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - the user's code, or too deep, or too long a number
        try:
            message = str(error)
        except Exception:  # noqa: BLE001 - this too is the user's code
            message = "?"
        return f"<repr failed: {type(error).__name__}: {message}>"


def _jsonable(value: Any, above: tuple[int, ...]) -> object:
    """Convert a value that stands in the containers of these identities."""
    kind = type(value)
    if value is None or kind is bool or kind is str or (kind is int and value.bit_length() <= MOST_BITS):
        return value
    if kind is float:
        return value if math.isfinite(value) else None if math.isnan(value) else repr(value)
    if id(value) in above:
        return "{...}" if isinstance(value, Mapping) else "[...]"  # as Python's own repr has it
    try:
        return _converted(value, above)
    except Exception:  # noqa: BLE001 - subclasses may do anything when looked at
        return safe_repr(value)


def _converted(value: Any, above: tuple[int, ...]) -> object:
    found: object
    match value:
        case bool() | str():
            found = value
        case int():
            found = value if value.bit_length() <= MOST_BITS else format(Decimal(value), "f")
        case float():
            found = _jsonable(float(value), above)
        case Mapping():
            found = TOO_DEEP if len(above) >= MAX_DEPTH else _object(list(value.items()), (*above, id(value)))
        case list() | tuple():
            found = TOO_DEEP if len(above) >= MAX_DEPTH else _array(value, (*above, id(value)))
        case datetime() | date() | time() | timedelta():
            found = _time_text(value)
        case bytes() | bytearray():
            found = base64.b64encode(value).decode()
        case Decimal():
            found = str(value)
        case _:
            found = _foreign(value, above)
    return found


def _array(items: Iterable[Any], above: tuple[int, ...]) -> list[object]:
    # A loop: comprehensions would take twice the stack.
    found: list[object] = []
    for item in items:
        found.append(_jsonable(item, above))  # noqa: PERF401
    return found


def _object(pairs: list[tuple[Any, Any]], above: tuple[int, ...]) -> object:
    found: dict[str, object] = {}
    for key, item in pairs:
        found[_key(key)] = _jsonable(item, above)
    if len(found) == len(pairs):
        return found
    # 1 and "1" are one key in JSON.
    return [[_jsonable(key, above), _jsonable(item, above)] for key, item in pairs]


def _key(key: object) -> str:
    if isinstance(key, str):
        return key
    found = jsonable(key)
    return found if isinstance(found, str) else _encode(found)


def _time_text(value: datetime | date | time | timedelta) -> object:
    if type(value).__name__ in _NO_MOMENTS:
        return None
    if isinstance(value, timedelta):
        return value.total_seconds()
    text = value.isoformat()
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") and isinstance(value, datetime) else text


def _foreign(value: Any, above: tuple[int, ...]) -> object:  # noqa: PLR0911 - a list of cases
    """Convert other libraries' values by way of plain Python ones."""
    library = type(value).__module__.partition(".")[0]
    above = (*above, id(value))
    if len(above) > MAX_DEPTH:
        return TOO_DEEP
    if type(value).__name__ in _NO_MOMENTS:
        return None
    if library == "shapely" and hasattr(value, "wkt"):
        return value.wkt
    if library == "numpy" and hasattr(value, "dtype"):
        return _jsonable(_numpy_plain(value), above)
    if library in {"geopandas", "pandas"} and hasattr(value, "index") and hasattr(value, "items"):
        return _frame(value, above) if value.ndim > 1 else _series(value, above)
    if library == "pyarrow" and hasattr(value, "column_names"):
        return _records(value.column_names, [column.to_pylist() for column in value.columns], above)
    for of, method in PLAIN:
        if library == of and hasattr(value, method):
            plain = getattr(value, method)()
            return safe_repr(value) if type(plain) is type(value) else _jsonable(plain, above)
    return safe_repr(value)


# The first method that a value of the library has.
PLAIN = (
    ("pandas", "tolist"),
    ("polars", "to_dicts"),
    ("polars", "to_list"),
    ("pyarrow", "to_pylist"),
    ("pyarrow", "as_py"),
)


def _numpy_plain(value: Any) -> object:
    """Plain Python for NumPy's scalars and arrays, whose ``tolist`` counts nanoseconds as integers."""
    import numpy as np  # noqa: PLC0415 - beside the only use, and there already

    if value.dtype.kind == "M":
        moments: Any = np.where(np.isnat(value), None, np.datetime_as_string(value).astype(object))
        return moments.tolist()
    if value.dtype.kind == "m" and np.datetime_data(value.dtype)[0] not in ("Y", "M", "generic"):
        return (value / np.timedelta64(1, "s")).tolist()
    found = value.tolist()
    return safe_repr(value) if type(found) is type(value) else found


def _series(series: Any, above: tuple[int, ...]) -> object:
    items = series.tolist()
    if _is_count(series.index):
        return _array(items, above)
    return _object(list(zip(series.index.tolist(), items, strict=True)), above)


def _is_count(index: Any) -> bool:
    """Whether this is the index that pandas makes by itself."""
    return index.nlevels == 1 and index.name is None and index.tolist() == list(range(len(index)))


def _frame(frame: Any, above: tuple[int, ...]) -> object:
    names = list(frame.columns)
    columns = [frame.iloc[:, number].tolist() for number in range(len(names))]
    if not _is_count(frame.index):
        levels = frame.index.nlevels
        plain = ["index"] if levels == 1 else [f"level_{number}" for number in range(levels)]
        names = [own if name is None else name for own, name in zip(plain, frame.index.names, strict=True)] + names
        columns = [frame.index.get_level_values(number).tolist() for number in range(levels)] + columns
    return _records(names, columns, above) if columns else [{}] * len(frame)


def _records(names: list[Any], columns: list[list[Any]], above: tuple[int, ...]) -> object:
    keys = [_key(name) for name in names]
    rows: Iterator[tuple[object, ...]] = zip(*(_array(column, above) for column in columns), strict=True)
    if len(set(keys)) < len(keys):
        return {"columns": keys, "data": [list(row) for row in rows]}
    return [dict(zip(keys, row, strict=True)) for row in rows]
