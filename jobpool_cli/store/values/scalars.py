"""Plain Python scalars as Arrow columns: bool, int, float, str, bytes, date, time, datetime, timedelta."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from jobpool_cli.store.values.buffers import Flags, Numbers, binaries, filled, fixed_width, numbers_of, presence, texts
from jobpool_cli.store.values.fitted import Fitted, Spec, fit_present, nothing_fits, restore_nulls


def _fits_int64(value: int) -> bool:
    return -(2**63) <= value < 2**63


def _fits_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates, as os.fsdecode makes them
        return False
    return True


def _fits_duration(value: timedelta) -> bool:
    return _fits_int64(value // timedelta(microseconds=1))


# type -> (kind, NumPy type, Arrow type, something to stand in for None)
FIXED_WIDTH: dict[type, tuple[str, str, pa.DataType, object]] = {
    bool: ("bool", "?", pa.bool_(), False),
    int: ("int", "i8", pa.int64(), 0),
    float: ("float", "f8", pa.float64(), 0.0),
    date: ("date", "M8[D]", pa.date32(), date(1970, 1, 1)),
}
# Values that these types cannot hold; all values of the other types fit.
FITS: dict[type, Callable[[Any], bool]] = {int: _fits_int64, str: _fits_utf8, timedelta: _fits_duration}
# kind -> NumPy type whose tolist() gives the values
RESTORED = {"bool": "?", "int": "i8", "float": "f8", "date": "i4", "timedelta": "m8[us]", "datetime": "M8[us]"}
SCALARS = frozenset({*FIXED_WIDTH, str, bytes, timedelta, time, datetime})


def fit_scalars(values: list[Any], kind: type) -> Fitted:
    """A column of one of the types in ``SCALARS``, without None."""
    return _fit(values, kind, None)


def fit_scalars_and_nulls(values: list[Any], kind: type) -> Fitted:
    """A column of one of the types in ``SCALARS`` and None."""
    return _fit(values, kind, presence(values))


def _fit(values: list[Any], kind: type, valid: Flags | None) -> Fitted:
    if kind is datetime:
        return _fit_datetimes(values)
    if kind is time:
        return _fit_times(values)
    try:
        return _fit_all(values, kind, valid)
    except (OverflowError, UnicodeEncodeError):
        fits = FITS[kind]
        misfits = [position for position, value in enumerate(values) if value is not None and not fits(value)]
        return fit_present(values, misfits, lambda kept: fit_scalars_and_nulls(kept, kind))


def _fit_all(values: list[Any], kind: type, valid: Flags | None) -> Fitted:
    if kind is str:
        return Fitted(texts(values, valid), {"kind": "str"})
    if kind is bytes:
        return Fitted(binaries(values, valid), {"kind": "bytes"})
    if kind is timedelta:
        tick = timedelta(microseconds=1)
        ticks = np.array([0 if value is None else value // tick for value in values], np.int64)
        return Fitted(fixed_width(ticks, pa.duration("us"), valid), {"kind": "timedelta"})
    name, dtype, arrow_type, filler = FIXED_WIDTH[kind]
    numbers = np.array(values if valid is None else filled(values, filler), dtype)
    if kind is date:
        numbers = numbers.astype(np.int64).astype(np.int32)
    return Fitted(fixed_width(numbers, arrow_type, valid), {"kind": name})


def _fit_times(values: list[Any]) -> Fitted:
    misfits = [
        position
        for position, value in enumerate(values)
        if value is not None and (value.tzinfo is not None or value.fold)
    ]
    if misfits:
        return fit_present(values, misfits, _fit_times)
    ticks = [
        0 if value is None else ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
        for value in values
    ]
    return Fitted(fixed_width(np.array(ticks, np.int64), pa.time64("us"), presence(values)), {"kind": "time"})


def _fit_datetimes(values: list[Any]) -> Fitted:
    """A column of datetimes of one zone, the most frequent; moments that the zone does not give back are misfits."""
    zones = {id(value.tzinfo): value.tzinfo for value in values if value is not None}
    names = {key: zone_name(zone) for key, zone in zones.items()}
    counts = Counter(names[id(value.tzinfo)] for value in values if value is not None)
    counts.pop(None, None)
    if not counts:
        return nothing_fits(values)
    name = counts.most_common(1)[0][0] or ""
    zone = zone_of(name)
    if zone is None or zone is UTC:
        # Fold says which of two hours is meant, and a column has no place for it.
        moments = [None if value is None or value.fold or value.tzinfo is not zone else value for value in values]
    else:
        moments = [
            _in_utc(value, zone) if value is not None and names[id(value.tzinfo)] == name else None for value in values
        ]
    misfits = [
        position
        for position, (value, moment) in enumerate(zip(values, moments, strict=True))
        if moment is None and value is not None
    ]
    ticks = microseconds_of(moments, naive=zone is None)
    array = fixed_width(ticks, pa.timestamp("us", arrow_zone(name)), presence(moments))
    return Fitted(array, {"kind": "datetime", "zone": name}, misfits)


def _in_utc(value: datetime, zone: tzinfo) -> datetime | None:
    """The moment in UTC; None if the zone would not give the same clock's face back.

    That is so for hours that a zone skips, and for instants beyond the years 1 to 9999 in UTC.
    """
    try:
        moment = value.astimezone(UTC)
        restored = moment.astimezone(zone)
    except OverflowError:
        return None
    # Comparing within one zone looks at the clock's face only, which is what must be the same.
    return moment if value == restored and value.fold == restored.fold else None


def microseconds_of(moments: Iterable[datetime | None], *, naive: bool) -> Numbers:
    """Microseconds from the beginning of 1970 to each moment, 0 for None; NumPy's own way takes ten times as long."""
    epoch, tick = datetime(1970, 1, 1, tzinfo=None if naive else UTC), timedelta(microseconds=1)
    return np.array([0 if moment is None else (moment - epoch) // tick for moment in moments], np.int64)


def zone_name(zone: tzinfo | None) -> str | None:
    """A text from which :func:`zone_of` makes an equal zone; None if there is none."""
    if zone is None:
        return ""
    if zone is UTC:
        return "utc"
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        minutes, rest = divmod(offset, timedelta(minutes=1))
        if rest or zone != timezone(offset) or zone.tzname(None) != timezone(offset).tzname(None):
            return None
        sign = "-" if minutes < 0 else "+"
        return f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    if type(zone) is ZoneInfo and zone is _known_zone(zone.key):
        return zone.key
    return None


def _known_zone(key: str | None) -> ZoneInfo | None:
    # Zones that were read from a file have no key, whatever the annotations say.
    return ZoneInfo(key) if key else None


def zone_of(name: str) -> tzinfo | None:
    """The zone of a name that :func:`zone_name` gave."""
    if not name:
        return None
    if name == "utc":
        return UTC
    if name[0] in "+-":
        hours, minutes = name[1:].split(":")
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-offset if name[0] == "-" else offset)
    return ZoneInfo(name)


def arrow_zone(name: str) -> str | None:
    """The zone as an Arrow timestamp type names it."""
    return "UTC" if name == "utc" else name or None


def restore_scalars(array: pa.Array, spec: Spec) -> list[Any]:
    """The values of a column of scalars."""
    dtype = RESTORED.get(spec["kind"])
    if dtype is None:  # str, bytes, time
        return array.to_pylist()  # type: ignore[no-any-return]
    numbers = numbers_of(array, np.dtype(dtype))
    if spec["kind"] == "date":
        numbers = numbers.astype("M8[D]")
    values: list[Any] = numbers.tolist()
    zone = zone_of(spec["zone"]) if "zone" in spec else None
    if zone is UTC:
        values = [value.replace(tzinfo=UTC) if type(value) is datetime else None for value in values]
    elif zone is not None:
        values = [value.replace(tzinfo=UTC).astimezone(zone) if type(value) is datetime else None for value in values]
    return restore_nulls(values, array)
