"""What every encoder of values hands back: an Arrow column, how to read it, and the positions that did not fit.

An encoder takes a list of values that all have one type (``None`` may stand between them) and returns a
:class:`Fitted`. Exactness comes before everything: a value that Arrow cannot give back as it was is reported in
``misfits`` and leaves a null, and the caller pickles it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobpool_cli.store.values.buffers import null_positions

# Nested structures deeper than this are pickled; it also ends the walk into a list that contains itself.
MAX_DEPTH = 16

# What a column says about its own decoding, JSON-able: {"kind": "list", "of": {"kind": "int"}}.
Spec = dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """One column of values.

    Attributes:
        array: one row per value; null for ``None`` and for misfits.
        spec: what :func:`jobpool_cli.store.values.codec.decode` needs to restore the values.
        misfits: positions, ascending, of values that this column cannot hold exactly.
    """

    array: pa.Array
    spec: Spec
    misfits: Sequence[int] = ()


def nothing_fits(values: Sequence[object]) -> Fitted:
    """A column of nulls in which every value but ``None`` is a misfit."""
    misfits = [position for position, value in enumerate(values) if value is not None]
    return Fitted(pa.nulls(len(values)), {"kind": "none"}, misfits)


def without(values: Sequence[Any], misfits: Iterable[int]) -> list[Any]:
    """The values with ``None`` at the given positions."""
    kept = list(values)
    for position in misfits:
        kept[position] = None
    return kept


def fit_present(values: list[Any], misfits: Sequence[int], fit: Callable[[list[Any]], Fitted]) -> Fitted:
    """Fit what remains when the misfits are left out, and report both kinds of misfits."""
    fitted = fit(without(values, misfits))
    return Fitted(fitted.array, fitted.spec, sorted({*misfits, *fitted.misfits}))


def restore_nulls(values: list[Any], array: pa.Array) -> list[Any]:
    """Put ``None`` where the array is null (in place)."""
    for position in null_positions(array):
        values[position] = None
    return values
