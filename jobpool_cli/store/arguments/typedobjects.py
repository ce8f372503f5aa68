"""Python values to an annotation, by pydantic's lax mode.

What already is what the annotation asks for is passed on as it is: pydantic would make a plain ``dict`` of a
``defaultdict``, and a reader of its own of a list that is annotated ``Iterable``. Only what it changes is changed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np

from jobpool_cli.store.arguments.columns import BAD_CELLS_KEPT, BadCell
from jobpool_cli.store.arguments.convert import (
    bare,
    describe,
    display_value,
    is_optional,
    list_adapter,
    members,
    only_member,
    reason,
    value_converter,
)
from jobpool_cli.store.arguments.raw import ObjectColumn
from jobpool_cli.store.arguments.signature import Parameter

# Values of exactly these types need no look from pydantic.
_PLAIN = (int, float, bool, str, bytes, date, datetime, time, timedelta)
_NOT_A_NUMBER = (float, complex, np.floating)
# What pandas writes where there is nothing; by name, so that pandas is not imported for it.
_PANDAS_MISSING = frozenset({"NaTType", "NAType"})
# pydantic describes every error of a list that it validates: by the piece, a column of nonsense stays small.
_PIECE = 10_000


def convert_values(column: ObjectColumn, parameter: Parameter) -> tuple[Sequence[Any], list[BadCell], int]:
    """Convert values.

    Returns:
        The values as the annotation has them, the first cells that do not fit, and how many do not.
    """
    values = column.values
    kinds = set(map(type, values))
    plain = only_member(parameter.annotation)
    if plain in _PLAIN:
        if is_optional(parameter.annotation):
            kinds.discard(type(None))
        if kinds <= {plain}:
            return values, [], 0
        if plain is float and kinds <= {int, float}:
            # An int past the largest float is pydantic's to refuse.
            with contextlib.suppress(OverflowError):
                return [float(value) for value in values], [], 0
    return _by_pydantic(column, parameter)


def _by_pydantic(column: ObjectColumn, parameter: Parameter) -> tuple[list[Any], list[BadCell], int]:
    """Have pydantic convert values, a piece at a time: all at once, or one by one where that fails."""
    convert = Converter(parameter)
    validate = list_adapter(parameter.annotation).validate_python
    results: list[Any] = []
    bad: list[BadCell] = []
    n_bad = 0
    for start in range(0, len(column.values), _PIECE):
        piece = list(column.values[start : start + _PIECE])
        if not convert.needs_care(piece):
            # A validator of the user's may raise anything, and does so again below, for the very value.
            with contextlib.suppress(Exception):
                results += map(kept, piece, validate(piece))
                continue
        for position, value in enumerate(piece, start=start):
            try:
                results.append(convert(value))
            except Exception as error:  # noqa: BLE001 - as above
                results.append(None)
                n_bad += 1
                if len(bad) < BAD_CELLS_KEPT:
                    bad.append(convert.bad_cell(column.row(position), value, error))
    return results, bad, n_bad


class Converter:
    """Converts one value at a time to an annotation."""

    def __init__(self, parameter: Parameter) -> None:
        """Make ready for a parameter, which has an annotation."""
        annotation = parameter.annotation
        self._annotation = annotation
        self._convert = value_converter(annotation)
        self._optional = is_optional(annotation)
        kinds = [each for each in map(bare, members(bare(annotation))) if isinstance(each, type)]
        self._takes_nan = any(issubclass(each, _NOT_A_NUMBER) for each in kinds)
        # pydantic takes NaN for the text "nan", and NaT, whose class is a datetime, for a moment.
        self._misled = not self._takes_nan and any(each is str or issubclass(each, date) for each in kinds)

    def needs_care(self, values: Sequence[Any]) -> bool:
        """Whether pydantic may not see these values: it would take a missing one for a value."""
        return self._misled and any(map(is_missing, values))

    def __call__(self, value: object) -> Any:
        """The converted value; whatever pydantic or a validator of the user's raises."""
        missing = not self._takes_nan and is_missing(value)
        if missing and self._misled:
            if not self._optional:
                raise ValueError
            return None
        try:
            return kept(value, self._convert(value))
        except ValueError:
            if missing and self._optional:
                return None
            raise

    def bad_cell(self, row: int, value: object, error: Exception) -> BadCell:
        """What to say of a value that was refused."""
        wanted = describe(self._annotation)
        if value is None or (is_missing(value) and not self._takes_nan):
            return BadCell(row, f"the value is missing, and {wanted} is needed", missing=True)
        problem = f"{display_value(value)} is not {wanted}"
        if only_member(self._annotation) in _PLAIN[:4] and isinstance(value, str):
            return BadCell(row, problem)
        why = reason(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return BadCell(row, f"{problem}: {why}")


def is_missing(value: object) -> bool:
    """Whether it is what pandas writes where there is nothing; None is a value like others."""
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return type(value).__name__ in _PANDAS_MISSING


def kept(value: Any, converted: Any) -> Any:
    """The value itself where pydantic only copied it or made its base class of it, else what pydantic made of it."""
    if value is converted or type(converted).__name__ == "ValidatorIterator":
        return value
    try:
        return value if _is_copy(value, converted) else converted
    except Exception:  # noqa: BLE001 - the user's own __eq__ may raise anything
        return converted


def _is_copy(value: Any, converted: Any) -> bool:
    """Whether nothing but classes was lost: the same parts, each of a type that is or was a subclass."""
    if value is converted:
        return True
    if not isinstance(value, type(converted)):
        return False
    if isinstance(converted, Mapping):
        return len(value) == len(converted) and all(
            key in value and _is_copy(value[key], part) for key, part in converted.items()
        )
    if isinstance(converted, list | tuple):
        return len(value) == len(converted) and all(map(_is_copy, value, converted))
    # NaN equals nothing, itself included.
    return bool(value == converted) or bool(value != value and converted != converted)  # noqa: PLR0124
