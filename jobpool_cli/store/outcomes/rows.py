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
from jobpool_cli.store.values.frames import UnfitError, exact_dtype, fit_column, joined_levels
from jobpool_cli.store.values.geometry import KIND, active_geometry, geo_layout, is_geo, without_geo
from jobpool_cli.store.values.pickles import type_name
from jobpool_cli.store.values.tables import is_storable, single

if TYPE_CHECKING:
    import pandas as pd

TABLE_KINDS = frozenset({"dataframe", "series", "table", "polars"})
LIBRARIES = frozenset({"pandas", "polars", "pyarrow"})
# Characters of a CRS in a message: some are descriptions of a thousand.
MAX_CRS = 60
TEXT_LABELS: Spec = {"dtype": "str", "name": None}


@dataclass(frozen=True)
class Piece:
    """Results of one type: ``tasks[i]`` returned row i of the column."""

    tasks: Numbers
    column: pa.Array
    spec: Spec


@dataclass(frozen=True)
class Rows:
    """The rows of some tables: each row's task, the tables' own index levels, and the data.

    Attributes:
        tasks: of each row.
        levels: the tables' own index.
        data: their columns.
        labels: dtype and name of the columns' own index.
        geo: ``{"active": label}`` of GeoDataFrames, the label of their active geometry; None for other tables.
    """

    tasks: Numbers
    levels: list[Level]
    data: list[Level]
    labels: Spec
    geo: Spec | None = None

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


def geo_conflict(split: Sequence[Rows]) -> str:
    """Why the rows of GeoDataFrames are not those of one; empty if they are."""
    active: tuple[int, Any] | None = None
    systems: dict[Any, tuple[int, str | None]] = {}
    for part in split:
        if not len(part.tasks):
            continue
        task = int(part.tasks[0])
        if part.geo:
            active = active or (task, part.geo["active"])
            if part.geo["active"] != active[1]:
                return (
                    f"the active geometry of task {active[0]} is {active[1]!r},"
                    f" but that of task {task} {part.geo['active']!r}"
                )
        for level in part.data:
            if level.spec and level.spec["kind"] == KIND:
                other, crs = systems.setdefault(level.label, (task, level.spec["crs"]))
                if level.spec["crs"] != crs:
                    return (
                        f"the geometries {level.label!r} of task {other} are in {_crs_name(crs)},"
                        f" but those of task {task} in {_crs_name(level.spec['crs'])}"
                    )
    return ""


def _crs_name(crs: str | None) -> str:
    """Name a coordinate reference system in a few words."""
    if crs is None:
        return "no reference system"
    return crs if len(crs) <= MAX_CRS else f"{crs[:MAX_CRS]}..."


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
    names = spec["columns"] if "columns" in spec else [field.name for field in flat.type]
    geo = spec.get("geo")
    # As geopandas names the geometry when it writes a GeoSeries to a file.
    labels = list(names)
    if spec["kind"] == "series":
        labels = [("geometry" if geo else RESULT) if name is None else name for name in names]
        geo = geo and {"active": labels[0]}
    specs = spec["of"][len(own) :] if "of" in spec else [None] * len(labels)
    data = [Level(*entry) for entry in zip(labels, fields[len(own) :], specs, strict=True)]
    return Rows(tasks, levels, data, spec.get("labels", TEXT_LABELS), geo)


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
    frame = value
    if value.ndim == 1:
        frame = value.to_frame(("geometry" if is_geo(value) else RESULT) if value.name is None else value.name)
    return frame.set_flags(allows_duplicate_labels=True)


def _layout(frame: Any) -> object:
    """Frames of equal layout can be joined without a change to any value."""
    index = frame.index
    own = tuple(index.dtypes) if index.nlevels > 1 else (index.dtype,)
    dtypes = tuple(frame.dtypes)
    layout = (
        tuple(map(type, frame.columns)),
        tuple(frame.columns),
        tuple(map(exact_dtype, dtypes)),
        tuple(index.names),
        tuple(map(exact_dtype, own)),
        geo_layout(frame, dtypes),
    )
    try:
        hash(layout)
    except TypeError:
        return id(frame)
    return layout


def _rows_of_frames(group: Sequence[tuple[int, Any]]) -> Rows:
    import pandas as pd  # noqa: PLC0415

    frames = [frame for _, frame in group]
    geo = {"active": active_geometry(frames[0])} if active_geometry(frames[0]) is not None else None
    if is_geo(frames[0]):
        frames = list(map(without_geo, frames))
    lengths = np.array(list(map(len, frames)), np.int64)
    joined: Any = frames[0] if len(frames) == 1 else pd.concat(frames)
    tasks = np.repeat(np.array([task for task, _ in group], np.int64), lengths)
    levels = [_level(level.name, pd.Series(level, dtype=level.dtype), tasks) for level in joined_levels(frames, joined)]
    data = [_level(name, joined.iloc[:, number], tasks) for number, name in enumerate(joined.columns)]
    name = joined.columns.name
    labels = {
        "dtype": str(joined.columns.dtype),
        "name": name if type(name) in (str, int) else None,
        "names": list(joined.columns.names),
    }
    return Rows(tasks, levels, data, labels, geo)


def _level(label: Any, series: pd.Series[Any], tasks: Numbers) -> Level:
    """A column of a frame: with its dtype if that has an Arrow form, else by its values, else as objects."""
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
    return f"a value of type {type_name(value)}"


def _counted(lengths: Numbers) -> Level:
    ends = np.cumsum(lengths)
    counted = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    return Level(None, fixed_width(counted.astype(np.int64), pa.int64()))
