"""Columns to parameters: names are matched and every value is converted before anything starts.

A pool of a million tasks must not find out at row 900,000 that a date is not a date. Columns of plain types are
converted whole, by Arrow; whatever Arrow's rules do not clearly accept gets pydantic's word (lax mode), so that what
is accepted, and as which value, is pydantic's throughout.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobpool_cli.errors import InputError, refused
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.arguments.columns import BadCell, Converted, many_objects
from jobpool_cli.store.arguments.constants import BoundConstants, bind_constants
from jobpool_cli.store.arguments.decoding import (
    CONSTANTS,
    DTYPE,
    FORM,
    ROWS,
    VALUES_FORM,
)
from jobpool_cli.store.arguments.names import match_names
from jobpool_cli.store.arguments.objects import convert_objects
from jobpool_cli.store.arguments.raw import Form, RawArguments
from jobpool_cli.store.arguments.signature import Parameter, Signature
from jobpool_cli.store.arguments.textcells import infer_column
from jobpool_cli.store.values.pickles import pickled

__all__ = ["BoundArguments", "Parameter", "Signature", "bind", "write_arguments"]

# Few enough row groups to scan quickly, small enough ones that a worker holds two of them gladly.
ROW_GROUP_SIZE = 65_536
_BAD_CELLS_SHOWN = 5
_SAMPLE_ROWS = 1000
# A type with categories holds all of them.
_LARGEST_DTYPE = 1 << 20


@dataclass(frozen=True)
class BoundArguments:
    """Arguments ready to be stored: every value fits its parameter.

    Attributes:
        table: a column per argument in the order of the file, in the form in which it is stored.
        n_rows: tasks that this makes; a table without columns forgets them.
        bound_constants: values that are the same for every task.
    """

    table: pa.Table
    n_rows: int
    bound_constants: BoundConstants

    @property
    def constants(self) -> dict[str, object]:
        """The values that are the same for every task, converted."""
        return self.bound_constants.values


def bind(
    signature: Signature,
    raw: RawArguments,
    constants: Mapping[str, str] | Mapping[str, object],
    *,
    textual_constants: bool = True,
) -> BoundArguments:
    """Match columns and constants with the function's parameters, and convert every value.

    Args:
        signature: what the function takes.
        raw: the user's table.
        constants: values for every task.
        textual_constants: constants that are strings are text as from the command line, and an unannotated ``"5"`` is
            the number; False where they are Python values.

    Raises:
        InputError: a name or a value does not fit; nothing is stored.
    """
    match_names(signature, raw, constants)
    fields: list[pa.Field] = []
    arrays: list[pa.ChunkedArray] = []
    bad: list[tuple[str, BadCell]] = []
    n_bad = 0
    for field in raw.table.schema:
        parameter = signature.parameter(field.name)
        assert parameter is not None  # noqa: S101 - match_names refused the others
        with many_objects():
            if field.name in raw.objects:
                converted = convert_objects(raw.objects[field.name], field.name, parameter, raw.table.num_rows)
            else:
                converted = _convert(raw, field, parameter)
        bad += [(field.name, cell) for cell in converted.bad]
        n_bad += converted.n_bad
        fields.append(_with_dtype(converted.field, field, raw.dtypes.get(field.name), parameter))
        arrays.append(converted.column)
    if bad:
        raise _bad_cells(signature, raw, bad, n_bad)
    bound = bind_constants(signature, constants, textual=textual_constants)
    metadata = {ROWS: str(raw.table.num_rows).encode(), CONSTANTS: bound.metadata()}
    if raw.form is Form.VALUES:
        metadata[FORM] = VALUES_FORM
    if not fields:
        return BoundArguments(raw.table.replace_schema_metadata(metadata), raw.table.num_rows, bound)
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata))
    return BoundArguments(table, raw.table.num_rows, bound)


def write_arguments(bound: BoundArguments, path: Path) -> None:
    """Write args.parquet: private, synced.

    Raises:
        MachineError: the disk refused.
    """
    try:
        with open(durable.open_new(path), "wb") as file:
            pq.write_table(
                bound.table,
                file,
                row_group_size=ROW_GROUP_SIZE,
                compression="zstd",
                write_page_checksum=True,
                **_encodings(bound.table),
            )
        durable.sync_file(path)
        bound.bound_constants.write(PoolPaths(path.parent).constants)
    except pa.ArrowNotImplementedError as error:
        raise InputError(f"the arguments hold a type that Parquet does not: {error}") from error
    except OSError as error:
        raise refused(error, f"{path} cannot be written", "choose another place: --home") from error


def _encodings(table: pa.Table) -> dict[str, Any]:
    """Choose encodings: Parquet's own way tries a dictionary of every column, which takes most of the time.

    Numbers of rows and the like become a byte or less in differences; a dictionary is for texts that repeat.
    """
    schema = table.schema
    whole = {field.name: "DELTA_BINARY_PACKED" for field in schema if pa.types.is_integer(field.type)}
    repeating = [field.name for field in schema if pa.types.is_string(field.type) and _repeats(table[field.name])]
    return {"use_dictionary": repeating, "column_encoding": whole}


def _repeats(column: pa.ChunkedArray) -> bool:
    sample = column.slice(0, _SAMPLE_ROWS)
    return len(sample.unique()) * 2 <= len(sample)


def _convert(raw: RawArguments, field: pa.Field, parameter: Parameter) -> Converted:
    """One column, by what it holds and what it is for."""
    column = raw.table.column(field.name)
    if parameter.annotated:
        # pydantic: a pool whose function has no annotations does without.
        from jobpool_cli.store.arguments.typedcells import convert_text_column, convert_value_column  # noqa: PLC0415

        if raw.textual:
            return convert_text_column(column, field, parameter)
        return convert_value_column(column, field, parameter)
    if raw.textual:
        inferred = infer_column(column)
        return Converted(pa.field(field.name, inferred.type), inferred)
    return _plain_column(column, field, from_file=raw.form is Form.FILE)


def _with_dtype(field: pa.Field, given: pa.Field, dtype: object, parameter: Parameter) -> pa.Field:
    """Note pandas' type of a column, so that a DataFrame comes back as it was; not where the annotation changed it."""
    if dtype is None or (parameter.annotated and field.type != given.type):
        return field
    try:
        data = pickled(dtype)
    except Exception:  # noqa: BLE001 - a type of the user's own; then the column has the type of its values
        return field
    if len(data) > _LARGEST_DTYPE:
        return field
    return field.with_metadata({**(field.metadata or {}), DTYPE: base64.b64encode(data)})


def _plain_column(column: pa.ChunkedArray, field: pa.Field, *, from_file: bool) -> Converted:
    """A column without annotation: the values as they are."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    elif from_file and pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Python's datetime ends at microseconds; finer values come out as pandas' Timestamp. A file has that unit
        # because its writer had no other; who gives it in Python has Timestamps.
        with contextlib.suppress(pa.ArrowInvalid):
            column = column.cast(pa.timestamp("us", tz=kind.tz))
    return Converted(field.with_type(column.type), column)


def _bad_cells(signature: Signature, raw: RawArguments, bad: list[tuple[str, BadCell]], n_bad: int) -> InputError:
    """One message for the first cells that do not fit, in the order of the file, and the number of the others."""
    bad.sort(key=lambda each: each[1].row)
    shown = bad[:_BAD_CELLS_SHOWN]
    places = raw.places([(cell.row, column) for column, cell in shown])
    texts = [f"{place}: {cell.problem}" for place, (_, cell) in zip(places, shown, strict=True)]
    if n_bad > len(shown):
        texts.append(f"and {n_bad - len(shown):,} more")
    cells = "cells" if raw.form in {Form.FILE, Form.TABLE} else "values"
    hint = f"nothing was started; correct the {cells}, or change the annotation"
    column, first = shown[0]
    if first.unstorable:
        hint = "pass what it is made from (a path, an identifier), and make the object in the function"
    if first.missing:
        parameter = signature.parameter(column)
        assert parameter is not None  # noqa: S101
        from jobpool_cli.store.arguments.convert import display  # noqa: PLC0415

        annotation = display(parameter.annotation)
        verb = "fill the cell" if cells == "cells" else "give a value"
        hint = f"{verb}, or let {signature.function} take missing values: {column}: {annotation} | None"
    return InputError("\n".join(texts), hint)
