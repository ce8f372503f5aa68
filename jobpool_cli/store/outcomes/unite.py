"""Arrow types that several batches have in common, and what pandas wants to know about a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from jobpool_cli.store.values.fitted import Spec


class IrreconcilableError(Exception):
    """Columns of one name have types that no column can hold; never seen outside this package."""


def unite_types(types: Sequence[pa.DataType]) -> pa.DataType:
    """The smallest type that holds values of all these.

    Raises:
        IrreconcilableError: there is none.
    """

    def unite(left: pa.DataType, right: pa.DataType) -> pa.DataType:
        united = _unite(left, right)
        if united is None:
            raise IrreconcilableError(f"it is {left} in some results and {right} in others")
        return united

    return reduce(unite, types, pa.null())


def _unite(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if left.equals(right) or pt.is_null(right):
        return left
    if pt.is_null(left):
        return right
    for both in (_unite_numbers, _unite_texts, _unite_times, _unite_nested):
        united = both(left, right)
        if united is not None:
            return united
    return None


def _unite_numbers(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """As NumPy and pandas promote them, but for unsigned beside signed integers: these never become floats."""
    if not all(pt.is_integer(one) or pt.is_floating(one) for one in (left, right)):
        return None
    if pt.is_integer(left) and pt.is_integer(right) and pa.uint64() in (left, right):
        return pa.int64() if pt.is_signed_integer(left) or pt.is_signed_integer(right) else pa.uint64()
    import numpy as np  # noqa: PLC0415 - beside the only use

    return pa.from_numpy_dtype(np.promote_types(left.to_pandas_dtype(), right.to_pandas_dtype()))


def _unite_texts(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if all(pt.is_string(one) or pt.is_large_string(one) for one in (left, right)):
        return pa.large_string()
    if all(pt.is_binary(one) or pt.is_large_binary(one) for one in (left, right)):
        return pa.large_binary()
    return None


UNITS = ("s", "ms", "us", "ns")


def _unite_times(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if pt.is_timestamp(left) and pt.is_timestamp(right) and (left.tz is None) == (right.tz is None):
        unit = max(left.unit, right.unit, key=UNITS.index)
        return pa.timestamp(unit, left.tz if left.tz == right.tz else "UTC")
    if pt.is_duration(left) and pt.is_duration(right):
        return pa.duration(max(left.unit, right.unit, key=UNITS.index))
    return None


def _unite_nested(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if all(pt.is_list(one) or pt.is_large_list(one) for one in (left, right)):
        inner = _unite(left.value_type, right.value_type)
        wide = pt.is_large_list(left) or pt.is_large_list(right)
        return None if inner is None else pa.large_list(inner) if wide else pa.list_(inner)
    if pt.is_struct(left) and pt.is_struct(right):
        fields = {field.name: field.type for field in left}
        for field in right:
            united = _unite(fields.get(field.name, pa.null()), field.type)
            if united is None:
                return None
            fields[field.name] = united
        return pa.struct(list(fields.items()))
    return None


def cast(column: pa.Array, target: pa.DataType) -> pa.Array:
    """The column as a type that :func:`unite_types` found.

    Raises:
        IrreconcilableError: a float would round one of the integers.
        pa.ArrowInvalid: a value is out of the type's range.
    """
    if column.type.equals(target):
        return column
    if pt.is_null(column.type):
        return pa.nulls(len(column), target)
    if pt.is_struct(target):
        fields = {field.name: number for number, field in enumerate(column.type)}
        children = [
            cast(column.field(fields[field.name]), field.type)
            if field.name in fields
            else pa.nulls(len(column), field.type)
            for field in target
        ]
        return pa.StructArray.from_arrays(children, fields=list(target), mask=column.is_null())
    if pt.is_list(target) or pt.is_large_list(target):
        wide = pa.large_list(column.type.value_type) if pt.is_large_list(target) else column.type
        column = column.cast(wide)
        offsets = pa.concat_arrays([column.offsets])
        values = cast(column.values, target.value_type)
        make = pa.LargeListArray if pt.is_large_list(target) else pa.ListArray
        return make.from_arrays(offsets, values, mask=column.is_null() if column.null_count else None)
    return _as_floats(column, target) if pt.is_floating(target) and pt.is_integer(column.type) else column.cast(target)


def _as_floats(column: pa.Array, target: pa.DataType) -> pa.Array:
    """Integers as floats, each of them exactly."""
    try:
        return column.cast(target)  # refuses all beyond 2**53 (or 2**24), also the powers of two among them
    except pa.ArrowInvalid as error:
        floats = column.cast(target, safe=False)
        try:
            if floats.cast(column.type).equals(column):
                return floats
        except pa.ArrowInvalid:
            pass
        raise IrreconcilableError(
            f"as {target}, as in other results, some of its whole numbers would be rounded"
        ) from error


# Column names that JSON, hence the metadata, keeps as they are.
JSON_LABELS = (str, int, type(None))


def json_label(label: object) -> object:
    """A column's name as the metadata has it: as text where JSON, or UTF-8, has no place for it."""
    if type(label) not in JSON_LABELS:
        label = str(label)
    return label.encode(errors="backslashreplace").decode() if isinstance(label, str) else label


def pandas_metadata(
    schema: pa.Schema, entries: Sequence[tuple[str, Any, Spec | None]], levels: int, labels: Spec
) -> bytes:
    """What pandas reads in a Parquet file's schema: which columns are the index, true names, dtypes.

    Args:
        schema: of the table.
        entries: field name, label in pandas and spec, for each column.
        levels: how many of the first columns are the index.
        labels: dtype and name of the columns' own index.
    """
    entries = [(name, json_label(label), spec) for name, label, spec in entries]
    columns = [
        {
            "name": label,
            "field_name": name,
            "pandas_type": _pandas_type(schema.field(name).type),
            "numpy_type": _numpy_type(schema.field(name).type, spec),
            "metadata": None,
        }
        for name, label, spec in entries
    ]
    whole = all(type(label) is int for _, label, _ in entries[levels:]) and len(entries) > levels
    kind = ("int64", "int64") if whole else ("unicode", "str" if labels["dtype"] == "str" else "object")
    document = {
        "index_columns": [name for name, _, _ in entries[:levels]],
        "column_indexes": [
            {
                "name": labels["name"],
                "field_name": labels["name"],
                "pandas_type": kind[0],
                "numpy_type": kind[1],
                "metadata": None if whole else {"encoding": "UTF-8"},
            }
        ],
        "columns": columns,
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    return json.dumps(document).encode()


def _pandas_type(arrow_type: pa.DataType) -> str:
    if pt.is_string(arrow_type) or pt.is_large_string(arrow_type):
        return "unicode"
    if pt.is_binary(arrow_type) or pt.is_large_binary(arrow_type):
        return "bytes"
    if pt.is_timestamp(arrow_type):
        return "datetimetz" if arrow_type.tz else "datetime"
    if pt.is_dictionary(arrow_type):
        return "categorical"
    if pt.is_floating(arrow_type) or pt.is_integer(arrow_type) or pt.is_boolean(arrow_type):
        return {"double": "float64", "float": "float32", "halffloat": "float16"}.get(str(arrow_type), str(arrow_type))
    return "object"


def _numpy_type(arrow_type: pa.DataType, spec: Spec | None) -> str:
    # Only names of extension dtypes make a difference to readers, and only where no batch disagreed.
    if spec and spec["kind"] == "pandas" and "datetime64" not in spec["dtype"]:
        return str(spec["dtype"])
    if _pandas_type(arrow_type) == "unicode":
        return "str"
    return _pandas_type(arrow_type) if pt.is_primitive(arrow_type) and not pt.is_temporal(arrow_type) else "object"
