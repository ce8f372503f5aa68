"""One row per task, whatever its state: the successes from the columns, all others from the database.

Everything is done on whole columns: a million tasks take about a second, nearly all of it reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import FAILED_STATES, RunningTask, TaskState
from jobpool_cli.store.outcomes.segments import read_outcomes
from jobpool_cli.store.outcomes.table import UNKNOWN, Int64s, numbers
from jobpool_cli.store.ranges import gaps
from jobpool_cli.store.state.problems import advice
from jobpool_cli.store.state.reader import StateReader, to_microseconds
from jobpool_cli.store.values.buffers import filled, fixed_width, texts

COLUMNS = ("task", "state", "attempt", "started", "duration", "cpu", "worker", "udf", "error")
NUMBERS = ("attempt", "started", "duration_ns", "cpu_ns", "worker", "udf")
STATES = tuple(TaskState)
CODES = {state: code for code, state in enumerate(STATES)}
NANOSECONDS = 1e9


# Wanted tasks closer than this are read in one go; more groups than SPANS are not worth a look each.
SPAN_GAP = 65_536
SPANS = 16

# Where only the first rows are wanted, so many tasks are looked at, and four times as many with each further look.
FIRST_LOOK = 65_536


def task_table(
    paths: PoolPaths,
    reader: StateReader,
    n_jobs: int,
    running: Sequence[RunningTask],
    tasks: Sequence[int] | Int64s | None = None,
    states: Sequence[TaskState] | None = None,
    limit: int | None = None,
) -> pa.Table:
    """Return one row per task, ascending, with the columns ``COLUMNS``.

    Times are those of the attempt that counts; ``duration`` and ``cpu`` are seconds. What is not known is null: the
    attempt of a task that never began, the CPU time of a task of microseconds.

    Args:
        paths: the pool.
        reader: an open reader of its state.
        n_jobs: the number of its tasks.
        running: what its workers run right now, read before the state: what has ended since then shows its end.
        tasks: only these, which must be tasks of the pool.
        states: only tasks in these states.
        limit: at most so many rows; what lies behind them is not read.
    """
    if tasks is None and states is not None and TaskState.SUCCESS not in states:
        tasks = _not_succeeded(reader, n_jobs)
    if limit is None:
        return _table(paths, reader, n_jobs, running, tasks, states)
    wanted = np.arange(n_jobs) if tasks is None else np.unique(np.asarray(tasks, np.int64))
    found: list[pa.Table] = []
    start, step, missing = 0, FIRST_LOOK if states else limit, limit
    while True:
        part = wanted[start : start + step]
        found.append(_table(paths, reader, n_jobs, running, part, states).slice(0, missing))
        start, step, missing = start + step, step * 4, missing - found[-1].num_rows
        if not missing or start >= len(wanted):
            return pa.concat_tables(found)


def _not_succeeded(reader: StateReader, n_jobs: int) -> Int64s:
    """Return all tasks that have not succeeded."""
    ranges = gaps(reader.success_ranges(), n_jobs)
    return np.concatenate([np.empty(0, np.int64), *(np.arange(low, high) for low, high in ranges)])


def _table(
    paths: PoolPaths,
    reader: StateReader,
    n_jobs: int,
    running: Sequence[RunningTask],
    tasks: Sequence[int] | Int64s | None,
    states: Sequence[TaskState] | None,
) -> pa.Table:
    rows = _Rows(n_jobs, tasks)
    rows.add_attempts(reader)
    rows.add_cancelled(reader)
    rows.add_running(running)
    # Then what is finished, in the order in which a task can move on while we look: failed, retried, succeeded.
    failures = rows.add_failures(reader)
    if states is None or TaskState.SUCCESS in states:
        rows.add_successes(paths, reader, tasks)
    elif not set(states) <= FAILED_STATES | {TaskState.CANCELLED}:
        rows.mark_successes(reader)
    return rows.table(failures, states)


def with_constants(
    arguments: pa.Table, constants: Mapping[str, object], tasks: Sequence[int]
) -> tuple[pa.Table, pa.Table]:
    """Return the tasks' numbers as a column, and their arguments with a column more for each constant.

    Args:
        arguments: of these tasks; without any row if there is nothing but constants.
        constants: what all tasks are given.
        tasks: their numbers.
    """
    rows = len(tasks)
    columns = {name: arguments.column(name) for name in arguments.schema.names}
    for name, value in constants.items():
        columns[name] = _repeated(value, rows)
    numbered = pa.table({"task": fixed_width(np.fromiter(tasks, np.int64, rows), pa.int64())})
    return numbered, pa.table(columns)


def _repeated(value: object, rows: int) -> pa.Array:
    try:
        # pa.array() would import pandas, which takes longer than all the rest.
        once = texts([value]) if isinstance(value, str) else pa.array([value])
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        once = texts([repr(value)])
    return pa.DictionaryArray.from_arrays(fixed_width(np.zeros(rows, np.int32), pa.int32()), once)


def spans_of(tasks: Sequence[int] | Int64s) -> list[tuple[int, int]]:
    """Return a few half-open ranges that hold all these tasks, and not much else."""
    if not len(tasks):
        return []
    wanted = np.unique(np.asarray(tasks, np.int64))
    breaks = np.flatnonzero(np.diff(wanted) > SPAN_GAP) + 1
    if len(breaks) >= SPANS:
        return [(int(wanted[0]), int(wanted[-1]) + 1)]
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(wanted, breaks)]


class _Rows:
    """The columns while they are filled."""

    def __init__(self, n_jobs: int, tasks: Sequence[int] | Int64s | None) -> None:
        self._all = tasks is None
        self._tasks = np.arange(n_jobs, dtype=np.int64) if tasks is None else np.unique(np.asarray(tasks, np.int64))
        count = len(self._tasks)
        self._state = np.full(count, CODES[TaskState.PENDING], np.int8)
        self._numbers = {name: np.full(count, UNKNOWN, np.int64) for name in NUMBERS}
        self._failure = np.full(count, UNKNOWN, np.int64)

    def _places(self, tasks: Int64s) -> tuple[Int64s, npt.NDArray[np.bool_] | slice]:
        """Return where these tasks' rows are, and which of the tasks have one."""
        if self._all:
            if len(tasks) and not 0 <= int(tasks.min()) <= int(tasks.max()) < len(self._tasks):
                raise DamagedPoolError(
                    f"the pool is damaged: its state tells of task {int(tasks.max())}, and pool.json of"
                    f" {len(self._tasks)} tasks",
                    "they are not of one pool: restore both from a copy",
                )
            return tasks, slice(None)
        places = np.searchsorted(self._tasks, tasks)
        there = places < len(self._tasks)
        there[there] = self._tasks[places[there]] == tasks[there]
        return places[there], there

    def _put(self, tasks: Int64s, state: TaskState | None, **numbers: Int64s) -> None:
        places, there = self._places(tasks)
        if state is not None:
            self._state[places] = CODES[state]
        for name, values in numbers.items():
            self._numbers[name][places] = values[there]

    def _mark(self, ranges: Sequence[tuple[int, int]], state: TaskState) -> None:
        bounds = np.array(ranges, np.int64).reshape(-1, 2)
        for first, last in (bounds if self._all else np.searchsorted(self._tasks, bounds)).tolist():
            self._state[first:last] = CODES[state]

    def add_attempts(self, reader: StateReader) -> None:
        """Tasks that ran before and are to run again."""
        attempts = reader.attempts()
        tasks = np.fromiter(attempts, np.int64, len(attempts))
        self._put(tasks, None, attempt=np.fromiter((now for now, _ in attempts.values()), np.int64, len(attempts)))

    def add_cancelled(self, reader: StateReader) -> None:
        """Cancelled tasks."""
        self._mark(reader.cancelled_ranges(), TaskState.CANCELLED)

    def add_running(self, running: Sequence[RunningTask]) -> None:
        """Running tasks; a handful."""
        self._put(
            np.array([each.task for each in running], np.int64),
            TaskState.RUNNING,
            attempt=np.array([each.attempt for each in running], np.int64),
            started=np.array([to_microseconds(each.started) for each in running], np.int64),
            duration_ns=np.array([int(each.elapsed * NANOSECONDS) for each in running], np.int64),
            worker=np.array([each.worker for each in running], np.int64),
        )

    def add_failures(self, reader: StateReader) -> pa.Array:
        """Failed tasks; returns the errors' texts, to which ``_failure`` points."""
        found = reader.failure_columns()
        if not found:
            return texts([])
        tasks, attempt, state, errors, started, duration_ns, worker, udf = zip(*found, strict=True)
        numbers = {"attempt": attempt, "started": started, "duration_ns": duration_ns, "worker": worker, "udf": udf}
        try:
            columns = {name: np.array(filled(values, UNKNOWN), np.int64) for name, values in numbers.items()}
            where = np.array(tasks, np.int64)
            shown = texts(list(errors))
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DamagedPoolError(
                f"{reader.path} is damaged: a failure in it is none that jobpool wrote: {error}", advice(reader.path)
            ) from error
        places, there = self._places(where)
        timeout = np.array([each == TaskState.TIMEOUT for each in state])
        self._put(where, TaskState.ERROR, cpu_ns=np.full(len(where), UNKNOWN, np.int64), **columns)
        self._put(where[timeout], TaskState.TIMEOUT)
        self._failure[places] = np.arange(len(where))[there]
        return shown

    def add_successes(self, paths: PoolPaths, reader: StateReader, tasks: Sequence[int] | Int64s | None) -> None:
        """Successful tasks with all their facts."""
        for span in [None] if tasks is None else spans_of(tasks):
            for part in read_outcomes(paths, reader, ["task", *NUMBERS], span):
                if part.num_rows:
                    where = numbers(part["task"])
                    self._put(where, TaskState.SUCCESS, **{name: numbers(part[name]) for name in NUMBERS})
                    self._failure[self._places(where)[0]] = UNKNOWN

    def mark_successes(self, reader: StateReader) -> None:
        """Successful tasks, only that they are: enough where nobody asks for them."""
        self._mark(reader.success_ranges(), TaskState.SUCCESS)

    def table(self, failures: pa.Array, states: Sequence[TaskState] | None) -> pa.Table:
        """Return the table, only of tasks in these states."""
        kept: npt.NDArray[np.bool_] | slice = slice(None)
        if states is not None:
            kept = np.isin(self._state, [CODES[state] for state in states])
        number = {name: values[kept] for name, values in self._numbers.items()}
        failure = self._failure[kept]
        columns = {
            "task": fixed_width(self._tasks[kept], pa.int64()),
            "state": pa.DictionaryArray.from_arrays(
                fixed_width(self._state[kept], pa.int8()), texts(list(map(str, STATES)))
            ),
            "attempt": _nullable(number["attempt"], pa.int32()),
            "started": _nullable(number["started"], pa.timestamp("us", "UTC")),
            "duration": _nullable(number["duration_ns"], pa.float64()),
            "cpu": _nullable(number["cpu_ns"], pa.float64()),
            "worker": _nullable(number["worker"], pa.int32()),
            "udf": _nullable(number["udf"], pa.int32()),
            "error": failures.take(_nullable(failure, pa.int64())),
        }
        return pa.table({name: columns[name] for name in COLUMNS})


def _nullable(values: Int64s, kind: pa.DataType) -> pa.Array:
    known = values != UNKNOWN
    if pa.types.is_floating(kind):
        return fixed_width(values / NANOSECONDS, kind, known)
    return fixed_width(values, pa.int64(), known).cast(kind)
