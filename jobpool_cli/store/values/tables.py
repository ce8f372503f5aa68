"""Arrow tables and Polars DataFrames as Arrow columns: each table is the list of its rows."""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from jobpool_cli.store.values.buffers import (
    bounds,
    filled,
    lengths_of,
    lists,
    null_positions,
    presence,
    survives_parquet,
)
from jobpool_cli.store.values.fitted import Fitted, Spec, nothing_fits, without


def fit_tables(values: list[Any], depth: int, kind: str) -> Fitted:
    """A column of Arrow tables (kind ``table``) or Polars DataFrames (kind ``polars``) of one schema."""
    if depth:
        return nothing_fits(values)
    schemas = [None if value is None else _schema_text(value) for value in values]
    counts = Counter(schema for schema in schemas if schema is not None)
    if not counts:
        return nothing_fits(values)
    schema = counts.most_common(1)[0][0]
    misfits = [
        position
        for position, (value, own) in enumerate(zip(values, schemas, strict=True))
        if value is not None and own != schema
    ]
    kept = without(values, misfits)
    present = [value for value in kept if value is not None]
    joined = pa.concat_tables(present) if kind == "table" else _polars_to_arrow(present)
    names = joined.schema.names
    if not names or len(set(names)) < len(names) or not all(is_storable(field.type) for field in joined.schema):
        return nothing_fits(values)
    try:
        columns = [single(column) for column in joined.columns]
        rows = rows_of(columns, names)
    except pa.ArrowException:  # more than an Arrow array can hold
        return nothing_fits(values)
    lengths = lengths_of(filled(kept, ()), len(kept))
    spec = {"kind": kind, "schema": base64.b64encode(joined.schema.serialize()).decode()}
    exact = kind == "table" or _polars_of(joined).schema == present[0].schema
    if not exact or not all(map(survives_parquet, columns)):
        return nothing_fits(values)
    return Fitted(lists(lengths, rows, presence(kept)), spec, misfits)


def restore_tables(array: pa.Array, spec: Spec) -> list[Any]:
    """The tables of a column."""
    schema = schema_of(spec)
    flat = array.flatten()
    columns = [flat.field(number).cast(field.type) for number, field in enumerate(schema)]
    table = pa.Table.from_arrays(columns, schema=schema)
    joined = table if spec["kind"] == "table" else _polars_of(table)
    tables = [joined.slice(start, end - start) for start, end in zip(*bounds(array), strict=True)]
    for position in null_positions(array):
        tables[position] = None
    return tables


def schema_of(spec: Spec) -> pa.Schema:
    """The schema of the tables in a column."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(spec["schema"])))


def rows_of(columns: list[pa.Array], names: list[str]) -> pa.Array:
    """Columns as one column of rows.

    Raises:
        pa.ArrowInvalid: there are no columns, or two of one name; Parquet holds neither.
    """
    if not names or len(set(names)) < len(names) or any("\0" in name for name in names):
        raise pa.ArrowInvalid("a struct needs fields of different names")
    return pa.StructArray.from_arrays(columns, names)


def single(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column in one piece.

    Raises:
        pa.ArrowInvalid: it holds more than one array can.
    """
    if not isinstance(column, pa.ChunkedArray):
        return column
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        if whole.num_chunks != 1:
            raise pa.ArrowInvalid("too much for one array")
        return whole.chunk(0)
    return whole


PLAIN = (
    pt.is_boolean,
    pt.is_integer,
    pt.is_floating,
    pt.is_decimal128,
    pt.is_string,
    pt.is_large_string,
    pt.is_binary,
    pt.is_large_binary,
    pt.is_fixed_size_binary,
    pt.is_date32,
    pt.is_time,
    pt.is_timestamp,
    pt.is_duration,
    pt.is_null,
)


def is_storable(arrow_type: pa.DataType) -> bool:
    """Whether Parquet gives a nested column of this type back as it was."""
    inner: list[pa.DataType] = []
    if pt.is_list(arrow_type) or pt.is_large_list(arrow_type):
        inner = [arrow_type.value_type]
    elif pt.is_struct(arrow_type):
        inner = [field.type for field in arrow_type]
    if inner:
        # Seconds may not fit (see survives_parquet), and are not looked for at depth.
        return all(is_storable(one) and one != pa.timestamp("s", getattr(one, "tz", None)) for one in inner)
    return any(check(arrow_type) for check in PLAIN)


def _schema_text(value: Any) -> object:
    if isinstance(value, pa.Table):
        return value.schema.serialize().to_pybytes()
    return tuple(value.schema.items())


def _polars_to_arrow(frames: list[Any]) -> pa.Table:
    import polars as pl  # noqa: PLC0415

    # Views and other new layouts are more than Parquet readers know.
    return pl.concat(frames).to_arrow(compat_level=pl.CompatLevel.oldest())


def _polars_of(table: pa.Table) -> Any:
    import polars as pl  # noqa: PLC0415

    return pl.from_arrow(table)
