"""Whether the arguments of a pool fit code for which they were not bound (`retry --udf`).

What is stored is passed on as it is. So a value that a changed annotation would have to convert is refused: to pass on
a text where the code now asks for a date would break what the annotation promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jobpool_cli.errors import InputError
from jobpool_cli.store.arguments.columns import BAD_CELLS_KEPT, BadCell, many_objects
from jobpool_cli.store.arguments.convert import describe, display_value, with_article
from jobpool_cli.store.arguments.decoding import ENCODING, JSON, NOT_GIVEN, OPTIONAL, TEXT, VALIDATE, decode_column
from jobpool_cli.store.arguments.names import match_names
from jobpool_cli.store.arguments.raw import ObjectColumn, RawArguments
from jobpool_cli.store.arguments.signature import Parameter, Signature
from jobpool_cli.store.arguments.stored import read_constants, read_stored
from jobpool_cli.store.values.buffers import null_positions

if TYPE_CHECKING:
    import pyarrow as pa

_HINT = "the arguments stay as they were submitted: let the function take them, or map anew"
# Columns that the annotation makes values of, each time they are read.
_MADE_BY_ANNOTATION = frozenset({JSON, VALIDATE, TEXT})


def check_stored(path: Path, signature: Signature, tasks: Sequence[int] | None = None) -> None:
    """Check that a pool's arguments fit other code than that for which they were bound.

    Args:
        path: the pool's args.parquet.
        signature: what the new code takes.
        tasks: the tasks that will run it; all by default.

    Raises:
        InputError: a name or a value does not fit.
    """
    table = read_stored(path, tasks)
    raw = RawArguments(table, textual=False, source="the pool", objects=_optional_columns(table))
    bad: list[tuple[str, BadCell]] = []
    n_bad = 0
    try:
        match_names(signature, raw, read_constants(path, table.schema, signature))
        for field in table.schema:
            parameter = signature.parameter(field.name)
            assert parameter is not None  # noqa: S101 - match_names refused the others
            with many_objects():
                cells, n_cells = _misfits(table.column(field.name), field, parameter)
            bad += [(field.name, cell) for cell in cells]
            n_bad += n_cells
    except InputError as error:
        raise InputError(error.message, _HINT) from error
    except ValueError as error:
        raise InputError(f"the pool's arguments do not fit {signature}: {error}", _HINT) from error
    if not bad:
        return
    bad.sort(key=lambda each: each[1].row)
    shown = [
        f"task {cell.row if tasks is None else tasks[cell.row]}, {name}: {cell.problem}"
        for name, cell in bad[:BAD_CELLS_KEPT]
    ]
    if n_bad > len(shown):
        shown.append(f"and {n_bad - len(shown):,} more")
    raise InputError("\n".join([f"the pool's arguments do not fit {signature}:", *shown]), _HINT)


def _optional_columns(table: pa.Table) -> dict[str, ObjectColumn]:
    """Which tasks give an argument, where not all do."""
    columns = {}
    for field in table.schema:
        if OPTIONAL in (field.metadata or {}):
            column = table.column(field.name).combine_chunks()
            missing = null_positions(column)
            if missing:
                columns[field.name] = ObjectColumn((), np.delete(np.arange(len(column)), missing))
    return columns


def _misfits(column: pa.ChunkedArray, field: pa.Field, parameter: Parameter) -> tuple[list[BadCell], int]:
    """The first values that do not fit the parameter as they are, and how many there are."""
    if (field.metadata or {}).get(ENCODING) in _MADE_BY_ANNOTATION:
        decode_column(column, field, parameter)
        return [], 0
    if not parameter.annotated:
        return [], 0
    from jobpool_cli.store.arguments.typedobjects import convert_values  # noqa: PLC0415 - pydantic

    values = decode_column(column, field)
    given = ObjectColumn(values)
    if OPTIONAL in (field.metadata or {}):
        rows = [row for row, value in enumerate(values) if value is not NOT_GIVEN]
        given = ObjectColumn([values[row] for row in rows], np.array(rows, np.int64))
    converted, bad, n_bad = convert_values(given, parameter)
    if bad or converted is given.values:
        return bad, n_bad
    changed = [
        position
        for position, (value, after) in enumerate(zip(given.values, converted, strict=True))
        if value is not after and not _serves(value, after)
    ]
    return [_changed_cell(given, position, parameter) for position in changed[:BAD_CELLS_KEPT]], len(changed)


def _changed_cell(given: ObjectColumn, position: int, parameter: Parameter) -> BadCell:
    value = given.values[position]
    stored = f"{display_value(value)} is stored as {with_article(type(value).__name__)}"
    return BadCell(given.row(position), f"{stored}, and {describe(parameter.annotation)} is needed")


def _serves(value: object, converted: object) -> bool:
    """Whether a value does where another type was asked for: an int where it is a float."""
    if isinstance(converted, Enum):
        return False
    try:
        return bool(value == converted) or bool(value != value and converted != converted)  # noqa: PLR0124 - NaN
    except Exception:  # noqa: BLE001 - the user's own __eq__ may raise anything
        return False
