"""One column to its parameter's annotation, with every cell that does not fit."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import Enum
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobpool_cli.store.arguments.columns import BAD_CELLS_KEPT, BadCell, Converted, pickle_array, plain_array
from jobpool_cli.store.arguments.convert import (
    adapter,
    bare,
    describe,
    display,
    display_value,
    is_optional,
    is_path,
    list_adapter,
    members,
    only_member,
    reason,
    text_converter,
    value_converter,
)
from jobpool_cli.store.arguments.decoding import ENCODING, JSON, TEXT, VALIDATE, decode_column
from jobpool_cli.store.arguments.signature import Parameter
from jobpool_cli.store.arguments.textcells import convert_fast

# How people write that there is nothing. Counts only where the text itself does not convert.
MARKERS = frozenset({"NA", "N/A", "NaN", "nan", "null", "None", "NULL"})

_PLAIN = (int, float, bool, str, date, datetime)
# What stands for a missing cell where the annotation is nothing but this type, and there is nothing to ask pydantic.
_EMPTY = {float: math.nan, str: ""}
# pydantic describes every error of a list that it validates: by the piece, a column of nonsense stays small.
_PIECE = 10_000


def missing_value(parameter: Parameter, *, textual: bool) -> tuple[bool, object]:
    """Whether the annotation has a value for a missing cell, and which: None, NaN or, of an empty cell, no text."""
    annotation = parameter.annotation
    if is_optional(annotation):
        return True, None
    if annotation in _EMPTY and (textual or annotation is not str):
        return True, _EMPTY[annotation]
    candidates: list[object] = []
    for member in map(bare, members(bare(annotation))):
        if member is float:
            candidates.append(math.nan)
        elif member is str and textual:
            candidates.append("")
    for candidate in candidates:
        try:
            return True, adapter(annotation).validate_python(candidate)
        except ValueError:
            continue
    if textual and not candidates and _has_choices(annotation):
        try:
            return True, text_converter(annotation)("")
        except ValueError:
            pass
    return False, None


def convert_text_column(column: pa.ChunkedArray, field: pa.Field, parameter: Parameter) -> Converted:
    """Convert a column of text cells."""
    annotation = parameter.annotation
    allowed, missing = missing_value(parameter, textual=True)
    kind = _plain_kind(annotation)
    if kind is str:
        filled = column if missing is None or not column.null_count else pc.fill_null(column, missing)
        return Converted(field, filled)
    if is_path(annotation):
        # A path is stored as its text anyway, and making one costs more than reading a row.
        texts = _with_missing(column, field.name, parameter)
        return replace(texts, field=texts.field.with_metadata({ENCODING: VALIDATE}))
    fast = convert_fast(column, kind) if kind is not None else None
    if fast is not None:
        values, left_over = fast
        if left_over is None:
            return _with_missing(values, field.name, parameter)
        n_left = pc.sum(left_over).as_py() or 0
        if n_left * 2 < len(column):
            found = _convert_unique(column.filter(left_over), parameter, missing, allowed=allowed)
            array = plain_array(found.values)
            if not found.bad and array is not None and array.type in {values.type, pa.string()}:
                replacement = array.cast(values.type).take(found.indices)
                merged = pc.replace_with_mask(
                    values.combine_chunks(),
                    _whole(left_over),
                    replacement.combine_chunks() if isinstance(replacement, pa.ChunkedArray) else replacement,
                )
                return _with_missing(pa.chunked_array([merged]), field.name, parameter)
    found = _convert_unique(column, parameter, missing, allowed=allowed)
    if found.bad:
        return _refused(column, field, parameter, found)
    array, metadata = store_values(found.values, annotation, found.texts)
    return Converted(pa.field(field.name, array.type, metadata=metadata), pa.chunked_array([array.take(found.indices)]))


def convert_value_column(column: pa.ChunkedArray, field: pa.Field, parameter: Parameter) -> Converted:
    """Convert a column of typed values: from Parquet, JSON or Python."""
    if pa.types.is_dictionary(field.type):
        column = column.cast(field.type.value_type)
    if not (field.metadata or {}).get(ENCODING):
        native = _convert_native(column, _plain_kind(parameter.annotation))
        if native is not None:
            return _with_missing(native, field.name, parameter)
    return _convert_values(decode_column(column, field), field.name, parameter)


def store_values(
    values: list[Any],
    annotation: Any,
    texts: list[str | None] | None = None,
) -> tuple[pa.Array, dict[bytes, bytes] | None]:
    """Converted values as a column, from which a worker gets exactly these values, and the column's metadata.

    ``texts`` are the cells from which the values came, where they came from text: converting them once more is what
    remains for values that nothing else gives back.
    """
    array = plain_array(values)
    if array is not None:
        return array, None
    present = [value for value in values if value is not None]
    for stored, metadata, decode in _encodings(present, annotation):
        try:
            if not _same(decode(stored), present):
                continue
        except ValueError:
            continue
        array = plain_array(_spread(stored, values))
        if array is not None:
            return array, {ENCODING: metadata}
    if texts is not None:
        kept = [None if value is None else text or "" for value, text in zip(values, texts, strict=True)]
        return pa.array(kept, pa.string()), {ENCODING: TEXT}
    return pickle_array(display(annotation), values)


@dataclass(frozen=True)
class _Unique:
    """A column's distinct values, converted, and which cell has which."""

    indices: pa.Array
    values: list[Any]
    texts: list[str | None]
    bad: set[int]


def _has_choices(annotation: Any) -> bool:
    """Whether an empty text may be one of a few named values."""
    return any(
        (isinstance(each, type) and issubclass(each, Enum)) or getattr(each, "__origin__", None) is not None
        for each in map(bare, members(bare(annotation)))
    )


def _plain_kind(annotation: Any) -> type | None:
    """The one plain type of an annotation, None aside; None if it is anything else."""
    kind = only_member(annotation)
    return kind if kind in _PLAIN else None


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _with_missing(column: pa.ChunkedArray, name: str, parameter: Parameter) -> Converted:
    """Put in place what the annotation has for missing cells, or name them."""
    field = pa.field(name, column.type)
    if not column.null_count:
        return Converted(field, column)
    allowed, missing = missing_value(parameter, textual=False)
    if not allowed:
        rows = pc.indices_nonzero(column.is_null())
        bad = [_missing_cell(row, parameter) for row in rows[:BAD_CELLS_KEPT].to_pylist()]
        return Converted(field, column, bad, len(rows))
    return Converted(field, column if missing is None else pc.fill_null(column, pa.scalar(missing, column.type)))


def _missing_cell(row: int, parameter: Parameter) -> BadCell:
    return BadCell(row, f"the value is missing, and {describe(parameter.annotation)} is needed", missing=True)


def _convert_unique(column: pa.ChunkedArray, parameter: Parameter, missing: object, *, allowed: bool) -> _Unique:
    """Convert each distinct text once; a missing cell is one more distinct value."""
    encoded = _whole(_whole(column).dictionary_encode())
    texts: list[str | None] = encoded.dictionary.to_pylist()
    indices = encoded.indices
    convert = text_converter(parameter.annotation)
    values: list[Any] = []
    bad: set[int] = set()
    for position, text in enumerate(texts):
        try:
            values.append(convert(text))
        except ValueError:
            values.append(missing)
            if not (allowed and text in MARKERS):
                bad.add(position)
    if indices.null_count:
        indices = pc.fill_null(indices, len(texts))
        if not allowed:
            bad.add(len(texts))
        values.append(missing)
        texts.append(None)
    return _Unique(indices, values, texts, bad)


def _problem(value: object, parameter: Parameter, error: ValueError) -> str:
    """Why a value does not fit, for people."""
    plain = _plain_kind(parameter.annotation)
    problem = f"{display_value(value)} is not {describe(parameter.annotation)}"
    return problem if plain in {int, float, bool, str} and isinstance(value, str) else f"{problem}: {reason(error)}"


def _text_problem(text: str, parameter: Parameter) -> str:
    """Why a text does not fit. Asked for again: a description of every one of a million errors would take long."""
    try:
        text_converter(parameter.annotation)(text)
    except ValueError as error:
        return _problem(text, parameter, error)
    # A validator of the user's that changed its mind.
    return f"{text!r} was refused"


def _refused(column: pa.ChunkedArray, field: pa.Field, parameter: Parameter, found: _Unique) -> Converted:
    """The cells that do not fit, in the order of the file."""
    rows = pc.indices_nonzero(pc.is_in(found.indices, pa.array(list(found.bad), found.indices.type)))
    bad = []
    for row in rows[:BAD_CELLS_KEPT].to_pylist():
        position = found.indices[row].as_py()
        text = found.texts[position]
        if text is None:
            bad.append(_missing_cell(row, parameter))
        else:
            bad.append(BadCell(row, _text_problem(text, parameter), missing=text in MARKERS))
    return Converted(field, column, bad, len(rows))


def _convert_native(column: pa.ChunkedArray, kind: type | None) -> pa.ChunkedArray | None:  # noqa: PLR0911 - one a kind
    """A column whose Arrow type is the annotation's own, nulls left in place; None if pydantic has to look at it."""
    has = column.type
    try:
        if kind is int and pa.types.is_integer(has):
            return column.cast(pa.int64())
        if kind is float and (pa.types.is_floating(has) or pa.types.is_integer(has)):
            # Not "safe": an int past 2**53 becomes the nearest float, as float(i) does.
            return column.cast(pa.float64(), safe=False)
        if kind is bool and pa.types.is_boolean(has):
            return column
        if kind is str and (pa.types.is_string(has) or pa.types.is_large_string(has) or pa.types.is_string_view(has)):
            return column.cast(pa.string())
        if kind is date and pa.types.is_date(has):
            return column.cast(pa.date32())
        if kind is datetime and pa.types.is_timestamp(has):
            # Python's datetime ends at microseconds.
            return column.cast(pa.timestamp("us", tz=has.tz), safe=False)
    except pa.ArrowInvalid:
        return None
    return None


def _convert_values(values: list[Any], name: str, parameter: Parameter) -> Converted:
    """Have pydantic convert Python values, a piece at a time."""
    results: list[Any] = []
    bad: list[BadCell] = []
    n_bad = 0
    for start in range(0, len(values), _PIECE):
        converted, refused, n_refused = _convert_piece(values[start : start + _PIECE], start, parameter)
        results += converted
        n_bad += n_refused
        bad += refused[: BAD_CELLS_KEPT - len(bad)]
    if bad:
        return Converted(pa.field(name, pa.null()), pa.chunked_array([pa.nulls(len(values))]), bad, n_bad)
    array, metadata = store_values(results, parameter.annotation)
    return Converted(pa.field(name, array.type, metadata=metadata), pa.chunked_array([array]))


def _convert_piece(piece: list[Any], start: int, parameter: Parameter) -> tuple[list[Any], list[BadCell], int]:
    """Convert some values: all at once, or one by one if some are missing or do not fit."""
    if not any(value is None for value in piece):
        with contextlib.suppress(ValueError):
            return list_adapter(parameter.annotation).validate_python(piece), [], 0
    allowed, missing = missing_value(parameter, textual=False)
    convert = value_converter(parameter.annotation)
    results: list[Any] = []
    bad: list[BadCell] = []
    n_bad = 0
    for row, value in enumerate(piece, start=start):
        if value is None:
            results.append(missing)
            if not allowed:
                n_bad += 1
                if len(bad) < BAD_CELLS_KEPT:
                    bad.append(_missing_cell(row, parameter))
            continue
        try:
            results.append(convert(value))
        except ValueError as error:
            results.append(missing)
            # pandas writes a missing number as NaN.
            if not (allowed and isinstance(value, float) and math.isnan(value)):
                n_bad += 1
                if len(bad) < BAD_CELLS_KEPT:
                    bad.append(BadCell(row, _problem(value, parameter, error)))
    return results, bad, n_bad


def _encodings(present: list[Any], annotation: Any) -> Any:
    """Ways to store values that Arrow has no type for, the plainest first: (stored, encoding, how to read it back)."""
    convert = value_converter(annotation)

    def again(stored: list[Any]) -> list[Any]:
        return list(map(convert, stored))

    if all(isinstance(value, Enum) for value in present):
        if all(type(value.value) in {int, str} for value in present):
            yield [value.value for value in present], VALIDATE, again
        yield [value.name for value in present], VALIDATE, again
    if all(isinstance(value, PurePath) for value in present):
        yield [str(value) for value in present], VALIDATE, again
    dump = adapter(annotation).dump_json
    try:
        texts = [dump(value, by_alias=True, warnings="none").decode() for value in present]
    except (ValueError, TypeError, RecursionError):
        # What pydantic cannot write as JSON: an arbitrary object, a key that is a tuple of models.
        return
    yield texts, JSON, lambda stored: list_adapter(annotation).validate_json("[" + ",".join(stored) + "]")


def _same(decoded: list[Any], values: list[Any]) -> bool:
    """Whether what comes back is what went in. Values with a NaN inside equal nothing, but show the same."""
    return len(decoded) == len(values) and all(
        type(one) is type(other) and (one == other or repr(one) == repr(other))
        for one, other in zip(decoded, values, strict=True)
    )


def _spread(stored: list[Any], values: list[Any]) -> list[Any]:
    """Stored values at their rows, None where the value is None."""
    following = iter(stored)
    return [None if value is None else next(following) for value in values]
