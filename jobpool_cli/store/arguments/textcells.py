"""Whole columns of text to plain types by Arrow: only text of a form that leaves no doubt, the rest is left over.

The patterns are deliberately narrow: for what they accept, Arrow and pydantic agree on the value (tests hold that).
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

# At most 18 digits: always within 64 bits.
_INT = r"^-?[0-9]{1,18}$"
# Exponents of two digits: never an infinity, about which the two need not agree.
_FLOAT = r"^-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,2})?$"
_DATETIME = r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$"
_DATETIME_UTC = _DATETIME.removesuffix("$") + "Z$"

# What an unannotated column may hold to be taken for numbers: identifiers such as 007 stay text.
_INFER_INT = r"^(0|-?[1-9][0-9]{0,17})$"
_INFER_FLOAT = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,2})?$"
_INFER_BOOL = r"^(true|false|True|False|TRUE|FALSE)$"

_FAST = {
    int: (_INT, pa.int64()),
    float: (_FLOAT, pa.float64()),
}


def convert_fast(column: pa.ChunkedArray, kind: type) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None] | None:
    """Convert the cells whose form is plain.

    Returns:
        The converted column (null where a cell is missing or left over) and where cells are left over, None if none
        is; None if there is no fast way for that type.
    """
    if kind is datetime:
        return _convert_datetimes(column)
    if kind not in _FAST:
        return None
    pattern, target = _FAST[kind]
    matches = pc.match_substring_regex(column, pattern)
    if pc.all(matches, min_count=0).as_py():
        # Nulls count for nothing in all(): they are missing cells, not left over ones.
        return column.cast(target), None
    plain = pc.if_else(matches, column, pa.scalar(None, pa.string()))
    return plain.cast(target), pc.fill_null(pc.invert(matches), fill_value=False)


def _convert_datetimes(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, None] | None:
    """All cells or none: what is left over might have a zone, and a column has one zone or none."""
    try:
        if pc.all(pc.match_substring_regex(column, _DATETIME), min_count=0).as_py():
            return column.cast(pa.timestamp("us")), None
        if pc.all(pc.match_substring_regex(column, _DATETIME_UTC), min_count=0).as_py():
            naive = pc.utf8_rtrim(column, characters="Z").cast(pa.timestamp("us"))
            return pc.assume_timezone(naive, "UTC"), None
    except pa.ArrowInvalid:
        # A 30th of February: pydantic finds which cell.
        pass
    return None


def infer_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The type of a column without annotation: int, float or bool if every cell is, else text; empty cells are null."""
    present = len(column) - column.null_count
    if not present:
        return column
    # A glance at the first cell spares most columns of text three passes.
    for pattern, target in ((_INFER_INT, pa.int64()), (_INFER_FLOAT, pa.float64()), (_INFER_BOOL, pa.bool_())):
        first = column.slice(0, 1000)
        if not pc.all(pc.match_substring_regex(first, pattern), min_count=0).as_py():
            continue
        if pc.all(pc.match_substring_regex(column, pattern), min_count=0).as_py():
            return (pc.utf8_lower(column) if pa.types.is_boolean(target) else column).cast(target)
    return column
