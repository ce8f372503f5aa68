"""From the outcomes of many batches to one table, indexed by the arguments.

Batches differ in their types, since each chose its own. Their columns are united in Arrow, without a look at single
values; only what was pickled is loaded as Python objects, and finds a column again if it can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter

import numpy as np
import pyarrow as pa

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.store.outcomes.columns import Collected, Level, unite_levels
from jobpool_cli.store.outcomes.keys import TASK, key_levels
from jobpool_cli.store.outcomes.rows import (
    TABLE_KINDS,
    TEXT_LABELS,
    Piece,
    Rows,
    describe,
    geo_conflict,
    is_table,
    is_void,
    rows_of_objects,
    rows_of_piece,
)
from jobpool_cli.store.values.buffers import Numbers, fixed_width, null_positions, numbers_of
from jobpool_cli.store.values.codec import PICKLE, RESULT, fit_values, restore_values, spec_of
from jobpool_cli.store.values.pickles import Copies, copies_in, unpickled
from jobpool_cli.store.values.tables import single

__all__ = ["Collected", "assemble"]

# Every round finds the values of one more kind a column; beyond this many kinds they stay Python objects.
MAX_KINDS = 32

# A task and what it returned.
Returned = tuple[int, object]
Objects = list[Returned]


def assemble(
    parts: Sequence[pa.Table],
    arguments: pa.Table,
    *,
    flatten: bool = True,
    drop_index: bool = False,
    leave_out_unreadable: bool = False,
) -> Collected:
    """Collect the results of the successful tasks.

    Args:
        parts: tables with the columns ``task``, ``result`` and perhaps ``result_pickle``, rows in any order.
        arguments: a column per argument, row i belongs to task i; as stored, so that the index holds objects where
            objects were given (`jobpool_cli.store.arguments.stored.read_stored`), or as plain columns.
        flatten: if all results are tables, take their rows; a result of None counts as a table without rows. Where
            some are tables and others not, all stay whole, and a note names one of each.
        drop_index: index by the task's position instead of its arguments.
        leave_out_unreadable: leave results out that cannot be unpickled, and note that, instead of raising.

    Raises:
        DamagedPoolError: a result, or an argument, cannot be unpickled.
    """
    left_out: list[str] = []
    pieces, leftovers = _take_apart(parts, left_out.append if leave_out_unreadable else None)
    keys = arguments.select([]) if drop_index else arguments
    table, other = _first_of_each_kind(pieces, leftovers)
    whole = ""
    if not flatten or table is None:
        collected = _assemble_values(pieces, leftovers, keys)
    elif other is not None:
        whole = f"task {table[0]} returned {describe(table[1])}, a table, but task {other[0]} {describe(other[1])}"
        collected = _assemble_values(pieces, leftovers, keys)
    else:
        split = [rows_of_piece(piece) for piece in pieces if piece.spec["kind"] in TABLE_KINDS]
        split += rows_of_objects((task, value) for task, value in leftovers if not is_void(value))
        whole = geo_conflict(split)
        collected = _assemble_values(pieces, leftovers, keys) if whole else _assemble_rows(split, keys)
    if whole:
        collected.notes.insert(0, f"the results stay whole, in one column {RESULT!r}: {whole}")
    collected.notes[:0] = left_out
    return collected


def _take_apart(parts: Sequence[pa.Table], leave_out: Callable[[str], None] | None) -> tuple[list[Piece], Objects]:
    """Columns by their type, in the order of their first tasks, and the values that no column holds."""
    pieces: list[Piece] = []
    objects: Objects = []
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
            numbers = np.flatnonzero(pickled)
            pairs = [(int(tasks[number]), pickles[int(number)].as_py()) for number in numbers]
            objects += _unpickled(pairs, copies_in(part.schema.field(PICKLE).metadata), leave_out)
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


def _unpickled(pairs: Sequence[tuple[int, bytes]], copies: Copies, leave_out: Callable[[str], None] | None) -> Objects:
    found: Objects = []
    for task, data in pairs:
        try:
            found.append((task, unpickled(data, copies)))
        except Exception as error:
            message = f"the result of task {task} cannot be unpickled: {type(error).__name__}: {error}"
            if leave_out is None:
                raise DamagedPoolError(
                    message,
                    "its class must be importable where results are read; to leave it out: ignore_exceptions=True,"
                    " or --ignore-exceptions",
                ) from error
            leave_out(f"{message}; it is left out")
    return found


def _first_of_each_kind(pieces: Sequence[Piece], leftovers: Objects) -> tuple[Returned | None, Returned | None]:
    """The first task that returned a table, and the first that returned something else than a table or None."""
    tables: Objects = []
    others: Objects = []
    for piece in pieces:
        if piece.spec["kind"] != "none":
            (tables if piece.spec["kind"] in TABLE_KINDS else others).extend(_first_value(piece))
    for task, value in leftovers:
        (tables if is_table(value) else others).append((task, value))
    return min(tables, key=itemgetter(0), default=None), min(others, key=itemgetter(0), default=None)


def _first_value(piece: Piece) -> Objects:
    """The value of the piece's first task that has one; none if it is nothing but None."""
    absent = null_positions(piece.column)
    if len(absent) == len(piece.tasks):
        return []
    tasks = piece.tasks.copy()
    tasks[absent] = np.iinfo(np.int64).max
    first = int(tasks.argmin())
    return [(int(tasks[first]), restore_values(piece.column[first : first + 1], piece.spec)[0])]


def _assemble_values(pieces: Sequence[Piece], leftovers: Objects, keys: pa.Table) -> Collected:
    """One column ``result``."""
    tasks = [piece.tasks for piece in pieces]
    values = [Level(RESULT, piece.column, {"kind": "object", "of": piece.spec, "free": True}) for piece in pieces]
    if leftovers:
        tasks.append(np.array([task for task, _ in leftovers], np.int64))
        first, value = leftovers[0]
        why = f"task {first} returned {describe(value)} that no type of column holds"
        values.append(Level(RESULT, None, None, lambda: [value for _, value in leftovers], why))
    together = np.concatenate([np.zeros(0, np.int64), *tasks])
    order = _order(together)
    column = (
        unite_levels(RESULT, values, list(map(len, tasks)), order)
        if values
        else Level(RESULT, pa.chunked_array([pa.nulls(0)]))
    )
    levels = key_levels(keys, together if order is None else together[order])
    return Collected(levels, [column], len(together), TEXT_LABELS)


def _assemble_rows(split: Sequence[Rows], keys: pa.Table) -> Collected:
    """The rows of tables."""
    tasks = np.concatenate([np.zeros(0, np.int64), *(part.tasks for part in split)])
    lengths = [len(part.tasks) for part in split]
    order = _order(tasks)
    levels = key_levels(keys, tasks if order is None else tasks[order])
    for number in range(max((len(part.levels) for part in split), default=0)):
        # Where tables have fewer levels than others, they have nothing in the rest.
        own = [part.levels[number] if number < len(part.levels) else None for part in split]
        names = [level.label for level in own if level is not None]
        label = names[0] if all(name == names[0] for name in names) else None
        levels.append(unite_levels(label, own, lengths, order))
    if not split:
        levels.append(Level(None, fixed_width(tasks, pa.int64())))
    columns = [part.by_key() for part in split]
    data = [
        unite_levels(key[0], [own.get(key) for own in columns], lengths, order)
        for key in dict.fromkeys(key for own in columns for key in own)
    ]
    actives = [part.geo["active"] for part in sorted(split, key=lambda part: not len(part.tasks)) if part.geo]
    active = next((level for level in data if actives and level.label == actives[0]), None)
    return Collected(levels, data, len(tasks), split[0].labels if split else TEXT_LABELS, active)


def _order(tasks: Numbers) -> Numbers | None:
    """How to sort rows by task, keeping the order within one; None if they are sorted."""
    return None if (tasks[1:] >= tasks[:-1]).all() else np.argsort(tasks, kind="stable")
