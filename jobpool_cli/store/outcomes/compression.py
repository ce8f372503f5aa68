"""Whether compression pays: a trial on samples of a column, so that noise is not squeezed at a gigabyte's expense."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

# Less than this is compressed without a trial, which would cost as much.
TRIAL_ABOVE_BYTES = 1 << 20
SAMPLES = 4
SAMPLE_BYTES = 32 << 10
# What saves less than a tenth is not worth its time when it is written, and again whenever it is read.
WORTH_RATIO = 0.9


@dataclass
class Leaf:
    """One column of numbers or bytes, as Parquet has them: that is, a field of a struct, or the items of lists.

    Attributes:
        path: its name in a Parquet file.
        size: bytes in memory.
        ratio: what is left of it when it is compressed; 1 if it was not tried.
        tried: the bytes of the piece that the trial was made on.
    """

    path: str
    size: int = 0
    ratio: float = 1.0
    tried: int = 0

    @property
    def shrinks(self) -> bool:
        """Whether to compress it."""
        return self.tried <= TRIAL_ABOVE_BYTES or self.ratio < WORTH_RATIO


def leaves_of(name: str, pieces: Iterable[pa.Array]) -> list[Leaf]:
    """Return the leaves of a column, given in pieces, with a trial on the largest piece of each."""
    found: dict[str, Leaf] = {}
    largest: dict[str, pa.Array] = {}
    for piece in pieces:
        for path, array in _leaf_arrays(name, piece):
            leaf = found.setdefault(path, Leaf(path))
            leaf.size += array.nbytes
            if array.nbytes > leaf.tried:
                leaf.tried = array.nbytes
                largest[path] = array
    for path, array in largest.items():
        if found[path].tried > TRIAL_ABOVE_BYTES:
            found[path].ratio = _trial(array)
    return list(found.values())


def _leaf_arrays(path: str, array: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    kind = array.type
    if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
        yield from _leaf_arrays(f"{path}.list.element", array.flatten())
    elif pt.is_struct(kind):
        for number, field in enumerate(kind):
            yield from _leaf_arrays(f"{path}.{field.name}", array.field(number))
    elif pt.is_map(kind):
        yield from _leaf_arrays(f"{path}.key_value.key", array.keys)
        yield from _leaf_arrays(f"{path}.key_value.value", array.items)
    else:
        yield path, array


def _trial(array: pa.Array) -> float:
    data = max((buffer for buffer in array.buffers() if buffer is not None), key=lambda buffer: buffer.size)
    # From places all over it: the beginning of a file format, say, may be unlike the rest.
    step = data.size // SAMPLES
    sample = b"".join(data.slice(number * step, SAMPLE_BYTES).to_pybytes() for number in range(SAMPLES))
    return len(pa.Codec("zstd", 1).compress(sample, asbytes=True)) / len(sample)
