"""Columns to parameters: names are matched and every value is converted before anything starts.

A pool of a million tasks must not find out at row 900,000 that a date is not a date. Columns of plain types are
converted whole, by Arrow; whatever Arrow's rules do not clearly accept gets pydantic's word (lax mode), so that what
is accepted, and as which value, is pydantic's throughout.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobpool_cli.errors import InputError, MachineError
from jobpool_cli.store import durable
from jobpool_cli.store.arguments.columns import (
    BadCell,
    Converted,
    encode_column,
    json_exact,
    many_objects,
    pickle_array,
)
from jobpool_cli.store.arguments.inputs import RawArguments
from jobpool_cli.store.arguments.signature import Parameter, Signature
from jobpool_cli.store.arguments.stored import (
    CONSTANTS,
    ENCODING,
    JSON,
    PICKLE,
    ROWS,
    TEXT,
    VALIDATE,
    decode_column,
    read_constants,
    read_stored,
)
from jobpool_cli.store.arguments.textcells import infer_column

__all__ = ["BoundArguments", "Parameter", "Signature", "bind", "check_stored", "write_arguments"]

# Few enough row groups to scan quickly, small enough ones that a worker holds two of them gladly.
ROW_GROUP_SIZE = 65_536
_BAD_CELLS_SHOWN = 5
_SAMPLE_ROWS = 1000
_STORED_HINT = "the arguments stay as they were submitted: let the function take them, or map anew"


@dataclass(frozen=True)
class BoundArguments:
    """Arguments ready to be stored: every value fits its parameter.

    Attributes:
        table: a column per argument in the order of the file, in the form in which it is stored.
        constants: values that are the same for every task, converted.
    """

    table: pa.Table
    constants: dict[str, object]

    @property
    def n_rows(self) -> int:
        """Tasks that this makes."""
        return int(self.table.num_rows)


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
    _match_names(signature, raw, constants)
    fields: list[pa.Field] = []
    arrays: list[pa.ChunkedArray] = []
    bad: list[tuple[str, BadCell]] = []
    n_bad = 0
    for field in raw.table.schema:
        parameter = signature.parameter(field.name)
        assert parameter is not None  # noqa: S101 - _match_names refused the others
        with many_objects():
            converted = _convert(raw.table.column(field.name), field, parameter, textual=raw.textual)
        bad += [(field.name, cell) for cell in converted.bad]
        n_bad += converted.n_bad
        fields.append(converted.field)
        arrays.append(converted.column)
    if bad:
        raise _bad_cells(signature, raw, bad, n_bad)
    values: dict[str, object] = {}
    stored: dict[str, list[str] | list[object]] = {}
    for name, value in constants.items():
        values[name], stored[name] = _constant(signature, name, value, textual=textual_constants)
    metadata = {ROWS: str(raw.table.num_rows).encode(), CONSTANTS: json.dumps(stored).encode()}
    if not fields:
        return BoundArguments(raw.table.replace_schema_metadata(metadata), values)
    return BoundArguments(pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata)), values)


def write_arguments(bound: BoundArguments, path: Path) -> None:
    """Write args.parquet: private, synced.

    Raises:
        MachineError: the disk refused.
    """
    try:
        with open(durable.open_new(path), "wb") as file:
            pq.write_table(
                bound.table, file, row_group_size=ROW_GROUP_SIZE, compression="zstd", **_encodings(bound.table)
            )
        durable.sync_file(path)
    except pa.ArrowNotImplementedError as error:
        raise InputError(f"the arguments hold a type that Parquet does not: {error}") from error
    except OSError as error:
        raise MachineError(
            f"{path} cannot be written: {error.strerror or error}", "free some space, or set --home"
        ) from error


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


def check_stored(path: Path, signature: Signature, tasks: Sequence[int] | None = None) -> None:
    """Check that a pool's arguments fit other code than that for which they were bound (`retry --udf`).

    Args:
        path: the pool's args.parquet.
        signature: what the new code takes.
        tasks: the tasks that will run it; all by default.

    Raises:
        InputError: a name or a value does not fit.
    """
    table = read_stored(path, tasks)
    raw = RawArguments(table, textual=False, source="the pool")
    try:
        _match_names(signature, raw, read_constants(table.schema))
        read_constants(table.schema, signature)
        for field in table.schema:
            # What is stored plainly is passed on plainly; only what the annotation takes part in can fail.
            if (field.metadata or {}).get(ENCODING) in {JSON, VALIDATE, TEXT}:
                decode_column(table.column(field.name), field, signature.parameter(field.name))
    except InputError as error:
        raise InputError(error.message, _STORED_HINT) from error
    except ValueError as error:
        raise InputError(f"the pool's arguments do not fit {signature}: {error}", _STORED_HINT) from error


def _match_names(signature: Signature, raw: RawArguments, constants: Mapping[str, object]) -> None:
    """Every column and constant has a parameter, every required parameter has one of them."""
    columns = raw.table.column_names
    names = [each.name for each in signature.parameters]
    both = [name for name in constants if name in columns]
    if both:
        raise InputError(
            f"{both[0]} is both a column of {raw.source} and a constant",
            f"drop the column, or leave out the constant {both[0]}",
        )
    for name in constants:
        if signature.parameter(name) is None:
            raise InputError(f"{signature} has no parameter {name} for that constant", _close(name, names))
    unknown = [name for name in columns if signature.parameter(name) is None]
    missing = [
        each.name
        for each in signature.parameters
        if each.required and each.name not in columns and each.name not in constants
    ]
    # An empty file of JSON Lines is a table of no rows, and says nothing of its columns.
    if missing and (raw.textual or raw.table.num_rows or columns):
        listed = ", ".join(missing)
        message = f"{raw.source} has no column {listed}, which {signature} needs"
        near = {name: difflib.get_close_matches(name, unknown, n=1) for name in missing}
        guesses = [f"rename the column {found[0]!r} to {name}" for name, found in near.items() if found]
        hint = "; ".join(guesses) or f"add the column, or give one value for all rows: --set {missing[0]}=VALUE"
        if not guesses and unknown:
            message += f" (its columns: {', '.join(columns)})"
        raise InputError(message, hint)
    if unknown:
        listed = ", ".join(unknown)
        noun = "a column" if len(unknown) == 1 else "columns"
        guess = _close(unknown[0], [name for name in names if name not in columns], otherwise="")
        hint = (
            f"drop {'it' if len(unknown) == 1 else 'them'}, or let {signature.function} accept any name with **kwargs"
        )
        raise InputError(f"{raw.source} has {noun} that {signature} does not take: {listed}", f"{guess} {hint}".strip())


def _close(name: str, names: Sequence[str], otherwise: str | None = None) -> str:
    found = difflib.get_close_matches(name, names, n=1)
    if found:
        return f"did you mean {found[0]}?"
    return f"its parameters: {', '.join(names) or 'none'}" if otherwise is None else otherwise


def _convert(column: pa.ChunkedArray, field: pa.Field, parameter: Parameter, *, textual: bool) -> Converted:
    """One column, by what it holds and what it is for."""
    if parameter.annotated:
        # pydantic: a pool whose function has no annotations does without.
        from jobpool_cli.store.arguments.typedcells import convert_text_column, convert_value_column  # noqa: PLC0415

        if textual:
            return convert_text_column(column, field, parameter)
        return convert_value_column(column, field, parameter)
    if textual:
        inferred = infer_column(column)
        return Converted(pa.field(field.name, inferred.type), inferred)
    return _plain_column(column, field)


def _plain_column(column: pa.ChunkedArray, field: pa.Field) -> Converted:
    """A column without annotation from Parquet or JSON: the values as they are."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    elif pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Python's datetime ends at microseconds; finer values stay, and come out as pandas' Timestamp.
        with contextlib.suppress(pa.ArrowInvalid):
            column = column.cast(pa.timestamp("us", tz=kind.tz))
    return Converted(field.with_type(column.type), column)


def _constant(
    signature: Signature, name: str, value: object, *, textual: bool
) -> tuple[object, list[str] | list[object]]:
    """A constant's converted value, and how it is stored: [encoding, value]."""
    parameter = signature.parameter(name)
    assert parameter is not None  # noqa: S101 - _match_names refused the others
    text = value if textual and isinstance(value, str) else None
    converted = _convert_constant(parameter, value, text)
    if json_exact([converted]) and not (isinstance(converted, float) and not math.isfinite(converted)):
        return converted, ["", converted]
    if text is not None and parameter.annotated:
        return converted, [TEXT.decode(), text]
    field, array = encode_column(name, [converted])
    encoding = (field.metadata or {}).get(ENCODING)
    if encoding == JSON:
        return converted, [JSON.decode(), array[0].as_py()]
    if encoding is None:
        # Plain for Arrow, not for JSON: a date, bytes.
        array = pickle_array(name, [converted])
    return converted, [PICKLE.decode(), array[0].as_py().hex()]


def _convert_constant(parameter: Parameter, value: object, text: str | None) -> object:
    if not parameter.annotated:
        return infer_column(pa.chunked_array([[text]], pa.string())).to_pylist()[0] if text is not None else value
    from jobpool_cli.store.arguments.convert import describe, reason, text_converter, value_converter  # noqa: PLC0415
    from jobpool_cli.store.arguments.typedcells import missing_value  # noqa: PLC0415

    if value is None or text == "":
        allowed, missing = missing_value(parameter, textual=text is not None)
        if allowed:
            return missing
    try:
        return (value_converter if text is None else text_converter)(parameter.annotation)(value)
    except ValueError as error:
        raise InputError(
            f"the constant {parameter.name}: {value!r} is not {describe(parameter.annotation)}: {reason(error)}"
        ) from None


def _bad_cells(signature: Signature, raw: RawArguments, bad: list[tuple[str, BadCell]], n_bad: int) -> InputError:
    """One message for the first cells that do not fit, in the order of the file, and the number of the others."""
    bad.sort(key=lambda each: each[1].row)
    shown = bad[:_BAD_CELLS_SHOWN]
    lines = raw.lines_of([cell.row for _, cell in shown])
    texts = []
    for (column, cell), line in zip(shown, lines, strict=True):
        place = f"line {line}" if line is not None else f"row {cell.row + 1}"
        texts.append(f"{raw.source} {place}, column {column}: {cell.problem}")
    if n_bad > len(shown):
        texts.append(f"and {n_bad - len(shown):,} more")
    hint = "nothing was started; correct the cells, or change the annotation"
    column, first = shown[0]
    if first.missing:
        parameter = signature.parameter(column)
        assert parameter is not None  # noqa: S101
        from jobpool_cli.store.arguments.convert import display  # noqa: PLC0415

        annotation = display(parameter.annotation)
        hint = f"fill the cell, or let {signature.function} take missing values: {column}: {annotation} | None"
    return InputError("\n".join(texts), hint)
