"""Tables that tasks returned, taken apart into the columns of their rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from jobpool_cli.store.outcomes.columns import Level
from jobpool_cli.store.values.buffers import Numbers, bounds, fixed_width
from jobpool_cli.store.values.codec import RESULT, fit_values
from jobpool_cli.store.values.fitted import Spec
from jobpool_cli.store.values.tables import is_storable, single

if TYPE_CHECKING:
    import pandas as pd

TABLE_KINDS = frozenset({"dataframe", "series", "table", "polars"})
LIBRARIES = frozenset({"pandas", "polars", "pyarrow"})
TEXT_LABELS: Spec = {"dtype": "str", "name": None}


@dataclass(frozen=True)
class Piece:
    """Results of one type: ``tasks[i]`` returned row i of the column."""

    tasks: Numbers
    column: pa.Array
    spec: Spec


@dataclass(frozen=True)
class Rows:
    """The rows of some tables: each row's task, the tables' own index levels, and the data."""

    tasks: Numbers
    levels: list[Level]
    data: list[Level]
    labels: Spec

    def by_key(self) -> dict[tuple[Any, int], Level]:
        """The data columns by their pandas names; a name may occur more than once."""
        seen: Counter[Any] = Counter()
        found: dict[tuple[Any, int], Level] = {}
        for level in self.data:
            found[level.label, seen[level.label]] = level
            seen[level.label] += 1
        return found


def is_table(value: object) -> bool:
    """Whether this is a DataFrame, a Series or a table, or of a class made from these (GeoDataFrame)."""
    return any(
        kind.__name__ in ("DataFrame", "Series", "Table") and kind.__module__.partition(".")[0] in LIBRARIES
        for kind in type(value).__mro__
    )


def is_void(value: Any) -> bool:
    """Whether this is a table without rows and columns."""
    return 0 in getattr(value, "shape", ()) and sum(value.shape) == 0


def rows_of_piece(piece: Piece) -> Rows:
    """Take apart what is in columns already."""
    starts, ends = (np.asarray(bound, np.int64) for bound in bounds(piece.column))
    tasks = np.repeat(piece.tasks, ends - starts)
    flat = piece.column.flatten()
    fields = [flat.field(number) for number in range(flat.type.num_fields)]
    spec = piece.spec
    own = spec.get("index", [])
    if own:
        levels = [Level(level["name"], column, of) for level, column, of in zip(own, fields, spec["of"], strict=False)]
    else:
        levels = [_counted(ends - starts)]
    names = spec.get("columns") or [field.name for field in flat.type]
    labels = [RESULT if name is None else name for name in names]
    specs = spec["of"][len(own) :] if "of" in spec else [None] * len(labels)
    data = [Level(*entry) for entry in zip(labels, fields[len(own) :], specs, strict=True)]
    return Rows(tasks, levels, data, spec.get("labels", TEXT_LABELS))


def rows_of_objects(pairs: Iterable[tuple[int, Any]]) -> list[Rows]:
    """Take apart the tables that no column of tables holds: of any names, any types, any classes."""
    found: list[Rows] = []
    frames: dict[object, list[tuple[int, Any]]] = {}
    for task, value in pairs:
        columns = _arrow_form(value)
        if columns is None:
            frame = _frame_form(value)
            frames.setdefault(_layout(frame), []).append((task, frame))
        else:
            found.append(_rows_of_arrow(task, columns))
    return found + [_rows_of_frames(group) for group in frames.values()]


def _arrow_form(value: Any) -> pa.Table | None:
    library = type(value).__module__.partition(".")[0]
    if library == "pyarrow":
        return value
    if library != "polars":
        return None
    import polars as pl  # noqa: PLC0415

    frame = value.to_frame() if isinstance(value, pl.Series) else value
    try:
        return frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    except Exception:  # noqa: BLE001 - a column of Python objects: Polars panics, pandas has them
        return None


def _rows_of_arrow(task: int, table: pa.Table) -> Rows:
    data = []
    for field, column in zip(table.schema, table.columns, strict=True):
        plain = column
        if pt.is_dictionary(column.type):
            plain = column.cast(column.type.value_type)
        if is_storable(plain.type):
            data.append(Level(field.name, single(plain)))
        else:
            data.append(Level(field.name, None, None, plain.to_pylist, f"task {task} has it as {plain.type}"))
    return Rows(np.full(table.num_rows, task), [_counted(np.array([table.num_rows]))], data, TEXT_LABELS)


def _frame_form(value: Any) -> Any:
    import pandas as pd  # noqa: PLC0415

    if not hasattr(value, "index"):  # a Polars frame with Python objects
        return pd.DataFrame(
            {name: pd.Series(items, dtype=object) for name, items in value.to_dict(as_series=False).items()}
        )
    frame = value.to_frame(RESULT if value.name is None else value.name) if value.ndim == 1 else value
    return frame.set_flags(allows_duplicate_labels=True)


def _layout(frame: Any) -> object:
    """Frames of equal layout can be joined without a change to any value."""
    index = frame.index
    own = tuple(index.dtypes) if index.nlevels > 1 else (index.dtype,)
    layout = (tuple(map(type, frame.columns)), tuple(frame.columns), tuple(frame.dtypes), tuple(index.names), own)
    try:
        hash(layout)
    except TypeError:
        return id(frame)
    return layout


def _rows_of_frames(group: Sequence[tuple[int, Any]]) -> Rows:
    import pandas as pd  # noqa: PLC0415

    frames = [frame for _, frame in group]
    lengths = np.array(list(map(len, frames)), np.int64)
    joined: Any = frames[0] if len(frames) == 1 else pd.concat(frames)
    tasks = np.repeat(np.array([task for task, _ in group], np.int64), lengths)
    index = joined.index
    levels = [_level(name, pd.Series(index.get_level_values(number)), tasks) for number, name in enumerate(index.names)]
    names = [RESULT if name is None else name for name in joined.columns]
    data = [_level(name, joined.iloc[:, number], tasks) for number, name in enumerate(names)]
    name = joined.columns.name
    labels = {"dtype": str(joined.columns.dtype), "name": name if type(name) in (str, int) else None}
    return Rows(tasks, levels, data, labels)


def _level(label: Any, series: pd.Series[Any], tasks: Numbers) -> Level:
    """A column of a frame: with its dtype if that has an Arrow form, else by its values, else as objects."""
    from jobpool_cli.store.values.frames import UnfitError, fit_column  # noqa: PLC0415

    series = series.reset_index(drop=True)
    try:
        fitted = fit_column(series, fit_values)
    except (UnfitError, pa.ArrowException, NotImplementedError, OverflowError, TypeError, ValueError):
        pass
    else:
        if not fitted.misfits:
            return Level(label, fitted.array, fitted.spec)
    array = series.array
    values = series.astype(object).tolist()
    fitted = fit_values(values, 1)
    if not fitted.misfits:
        return Level(label, fitted.array, {"kind": "object", "of": fitted.spec}, lambda: array)
    first = fitted.misfits[0]
    return Level(label, None, None, lambda: array, f"task {tasks[first]} has {describe(values[first])} in it")


def describe(value: object) -> str:
    """Say of what type a value is."""
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")


def _counted(lengths: Numbers) -> Level:
    ends = np.cumsum(lengths)
    counted = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    return Level(None, fixed_width(counted.astype(np.int64), pa.int64()))
