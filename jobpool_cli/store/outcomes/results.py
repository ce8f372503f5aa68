"""The results of successful tasks as Python values, ascending by task, a few thousand in memory at a time.

Segments and blobs overlap in their task numbers, since workers finish in any order. Their row groups are read in the
order of their first tasks, and a value is given out as soon as no later row group can hold an earlier task.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store.outcomes.opening import opened
from jobpool_cli.store.outcomes.segments import row_group_bounds
from jobpool_cli.store.outcomes.table import Int64s, numbers, table_of
from jobpool_cli.store.state.reader import Segment, StateReader
from jobpool_cli.store.values.buffers import fixed_width
from jobpool_cli.store.values.codec import PICKLE, RESULT, decode

COLUMNS = ["task", RESULT, PICKLE]
# Values that exist as Python objects at the same time: enough that a column's fixed costs do not count.
ROWS_AT_ONCE = 4096
END = 2**62


@dataclass(frozen=True)
class _Piece:
    """A row group or a blob that is still to be read: its lowest and highest task."""

    first: int
    last: int
    read: Callable[[], pa.Table]
    segment: Segment | None = None


@dataclass(frozen=True)
class _Held:
    """Rows that are read and not yet given out, sorted by task."""

    tasks: Int64s
    table: pa.Table

    @classmethod
    def of(cls, table: pa.Table, wanted: Int64s | None) -> _Held:
        """Take the wanted rows of a table."""
        tasks = numbers(table["task"])
        if wanted is not None:
            chosen = np.flatnonzero(np.isin(tasks, wanted))
            tasks, table = tasks[chosen], table.take(fixed_width(chosen, pa.int64()))
        if len(tasks) > 1 and (tasks[1:] < tasks[:-1]).any():
            order = np.argsort(tasks, kind="stable")
            tasks, table = tasks[order], table.take(fixed_width(order, pa.int64()))
        return cls(tasks, table)

    def since(self, row: int) -> _Held:
        """The rows from this one on."""
        return _Held(self.tasks[row:], self.table.slice(row))

    def values(self, rows: Int64s, unreadable: dict[int, Exception]) -> dict[int, object]:
        """The results of some rows, which follow each other, by task; what cannot be unpickled is noted instead."""
        first = int(rows[0])
        table, tasks = self.table.slice(first, len(rows)), self.tasks[first : first + len(rows)]

        def on_error(position: int, error: Exception) -> object:
            unreadable[int(tasks[position])] = error
            return None

        result, pickles = (table.schema.field(name) for name in (RESULT, PICKLE))
        found = decode(table[RESULT], result, table[PICKLE], on_error, pickle_field=pickles)
        return dict(zip(tasks.tolist(), found, strict=True))


def read_results(
    paths: PoolPaths, reader: StateReader, tasks: Sequence[int] | None = None
) -> Iterator[dict[int, object]]:
    """Yield the results of the successful tasks by task, ascending, some thousands at a time.

    Unpickles: only for a pool that one owns.

    Values that cannot be unpickled, and segments that cannot be read, do not hide the others: they are passed over, and
    raise when all else is read.

    Args:
        paths: the pool.
        reader: an open reader of its state.
        tasks: only these; those that have not succeeded are left out.

    Raises:
        DamagedPoolError: a segment cannot be read, or a value not be unpickled; names the tasks.
    """
    wanted = None if tasks is None else np.unique(np.asarray(tasks, np.int64))
    with reader.snapshot():
        reader.check_successes()
        segments = reader.segments()
        blobs = reader.inbox_blobs(None if wanted is None or not len(wanted) else (int(wanted[0]), int(wanted[-1]) + 1))
    pieces: list[_Piece] = []
    damaged: dict[str, DamagedPoolError] = {}
    for segment in segments:
        if _holds(segment, wanted):
            with _noted(segment, damaged):
                pieces += _row_groups(paths, segment)
    pieces += [_blob(blob) for blob in blobs]
    held: list[_Held] = []
    unreadable: dict[int, Exception] = {}
    for piece in sorted(pieces, key=lambda each: each.first):
        if not _touches(wanted, piece.first, piece.last):
            continue
        held = yield from _give_out(held, piece.first, unreadable)
        with _noted(piece.segment, damaged):
            found = _Held.of(piece.read(), wanted)
            if len(found.tasks):
                held.append(found)
    yield from _give_out(held, None, unreadable)
    for each in damaged.values():
        more = f" (and {len(damaged) - 1} more files of results)" if len(damaged) > 1 else ""
        raise DamagedPoolError(each.message + more, each.hint)
    for task, error in unreadable.items():
        others = f" (and those of {len(unreadable) - 1} more tasks)" if len(unreadable) > 1 else ""
        raise DamagedPoolError(
            f"the result of task {task} cannot be unpickled{others}: {type(error).__name__}: {error}",
            "its class must be importable where results are read",
        ) from error


@contextmanager
def _noted(segment: Segment | None, damaged: dict[str, DamagedPoolError]) -> Iterator[None]:
    """Note that a segment cannot be read, instead of raising."""
    try:
        yield
    except DamagedPoolError as error:
        if segment is None:
            raise
        damaged.setdefault(segment.file, error)


def _holds(segment: Segment, wanted: Int64s | None) -> bool:
    """Whether a segment holds the result of one of these tasks: one that does not need not be readable."""
    return wanted is None or any(_touches(wanted, low, high - 1) for low, high in segment.ranges)


def _touches(wanted: Int64s | None, first: int, last: int) -> bool:
    return wanted is None or bool(np.searchsorted(wanted, first) < np.searchsorted(wanted, last, "right"))


def _row_groups(paths: PoolPaths, segment: Segment) -> list[_Piece]:
    # Opened again for each row group: a pool may have more segments than a process may have open files.
    with opened(paths, segment) as file:
        count, bounds = file.num_row_groups, row_group_bounds(file.metadata)
    known = bounds or [(segment.first, segment.last)] * count
    return [
        _Piece(first, last, _row_group_reader(paths, segment, number), segment)
        for number, (first, last) in enumerate(known)
    ]


def _row_group_reader(paths: PoolPaths, segment: Segment, number: int) -> Callable[[], pa.Table]:
    def read() -> pa.Table:
        with opened(paths, segment) as file:
            return file.read_row_group(number, [name for name in COLUMNS if name in file.schema_arrow.names])

    return read


def _blob(blob: bytes) -> _Piece:
    table = table_of(blob).select(COLUMNS)
    tasks = numbers(table["task"])
    return _Piece(int(tasks.min()), int(tasks.max()), lambda: table)


def _give_out(
    held: list[_Held], before: int | None, unreadable: dict[int, Exception]
) -> Generator[dict[int, object], None, list[_Held]]:
    """Yield what is held of tasks before this one (all for None), ascending, and return the rest."""
    limit = END if before is None else before
    due = [each for each in held if each.tasks[0] < limit]
    if not due:
        return held
    # Each table is sorted: what is due of it is its beginning.
    counts = [int(np.searchsorted(each.tasks, limit)) for each in due]
    tasks = np.concatenate([each.tasks[:count] for each, count in zip(due, counts, strict=True)])
    sources = np.repeat(np.arange(len(due)), counts)
    rows = np.concatenate([np.arange(count) for count in counts])
    order = np.argsort(tasks, kind="stable")
    for start in range(0, len(order), ROWS_AT_ONCE):
        chosen = order[start : start + ROWS_AT_ONCE]
        values: dict[int, object] = {}
        for source in np.unique(sources[chosen]).tolist():
            values |= due[source].values(rows[chosen[sources[chosen] == source]], unreadable)
        yield {task: values[task] for task in tasks[chosen].tolist() if task not in unreadable}
    rest = [each.since(count) for each, count in zip(due, counts, strict=True) if count < len(each.tasks)]
    return [*(each for each in held if each.tasks[0] >= limit), *rest]
