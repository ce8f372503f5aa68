"""Columns that hold the results of many batches, and the collected table that they make.

A column stays in Arrow wherever one type holds the values of all batches as they are. Where none does it becomes JSON
text in Arrow, and Python objects in pandas; nothing is refused, and nothing rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from jobpool_cli.store.outcomes.geoparquet import geoparquet_metadata
from jobpool_cli.store.outcomes.unite import (
    IrreconcilableError,
    cast,
    pandas_metadata,
    unite_types,
)
from jobpool_cli.store.values.buffers import Numbers, fixed_width, presence, texts
from jobpool_cli.store.values.codec import restore_values
from jobpool_cli.store.values.fitted import Spec
from jobpool_cli.store.values.frames import levels_of, restore_column
from jobpool_cli.store.values.geometry import KIND, WKB, geo_of, has_geopandas, restore_geometries
from jobpool_cli.store.values.jsonable import json_text
from jobpool_cli.store.values.tables import single

if TYPE_CHECKING:
    import pandas as pd

# Beyond, not all whole numbers are floats.
LARGEST_EXACT = 2**53

# A field with this metadata holds JSON text, as fields of the arguments do.
JSON_TEXT = {b"jobpool.encoding": b"json"}


@dataclass(frozen=True)
class Level:
    """One level of the index, or one column of data.

    Attributes:
        label: its name in pandas.
        column: its values; None where no type holds them all, which makes it JSON text.
        spec: how to restore them; None for those that are what they look like.
        objects: what pandas is to have in its place, where that is not what it would make of the column.
        why: why there is no column.
        note: what else to say about it.
    """

    label: Any
    column: pa.Array | pa.ChunkedArray | None
    spec: Spec | None = None
    objects: Callable[[], Any] | None = None
    why: str = ""
    note: str = ""


class Collected:
    """The collected table, to be had as pandas or as Arrow.

    Attributes:
        n_rows: rows of the table.
        notes: what to tell whoever collects: results left out, columns renamed.
        text_notes: which columns `to_arrow` has as JSON text, and why.
    """

    def __init__(
        self, levels: Sequence[Level], data: Sequence[Level], rows: int, labels: Spec, active: Level | None = None
    ) -> None:
        """Take the levels of the index and the columns of data, and the nature of the columns' own index.

        With ``active``, one of the columns of data, it is the table of a GeoDataFrame with this active geometry.
        """
        self.n_rows = rows
        self._labels = labels
        self._entries = [*levels, *data]
        self._depth = len(levels)
        names, self.notes = _names(levels, data)
        self.text_notes = [
            f"column {name!r} is written as JSON text: {entry.why}"
            for name, entry in zip(names, self._entries, strict=True)
            if entry.column is None
        ]
        self.notes += [entry.note for entry in self._entries if entry.note]
        columns = [_stored(entry, rows) for entry in self._entries]
        # Text is filled in when somebody wants it: it takes long, and pandas does without.
        self._table = pa.Table.from_arrays(
            columns,
            schema=pa.schema(
                pa.field(name, column.type, metadata=WKB if _has_geometries(entry) else None)
                for name, column, entry in zip(names, columns, self._entries, strict=True)
            ),
        )
        described = [(name, entry.label, entry.spec) for name, entry in zip(names, self._entries, strict=True)]
        metadata: dict[bytes, bytes] = {b"pandas": pandas_metadata(self._table.schema, described, len(levels), labels)}
        self._geo = active if _has_geometries(active) else None
        geometries = {
            name: entry.spec["crs"]
            for name, entry in zip(names, self._entries, strict=True)
            if entry.spec and _has_geometries(entry)
        }
        if geometries and not has_geopandas():
            self.notes.append(f"geopandas is not installed here: column {next(iter(geometries))!r} holds WKB")
        elif self._geo:
            primary = names[next(number for number, entry in enumerate(self._entries) if entry is active)]
            metadata[b"geo"] = geoparquet_metadata(primary, geometries)
        self._table = self._table.replace_schema_metadata(metadata)
        self._filled: pa.Table | None = None

    @property
    def warnings(self) -> list[str]:
        """All that there is to tell."""
        return [*self.notes, *self.text_notes]

    def to_arrow(self) -> pa.Table:
        """Index levels, then data, as plain columns; ``pd.read_parquet`` of it gives the frame of `to_pandas`.

        Columns whose values have no common type hold JSON text, and their fields say so.
        """
        if self._filled is None:
            table = self._table
            for number, entry in enumerate(self._entries):
                if entry.column is None:
                    field = pa.field(table.schema.names[number], pa.string(), metadata=JSON_TEXT)
                    column = _json_column(_python_values(entry, self.n_rows))
                    table = table.set_column(number, field.with_type(column.type), column)
            self._filled = table
        return self._filled

    def to_pandas(self) -> pd.DataFrame:
        """The table as a DataFrame; the index holds the arguments, or the tasks' positions."""
        import pandas as pd  # noqa: PLC0415

        table = self._table
        for number, entry in enumerate(self._entries):
            if entry.objects is not None or _has_geometries(entry) or _is_object_column(entry):
                # Replaced below: what pyarrow would make of a million structs takes long.
                field = table.schema.field(number)
                table = table.set_column(number, field, pa.nulls(self.n_rows, field.type))
        frame: pd.DataFrame = table.to_pandas()
        levels = levels_of(frame.index)
        odd = False
        for number, entry in enumerate(self._entries):
            if entry.objects is not None:
                values = _pandas_column(entry.objects(), self.n_rows)
            elif entry.spec and _has_geometries(entry):
                values = restore_geometries(single(entry.column), entry.spec)
            elif _is_object_column(entry) or _rounded_by_pandas(entry):
                values = _pandas_column(_python_values(entry, self.n_rows), self.n_rows)
            else:
                continue
            if number < self._depth:
                levels[number] = pd.Index(values, dtype=values.dtype, name=entry.label)
                odd = True
            else:
                column: Any = pd.Series(values, dtype=values.dtype).set_axis(frame.index)
                frame.isetitem(number - self._depth, column)
        if odd:
            frame.index = levels[0] if len(levels) == 1 else pd.MultiIndex.from_arrays(levels)
        labels = [entry.label for entry in self._entries[self._depth :]]
        if labels:
            frame.columns = _column_index(labels, self._labels)
        return frame if self._geo is None else geo_of(frame, self._geo.label)


ALL_NONE: Spec = {"kind": "object", "of": {"kind": "none"}}


def unite_levels(label: object, levels: Sequence[Level | None], lengths: Sequence[int], order: Numbers | None) -> Level:
    """One column from the same column of several pieces; nulls where a piece has none."""
    present = [level for level in levels if level is not None]
    # What has no rows has no say.
    specs = [level.spec for level, length in zip(levels, lengths, strict=True) if level is not None and length]
    specs = specs or [level.spec for level in present[:1]]
    # Nor have objects that are all None, on what the objects of the others are.
    told = [spec for spec in specs if spec != ALL_NONE]
    if told and all(spec and spec["kind"] == "object" for spec in told):
        specs = told
    spec = specs[0] if all(_is_alike(one, specs[0]) for one in specs) else None
    why = next((level.why for level in present if level.column is None), "")
    if not why and spec is None and any(one and one["kind"] == KIND for one in specs):
        why = "it holds geometries in some results and something else in others"
    column = None
    if not why:
        try:
            united = unite_types([level.column.type for level in present if level.column is not None])
            chunks = [
                pa.nulls(length, united)
                if level is None or level.column is None
                else cast(single(level.column), united)
                for level, length in zip(levels, lengths, strict=True)
            ]
            column = take(pa.chunked_array(chunks, united), order)
        except IrreconcilableError as error:
            why = str(error)
        except pa.ArrowException as error:
            why = str(error).partition("\n")[0]
    if column is None or any(map(_has_objects, present)):
        return Level(label, column, spec, lambda: _united_objects(levels, lengths, order), why)
    return Level(label, column, spec, note=_zones(label, present))


def _is_alike(left: Spec | None, right: Spec | None) -> bool:
    """Whether columns of both may be read by either; of unordered categories the order does not count, as in pandas."""
    if left == right:
        return True
    if not left or not right or any(spec["kind"] != "category" or spec["ordered"] for spec in (left, right)):
        return False
    return left["dtype"] == right["dtype"] and set(left["categories"]) == set(right["categories"])


def _zones(label: object, levels: Sequence[Level]) -> str:
    zones = {
        level.column.type.tz for level in levels if level.column is not None and pt.is_timestamp(level.column.type)
    }
    if len(zones) < 2:  # noqa: PLR2004
        return ""
    return f"column {label!r} has times of different zones ({', '.join(sorted(map(str, zones)))}): all are given in UTC"


def _has_geometries(level: Level | None) -> bool:
    """Whether the column holds geometries in WKB."""
    return level is not None and level.column is not None and bool(level.spec) and level.spec["kind"] == KIND  # type: ignore[index]


def _has_objects(level: Level) -> bool:
    """Whether pandas' own conversion would change the values (lists into arrays)."""
    if level.objects is not None:
        return True
    return bool(level.spec) and level.spec["kind"] == "object" and pt.is_nested(level.column.type)  # type: ignore[index, union-attr]


def _is_object_column(level: Level) -> bool:
    """Whether this is a column of dtype object; the results' own column has no dtype, and pandas finds one for it."""
    return level.column is not None and bool(level.spec) and level.spec["kind"] == "object" and "free" not in level.spec  # type: ignore[index, operator]


def _rounded_by_pandas(level: Level) -> bool:
    """Whether pandas would make floats of whole numbers, as nulls stand between them, and not all would survive."""
    column = level.column
    if column is None or not column.null_count or not pt.is_integer(column.type):
        return False
    if (
        level.spec and level.spec["kind"] == "pandas" and level.spec["dtype"][:1].isupper()
    ):  # Int64: has a place for nulls
        return False
    extremes = pc.min_max(column).as_py().values()
    return any(value is not None and abs(value) > LARGEST_EXACT for value in extremes)


def _united_objects(levels: Sequence[Level | None], lengths: Sequence[int], order: Numbers | None) -> Any:
    """What pandas is to have: an array of the pieces' own dtype if they agree in one, else objects."""
    arrays: list[Any] = [
        level.objects() if level is not None and level.objects is not None else None for level in levels
    ]
    dtypes = [getattr(array, "dtype", None) for array in arrays]
    if dtypes[0] is not None and all(dtype == dtypes[0] for dtype in dtypes):
        import pandas as pd  # noqa: PLC0415

        joined: Any = pd.concat([pd.Series(array, dtype=array.dtype) for array in arrays], ignore_index=True)
        return (joined if order is None else joined.take(order)).array
    values = [value for level, length in zip(levels, lengths, strict=True) for value in _python_values(level, length)]
    return values if order is None else [values[position] for position in order.tolist()]


def _python_values(level: Level | None, length: int) -> list[Any]:
    if level is None:
        return [None] * length
    if level.objects is not None:
        found = level.objects()
        return found if isinstance(found, list) else list(found.astype(object))
    column = single(level.column)
    kind = level.spec["kind"] if level.spec else ""
    if level.spec and kind == "object":
        return restore_values(column, level.spec["of"])
    if level.spec and kind in ("pandas", "category", KIND):
        import pandas as pd  # noqa: PLC0415

        return list(pd.Series(restore_column(column, level.spec, restore_values)).astype(object))
    values: list[Any] = column.to_pylist()
    return values


def _pandas_column(values: Any, rows: int) -> Any:
    return np.fromiter(values, np.dtype(object), rows) if isinstance(values, list) else values


def _column_index(labels: list[Any], nature: Spec) -> pd.Index[Any]:
    """Labels of any kind as the columns' index; tuples of one length make levels, as in pandas."""
    import pandas as pd  # noqa: PLC0415

    names = nature.get("names", [nature["name"]])
    index: pd.Index[Any]
    if len(names) == 1 and nature["dtype"] == "object":
        index = pd.Index(labels, dtype=object, tupleize_cols=False)
    else:
        try:
            index = pd.Index(labels)
        except UnicodeEncodeError:  # a lone surrogate among the labels, which pandas' own strings cannot hold
            index = pd.Index(labels, dtype=object)
    if len(names) == index.nlevels:
        index.names = list(names)
    return index


def _json_column(values: list[Any]) -> pa.Array:
    cells = [None if value is None else json_text(value) for value in values]
    cells = [None if cell == "null" else cell for cell in cells]  # NaN and what else is missing
    return texts(cells, presence(cells))


def _stored(level: Level, rows: int) -> pa.Array | pa.ChunkedArray:
    """The column as it stands in the table; where pandas knows categories, Arrow has a dictionary."""
    if level.column is None:
        return pa.nulls(rows, pa.string())
    if not level.spec or level.spec["kind"] != "category":
        return level.column
    categories: list[Any] = level.spec["categories"]
    kind = pa.string() if isinstance(categories[0], str) else pa.int64()
    stored = texts(categories) if kind == pa.string() else fixed_width(np.array(categories, np.int64), kind)
    codes = pc.index_in(level.column.cast(kind), value_set=stored)
    chunks = [
        pa.DictionaryArray.from_arrays(chunk, stored, ordered=level.spec["ordered"])
        for chunk in (codes.chunks if isinstance(codes, pa.ChunkedArray) else [codes])
    ]
    if not chunks:  # without a chunk, no categories
        chunks.append(pa.DictionaryArray.from_arrays(pa.nulls(0, pa.int32()), stored, ordered=level.spec["ordered"]))
    return pa.chunked_array(chunks, pa.dictionary(pa.int32(), kind, level.spec["ordered"]))


def _names(levels: Sequence[Level], data: Sequence[Level]) -> tuple[list[str], list[str]]:
    """Names that differ for all columns, and what to say about those that had to be changed."""
    plain = [str(level.label).encode(errors="backslashreplace").decode() for level in data]
    taken = set(plain)
    seen: set[str] = set()
    notes: list[str] = []
    columns: list[str] = []
    for name in plain:
        other, number = name, 1
        while other in seen or (other in taken and number > 1):
            number += 1
            other = f"{name}_{number}"
        if other != name:
            notes.append(f"there are several columns {name!r}: one is written as {other!r}")
        seen.add(other)
        columns.append(other)
    taken |= seen
    heads: list[str] = []
    for number, level in enumerate(levels):
        name = f"__index_level_{number}__" if type(level.label) is not str else level.label
        while name in taken:
            name = f"arg_{name}"
        taken.add(name)
        heads.append(name)
    return [*heads, *columns], notes


def take(column: pa.ChunkedArray, order: Numbers | None) -> pa.ChunkedArray:
    """The column in this order."""
    return column if order is None else column.take(fixed_width(order.astype(np.int64), pa.int64()))
