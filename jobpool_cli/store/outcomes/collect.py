"""From the outcomes of many batches to one table, indexed by the arguments.

Batches differ in their types, since each chose its own. Their columns are united in Arrow, without a look at single
values; only what was pickled is loaded as Python objects, and finds a column again if it can.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobpool_cli.errors import DamagedPoolError, InputError
from jobpool_cli.store.outcomes.unite import IrreconcilableError, cast, pandas_metadata, unite_types
from jobpool_cli.store.values.buffers import Numbers, bounds, fixed_width, null_positions, numbers_of, texts
from jobpool_cli.store.values.codec import PICKLE, RESULT, fit_values, restore_values, spec_of
from jobpool_cli.store.values.fitted import Spec
from jobpool_cli.store.values.tables import single

if TYPE_CHECKING:
    import pandas as pd

TABLE_KINDS = frozenset({"dataframe", "series", "table", "polars"})
TASK = "task"

# Every round finds the values of one more kind a column; beyond this many kinds they stay Python objects.
MAX_KINDS = 32


@dataclass(frozen=True)
class Piece:
    """Results of one type: ``tasks[i]`` returned row i of the column."""

    tasks: Numbers
    column: pa.Array
    spec: Spec


@dataclass(frozen=True)
class Level:
    """One level of the index, or one column of data.

    Attributes:
        label: its name in pandas.
        column: its values.
        spec: how to restore them; None for those that are what they look like.
    """

    label: Any
    column: pa.Array | pa.ChunkedArray
    spec: Spec | None = None


class Collected:
    """The collected table, to be had as pandas or as Arrow.

    Attributes:
        n_rows: rows of the table.
    """

    def __init__(
        self, n_rows: int, table: pa.Table | None, frame: pd.DataFrame | None, objects: dict[Any, Any], problem: str
    ) -> None:
        """Take the columnar form, or else the pandas form and why there is no columnar one."""
        self.n_rows = n_rows
        self._table = table
        self._frame = frame
        self._objects = objects
        self._problem = problem

    def to_arrow(self) -> pa.Table:
        """Index levels, then data, as plain columns; ``pd.read_parquet`` of it gives the frame of `to_pandas`.

        Raises:
            InputError: there are results that no column can hold.
        """
        if self._table is not None:
            return self._table
        try:
            return pa.Table.from_pandas(self._frame)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"the results do not fit into the columns of a table: {self._problem or error}",
                "have them as Python objects, with collect() or results() in Python, or one by one with"
                " `jobpool results`",
            ) from error

    def to_pandas(self) -> pd.DataFrame:
        """The table as a DataFrame; the index holds the arguments, or the tasks' positions."""
        if self._table is None:
            return self._frame  # type: ignore[return-value]
        frame: pd.DataFrame = self._table.to_pandas()
        for label, values in self._objects.items():
            frame[label] = np.fromiter(values, np.dtype(object), len(frame))
        return frame


def assemble(
    parts: Sequence[pa.Table], arguments: pa.Table, *, flatten: bool = True, drop_index: bool = False
) -> Collected:
    """Collect the results of the successful tasks.

    Args:
        parts: tables with the columns ``task``, ``result`` and perhaps ``result_pickle``, rows in any order.
        arguments: a column per argument, row i belongs to task i.
        flatten: if all results are tables, take their rows; a result of None counts as a table without rows.
        drop_index: index by the task's position instead of its arguments.
    """
    pieces, leftovers = _take_apart(parts)
    keys = arguments.select([]) if drop_index else arguments
    tables = flatten and _all_tables(pieces, leftovers)
    if tables:
        pieces = [piece for piece in pieces if piece.spec["kind"] in TABLE_KINDS]
        leftovers = [(task, value) for task, value in leftovers if not _is_void(value)]
    problem = ""
    if leftovers:
        problem = f"task {leftovers[0][0]} returned {_describe(leftovers[0][1])}"
    else:
        try:
            return _assemble_rows(pieces, keys) if tables else _assemble_values(pieces, keys)
        except (IrreconcilableError, pa.ArrowException) as error:
            problem = str(error)
    frame = _frame_of_tables(pieces, leftovers, keys) if tables else _frame_of_values(pieces, leftovers, keys)
    return Collected(len(frame), None, frame, {}, problem)


def _take_apart(parts: Sequence[pa.Table]) -> tuple[list[Piece], list[tuple[int, object]]]:
    """Columns by their type, in the order of their first tasks, and the values that no column holds."""
    pieces: list[Piece] = []
    objects: list[tuple[int, object]] = []
    for part in parts:
        if part.num_rows == 0:
            continue
        tasks = numbers_of(single(part.column(TASK)).cast(pa.int64()), np.dtype(np.int64))
        spec = spec_of(part.schema.field(RESULT))
        column = part.column(RESULT)
        pickles = part.column(PICKLE) if PICKLE in part.schema.names else None
        if pickles is not None and pickles.null_count < len(pickles):
            pickled = np.ones(len(tasks), np.bool_)
            pickled[null_positions(single(pickles))] = False
            objects += [
                (int(tasks[position]), _unpickle(pickles[int(position)].as_py(), int(tasks[position])))
                for position in np.flatnonzero(pickled)
            ]
            column = column.filter(fixed_width(~pickled, pa.bool_()))
            tasks = tasks[~pickled]
        start = 0
        for chunk in column.chunks:
            if len(chunk):
                pieces.append(Piece(tasks[start : start + len(chunk)], chunk, spec))
            start += len(chunk)
    objects.sort(key=lambda pair: pair[0])
    for _ in range(MAX_KINDS):
        if not objects:
            break
        fitted = fit_values([value for _, value in objects], 0)
        misfits = set(fitted.misfits)
        if len(misfits) == len(objects):
            break
        fits = np.ones(len(objects), np.bool_)
        fits[list(misfits)] = False
        tasks = np.array([task for task, _ in objects], np.int64)[fits]
        pieces.append(Piece(tasks, fitted.array.filter(fixed_width(fits, pa.bool_())), fitted.spec))
        objects = [pair for position, pair in enumerate(objects) if position in misfits]
    pieces.sort(key=lambda piece: int(piece.tasks.min()))
    return pieces, objects


def _unpickle(data: bytes, task: int) -> object:
    try:
        return pickle.loads(data)  # noqa: S301 - from a pool that the caller owns
    except Exception as error:
        raise DamagedPoolError(
            f"the result of task {task} cannot be unpickled: {type(error).__name__}: {error}",
            "its class must be importable where results are read",
        ) from error


def _all_tables(pieces: Sequence[Piece], leftovers: Sequence[tuple[int, object]]) -> bool:
    kinds = {piece.spec["kind"] for piece in pieces}
    return (
        (bool(kinds & TABLE_KINDS) or bool(leftovers))
        and kinds <= TABLE_KINDS | {"none"}
        and all(_is_table(value) for _, value in leftovers)
    )


def _is_table(value: object) -> bool:
    """Whether this is a DataFrame, a Series or a table, or of a class made from these (GeoDataFrame)."""
    return any(
        kind.__name__ in ("DataFrame", "Series", "Table") and kind.__module__.partition(".")[0] in LIBRARIES
        for kind in type(value).__mro__
    )


LIBRARIES = frozenset({"pandas", "polars", "pyarrow"})


def _is_void(value: Any) -> bool:
    return 0 in getattr(value, "shape", ()) and sum(value.shape) == 0


def _describe(value: object) -> str:
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")


def _assemble_values(pieces: Sequence[Piece], keys: pa.Table) -> Collected:
    """One column ``result``."""
    tasks = np.concatenate([np.zeros(0, np.int64), *(piece.tasks for piece in pieces)])
    united = unite_types([piece.column.type for piece in pieces], RESULT)
    chunks = [cast(piece.column, united) for piece in pieces]
    order = _order(tasks)
    data = [Level(RESULT, _take(pa.chunked_array(chunks, united), order))]
    levels = _key_levels(keys, tasks if order is None else tasks[order])
    objects: dict[Any, Any] = {}
    if any(_is_object(piece) for piece in pieces):
        values = [value for piece in pieces for value in restore_values(piece.column, piece.spec)]
        objects[RESULT] = values if order is None else [values[position] for position in order.tolist()]
    return Collected(len(tasks), _table(levels, data, {"dtype": "str", "name": None}), None, objects, "")


def _is_object(piece: Piece) -> bool:
    """Whether pandas' own conversion would change the values (lists into arrays)."""
    return piece.spec["kind"] in ("list", "tuple", "dict", "map", "array", *TABLE_KINDS)


def _assemble_rows(pieces: Sequence[Piece], keys: pa.Table) -> Collected:
    """The rows of tables."""
    split = [_split(piece) for piece in pieces]
    depths = {len(part.levels) for part in split}
    if len(depths) > 1:
        raise IrreconcilableError("the tables have indexes of different depth")
    tasks = np.concatenate([part.tasks for part in split])
    order = _order(tasks)
    ordered = tasks if order is None else tasks[order]
    levels = _key_levels(keys, ordered)
    for number in range(depths.pop()):
        names = [part.levels[number].label for part in split]
        label = names[0] if all(name == names[0] for name in names) else None
        levels.append(_unite(label, [part.levels[number] for part in split], [len(p.tasks) for p in split], order))
    labels = dict.fromkeys(level.label for part in split for level in part.data)
    data = [
        _unite(label, [part.by_label.get(label) for part in split], [len(p.tasks) for p in split], order)
        for label in labels
    ]
    objects = {
        level.label: restore_values(single(level.column), level.spec["of"])
        for level in data
        if level.spec and level.spec["kind"] == "object" and pa.types.is_nested(level.column.type)
    }
    return Collected(len(tasks), _table(levels, data, split[0].labels), None, objects, "")


@dataclass(frozen=True)
class SplitPiece:
    """The rows of one piece: each row's task, the tables' own index levels, and the data."""

    tasks: Numbers
    levels: list[Level]
    data: list[Level]
    labels: Spec

    @property
    def by_label(self) -> dict[Any, Level]:
        """The data columns by their pandas names."""
        return {level.label: level for level in self.data}


def _split(piece: Piece) -> SplitPiece:
    starts, ends = (np.asarray(bound, np.int64) for bound in bounds(piece.column))
    tasks = np.repeat(piece.tasks, ends - starts)
    flat = piece.column.flatten()
    fields = [flat.field(number) for number in range(flat.type.num_fields)]
    spec = piece.spec
    own = spec.get("index", [])
    if own:
        levels = [Level(level["name"], column, of) for level, column, of in zip(own, fields, spec["of"], strict=False)]
    else:
        counted = np.arange(len(tasks)) - np.repeat(starts, ends - starts)
        levels = [Level(None, fixed_width(counted, pa.int64()))]
    names = spec.get("columns") or [field.name for field in flat.type]
    labels = [RESULT if name is None else name for name in names]
    specs = spec["of"][len(own) :] if "of" in spec else [None] * len(labels)
    data = [Level(*entry) for entry in zip(labels, fields[len(own) :], specs, strict=True)]
    return SplitPiece(tasks, levels, data, spec.get("labels", {"dtype": "str", "name": None}))


def _unite(label: object, levels: Sequence[Level | None], lengths: Sequence[int], order: Numbers | None) -> Level:
    """One column from the same column of several pieces; nulls where a piece has none."""
    united = unite_types([level.column.type for level in levels if level is not None], str(label))
    chunks = [
        pa.nulls(length, united) if level is None else cast(level.column, united)
        for level, length in zip(levels, lengths, strict=True)
    ]
    specs = [level.spec for level in levels if level is not None]
    spec = specs[0] if all(one == specs[0] for one in specs) else None
    return Level(label, _take(pa.chunked_array(chunks, united), order), spec)


def _order(tasks: Numbers) -> Numbers | None:
    """How to sort rows by task, keeping the order within one; None if they are sorted."""
    return None if (tasks[1:] >= tasks[:-1]).all() else np.argsort(tasks, kind="stable")


def _take(column: pa.ChunkedArray, order: Numbers | None) -> pa.ChunkedArray:
    return column if order is None else column.take(fixed_width(order.astype(np.int64), pa.int64()))


def _key_levels(keys: pa.Table, tasks: Numbers) -> list[Level]:
    positions = fixed_width(tasks.astype(np.int64), pa.int64())
    if not keys.num_columns:
        return [Level(TASK, positions)]
    return [Level(name, _hashable(keys.column(name)).take(positions)) for name in keys.schema.names]


def _hashable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """An index cannot hold lists and dicts: they become JSON text there."""
    if not pa.types.is_nested(column.type):
        return column
    from jobpool_cli.store.outcomes.export import json_text  # noqa: PLC0415 - only for such columns

    values = [None if value is None else json_text(value) for value in column.to_pylist()]
    return pa.chunked_array([texts(values, np.array([value is not None for value in values], np.bool_))])


def _table(levels: Sequence[Level], data: Sequence[Level], labels: Spec) -> pa.Table:
    """The columns under names that differ, with the metadata from which pandas knows index and labels."""
    taken = {str(level.label) for level in data}
    if len(taken) < len(data):
        raise IrreconcilableError("two columns have names that read the same")
    names: list[str] = []
    for number, level in enumerate(levels):
        name = f"__index_level_{number}__" if type(level.label) is not str else level.label
        while name in taken:
            name = f"arg_{name}"
        taken.add(name)
        names.append(name)
    names += [str(level.label) for level in data]
    columns = [_as_category(level) for level in (*levels, *data)]
    entries = [(name, level.label, level.spec) for name, level in zip(names, (*levels, *data), strict=True)]
    table = pa.Table.from_arrays(columns, names)
    return table.replace_schema_metadata({b"pandas": pandas_metadata(table.schema, entries, len(levels), labels)})


def _as_category(level: Level) -> pa.Array | pa.ChunkedArray:
    """Where pandas knows categories, Arrow has a dictionary."""
    if not level.spec or level.spec["kind"] != "category":
        return level.column
    categories: list[Any] = level.spec["categories"]
    column = level.column
    kind = pa.string() if isinstance(categories[0], str) else pa.int64()
    stored = texts(categories) if kind == pa.string() else fixed_width(np.array(categories, np.int64), kind)
    codes = pc.index_in(column.cast(kind), value_set=stored)
    chunks = [
        pa.DictionaryArray.from_arrays(chunk, stored, ordered=level.spec["ordered"])
        for chunk in (codes.chunks if isinstance(codes, pa.ChunkedArray) else [codes])
    ]
    return pa.chunked_array(chunks, pa.dictionary(pa.int32(), kind, level.spec["ordered"]))


def _objects(pieces: Sequence[Piece], leftovers: Sequence[tuple[int, object]]) -> list[tuple[int, Any]]:
    pairs: list[tuple[int, Any]] = [
        pair
        for piece in pieces
        for pair in zip(piece.tasks.tolist(), restore_values(piece.column, piece.spec), strict=True)
    ]
    return sorted([*pairs, *leftovers], key=lambda pair: pair[0])


def _frame_of_values(pieces: Sequence[Piece], leftovers: Sequence[tuple[int, object]], keys: pa.Table) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    pairs = _objects(pieces, leftovers)
    values = np.fromiter((value for _, value in pairs), np.dtype(object), len(pairs))
    levels = _pandas_levels(keys, np.array([task for task, _ in pairs], np.int64))
    return pd.DataFrame({RESULT: pd.Series(values, dtype=object)}).set_axis(_pandas_index(levels))


def _frame_of_tables(pieces: Sequence[Piece], leftovers: Sequence[tuple[int, object]], keys: pa.Table) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    pairs = [(task, _as_frame(value)) for task, value in _objects(pieces, leftovers) if value is not None]
    joined: Any = pd.concat([frame for _, frame in pairs], keys=[task for task, _ in pairs])
    index = joined.index
    levels = _pandas_levels(keys, index.get_level_values(0).to_numpy())
    own = [(index.names[number], index.get_level_values(number)) for number in range(1, index.nlevels)]
    frame: pd.DataFrame = joined.set_axis(_pandas_index([*levels, *own]))
    return frame


def _as_frame(value: Any) -> Any:
    if type(value).__module__.partition(".")[0] in ("polars", "pyarrow"):
        return value.to_pandas()
    return value.to_frame(RESULT if value.name is None else value.name) if value.ndim == 1 else value


def _pandas_levels(keys: pa.Table, tasks: Numbers) -> list[tuple[Any, Any]]:
    return [(level.label, level.column.to_pandas()) for level in _key_levels(keys, tasks)]


def _pandas_index(levels: list[tuple[Any, Any]]) -> Any:
    import pandas as pd  # noqa: PLC0415

    names = [name for name, _ in levels]
    if len(levels) == 1:
        return pd.Index(levels[0][1], name=names[0])
    return pd.MultiIndex.from_arrays([values for _, values in levels], names=names)
