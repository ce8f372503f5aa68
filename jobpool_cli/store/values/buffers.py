"""Arrow columns made from NumPy buffers and read as such, without ``pa.array()`` and ``to_numpy()``.

Both import pandas on their first call, whatever they are given: half a second in every worker, and in every command
that prints a result. Handling the buffers here costs the same per value and leaves pandas alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import is_not
from typing import Any

import numpy as np
import pyarrow as pa

Numbers = np.ndarray[Any, np.dtype[Any]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

INT32_MAX = 2**31 - 1


def presence(values: Sequence[object]) -> Flags | None:
    """Which values are not None; None if all are."""
    valid = np.fromiter(map(is_not, values, repeat(None)), np.bool_, len(values))
    return None if valid.all() else valid


def filled(values: Sequence[Any], filler: object) -> list[Any]:
    """The values with something harmless in place of None."""
    return [filler if value is None else value for value in values]


def nulls(valid: Flags | None) -> pa.Array | None:
    """The mask of nulls that ``from_arrays`` of nested types takes."""
    return None if valid is None else fixed_width(~valid, pa.bool_())


def fixed_width(values: Numbers, arrow_type: pa.DataType, valid: Flags | None = None) -> pa.Array:
    """A column of numbers, times or booleans; the bytes are taken as they are.

    The column shares the memory of ``values``.
    """
    data = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    # A bytes view: the buffer protocol knows no datetime64.
    return pa.Array.from_buffers(arrow_type, len(values), [_bitmap(valid), pa.py_buffer(data.view(np.uint8))])


def offsets_of(lengths: Numbers) -> Numbers:
    """Where rows of these lengths begin and end in a flat column; 32 bits wide where that is enough."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets if offsets[-1] > INT32_MAX else offsets.astype(np.int32)


def lengths_of(values: Iterable[Any], count: int) -> Numbers:
    """``len()`` of each value."""
    return np.fromiter(map(len, values), np.int64, count)


def offsets_column(offsets: Numbers) -> pa.Array:
    """Offsets as the Arrow column that ``ListArray.from_arrays`` takes."""
    return fixed_width(offsets, pa.int64() if offsets.dtype == np.int64 else pa.int32())


def lists(lengths: Numbers, items: pa.Array, valid: Flags | None = None) -> pa.Array:
    """A column of lists, from the flat column of all their items."""
    offsets = offsets_of(lengths)
    make = pa.LargeListArray if offsets.dtype == np.int64 else pa.ListArray
    return make.from_arrays(offsets_column(offsets), items, mask=nulls(valid))


def texts(values: list[Any], valid: Flags | None = None) -> pa.Array:
    """A column of str.

    Raises:
        UnicodeEncodeError: a value holds lone surrogates.
    """
    present = values if valid is None else filled(values, "")
    data = "".join(present).encode()
    lengths = lengths_of(present, len(present))
    if len(data) != lengths.sum():  # not plain ASCII: a character is not a byte
        lengths = lengths_of(map(str.encode, present), len(present))
    return _variable_width(data, lengths, pa.string(), pa.large_string(), valid)


def binaries(values: list[Any], valid: Flags | None = None) -> pa.Array:
    """A column of bytes."""
    present = values if valid is None else filled(values, b"")
    lengths = lengths_of(present, len(present))
    return _variable_width(b"".join(present), lengths, pa.binary(), pa.large_binary(), valid)


def numbers_of(array: pa.Array, dtype: np.dtype[Any]) -> Numbers:
    """The memory of a column of fixed width as this dtype, read-only; what lies under a null is anything."""
    if dtype.kind == "M" and array.type.unit != np.datetime_data(dtype)[0]:
        array = array.cast(pa.timestamp(np.datetime_data(dtype)[0], array.type.tz))  # Parquet knows no seconds
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.zeros(len(array), dtype)
    if dtype == np.bool_:
        return _bits(data, array.offset, len(array))
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize)


def survives_parquet(column: pa.Array) -> bool:
    """Whether Parquet can hold these numbers: it turns seconds into milliseconds, and may find no room for them."""
    if not pa.types.is_timestamp(column.type) or column.type.unit != "s":
        return True
    try:
        column.cast(pa.timestamp("ms", column.type.tz))
    except pa.ArrowInvalid:
        return False
    return True


def bounds(array: pa.Array) -> tuple[list[int], list[int]]:
    """Where each row of a column of lists or maps begins and ends in ``array.flatten()``."""
    if not len(array):
        return [], []
    wide = pa.types.is_large_list(array.type)
    dtype = np.dtype(np.int64 if wide else np.int32)
    offsets = np.frombuffer(array.buffers()[1], dtype, len(array) + 1, array.offset * dtype.itemsize)
    lengths = np.diff(offsets)
    lengths[null_positions(array)] = 0  # flatten() leaves out what a null hides
    ends = np.cumsum(lengths)
    return (ends - lengths).tolist(), ends.tolist()


def null_positions(array: pa.Array) -> list[int]:
    """Where the column is null."""
    if not array.null_count:
        return []
    validity = array.buffers()[0]
    if validity is None:  # a column of type null
        return list(range(len(array)))
    positions: list[int] = np.flatnonzero(~_bits(validity, array.offset, len(array))).tolist()
    return positions


def _bits(data: pa.Buffer, offset: int, length: int) -> Flags:
    first, last = offset // 8, (offset + length + 7) // 8
    octets = np.frombuffer(data, np.uint8, last - first, first)
    return np.unpackbits(octets, bitorder="little")[offset - 8 * first :][:length].view(np.bool_)


def _variable_width(
    data: bytes, lengths: Numbers, narrow: pa.DataType, wide: pa.DataType, valid: Flags | None
) -> pa.Array:
    offsets = offsets_of(lengths)
    buffers = [_bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(wide if offsets.dtype == np.int64 else narrow, len(lengths), buffers)


def _bitmap(valid: Flags | None) -> pa.Buffer | None:
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
