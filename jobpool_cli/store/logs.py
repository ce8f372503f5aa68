"""What tasks wrote: byte ranges of the workers' logs, and how to read no more of them than is asked for."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jobpool_cli.errors import MachineError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import RunningTask, TaskState
from jobpool_cli.store.durable import open_old
from jobpool_cli.store.outcomes.segments import read_outcomes
from jobpool_cli.store.outcomes.table import Int64s, numbers
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.tasks import spans_of

CHUNK_BYTES = 1 << 16
# `--tail` looks back no further than this for where its lines begin: a log without line ends must not be read whole.
TAIL_BYTES = 64 << 20
# A power loss leaves a file longer than its data: the rest reads as zeros. Fewer may have been written on purpose
# (`find -print0` ends with one).
LOST_NULS = 8
# From the end of a task to its record: the worker's batch and the supervisor's commit, a fifth and a tenth of a second.
RECORD_SECONDS = 2.0
LOOK_SECONDS = 0.05
# Looks at a task that has not begun cost a query.
WAIT_SECONDS = 0.2

COLUMNS = ["task", "attempt", "worker", "log_start", "log_end"]

Look = Callable[[], Sequence[RunningTask]]


@dataclass(frozen=True)
class TaskLog:
    """What one attempt of a task wrote.

    Attributes:
        state: success, error or timeout for an attempt that ended, running for one that goes on.
        path: the worker's log.
        start: first byte.
        end: behind the last byte; for a running task the end of what there is by now.
        missing: bytes that the attempt wrote and that the file has no more.
    """

    task: int
    attempt: int
    state: TaskState
    worker: int
    path: Path
    start: int
    end: int
    missing: int = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes, a piece at a time."""
        yield from read_bytes(self.path, self.start, self.end)

    def last_lines(self, count: int) -> TaskLog:
        """Return the same without all but the last lines."""
        if self.start >= self.end:
            return self
        with _opened(self.path) as fd:
            return replace(self, start=_start_of_last_lines(fd, self.start, self.end, count))

    def existing(self) -> TaskLog:
        """Return the same without what the file does not hold, or holds as zeros since the machine went down."""
        if self.start >= self.end:
            return self
        try:
            with _opened(self.path) as fd:
                end = max(self.start, _end_of_data(fd, self.start, min(self.end, os.fstat(fd).st_size)))
        except FileNotFoundError:
            end = self.start
        return self if end == self.end else replace(self, end=end, missing=self.end - end)


def find_logs(
    paths: PoolPaths,
    reader: StateReader,
    running: Sequence[RunningTask],
    tasks: Sequence[int] | None = None,
    attempt: int | None = None,
) -> Iterator[TaskLog]:
    """Yield where the logs are, ascending by task: of each task's latest attempt that has one.

    Args:
        paths: the pool.
        reader: an open reader of its state.
        running: what its workers run right now, read before the state.
        tasks: only these; without it, all that wrote anything.
        attempt: only this one instead of the latest.
    """
    found = _Found()
    # Later entries win over earlier ones of the same attempt: what has ended was seen running a moment ago.
    found.add(
        TaskState.RUNNING, [(each.task, each.attempt, each.worker, each.log_start, STILL_OPEN) for each in running]
    )
    for span in [None] if tasks is None else spans_of(tasks):
        failed = reader.failure_logs(span)
        for state in (TaskState.ERROR, TaskState.TIMEOUT):
            found.add(state, [(*row[:2], *row[3:6]) for row in failed if row[2] == state])
        for part in read_outcomes(paths, reader, COLUMNS, span):
            columns = [numbers(part[name]) for name in COLUMNS]
            found.add_columns(TaskState.SUCCESS, columns if tasks is not None else found.telling(columns))
    files: dict[int, Path] = {}
    for state, (task, number, worker, start, end) in found.latest(tasks, attempt):
        path = files.get(worker) or files.setdefault(worker, paths.worker_log(worker))
        yield TaskLog(task, number, state, worker, path, start, end)


class _Found:
    """Where logs are, as columns."""

    def __init__(self) -> None:
        self._parts: list[list[Int64s]] = []

    def add(self, state: TaskState, rows: Sequence[Sequence[int]]) -> None:
        """Add rows of ``COLUMNS``."""
        if rows:
            self.add_columns(state, [np.array(values, np.int64) for values in zip(*rows, strict=True)])

    def telling(self, columns: Sequence[Int64s]) -> list[Int64s]:
        """Return those of successes that wrote anything, or that followed upon something that is held: few of most."""
        known = np.concatenate([part[0] for part in self._parts] or [np.empty(0, np.int64)])
        kept = (columns[4] > columns[3]) | np.isin(columns[0], known)
        return [values[kept] for values in columns]

    def add_columns(self, state: TaskState, columns: Sequence[Int64s]) -> None:
        """Add the columns ``COLUMNS``."""
        self._parts.append([*columns, np.full(len(columns[0]), STATES.index(state), np.int64)])

    def latest(self, tasks: Sequence[int] | None, attempt: int | None) -> Iterator[tuple[TaskState, list[int]]]:
        """Yield the rows of each task's latest attempt, or of the given one, ascending."""
        if not self._parts:
            return
        columns = [np.concatenate(parts) for parts in zip(*self._parts, strict=True)]
        kept = np.ones(len(columns[0]), np.bool_)
        if tasks is not None:
            kept &= np.isin(columns[0], np.array(tasks, np.int64))
        if attempt is not None:
            kept &= columns[1] == attempt
        columns = [values[kept] for values in columns]
        order = np.lexsort((columns[1], columns[0]))  # stable: of equals, the one added last comes last
        ordered = columns[0][order]
        is_last = np.ones(len(order), np.bool_)
        is_last[:-1] = ordered[1:] != ordered[:-1]
        chosen = order[is_last]
        if tasks is None:
            chosen = chosen[columns[4][chosen] > columns[3][chosen]]  # those that wrote anything
        for *values, state in zip(*(column[chosen].tolist() for column in columns), strict=True):
            yield STATES[state], values


STATES = (TaskState.RUNNING, TaskState.ERROR, TaskState.TIMEOUT, TaskState.SUCCESS)
# The end of a running task's log, before anyone has looked at the file.
STILL_OPEN = 2**62


def end_of_running(log: TaskLog, paths: PoolPaths, reader: StateReader, look: Look) -> TaskLog:
    """Return a running task's log with the end that it has now, or, if the task has just ended, had at its end."""
    deadline = time.monotonic() + RECORD_SECONDS
    while True:
        seen = _verified_end(log, look)
        if seen is not None:
            return replace(log, end=max(log.start, seen))
        recorded = next(find_logs(paths, reader, (), [log.task], log.attempt), None)
        if recorded is not None:
            return recorded
        if time.monotonic() >= deadline:
            # Its end is on no record, say because the pool was interrupted: what follows in the file may be its own.
            return replace(log, end=max(log.start, _size(log.path)))
        time.sleep(LOOK_SECONDS)


def _verified_end(log: TaskLog, look: Look) -> int | None:
    """The file's length if all of it up to there is the task's: the task still runs after the length was read."""
    size = _size(log.path)
    return size if any((each.task, each.attempt, each.worker) == _identity(log) for each in look()) else None


def _identity(log: TaskLog) -> tuple[int, int, int]:
    return log.task, log.attempt, log.worker


def follow_task(
    paths: PoolPaths, reader: StateReader, task: int, look: Look, is_over: Callable[[], bool], tail: int | None = None
) -> Iterator[tuple[TaskLog, bytes]]:
    """Yield what a task writes, as it writes it, until it has ended; of one that has ended, what it wrote.

    Args:
        paths: the pool.
        reader: an open reader of its state.
        task: it may be pending still.
        look: says what runs right now.
        is_over: says whether nobody works on the pool any more.
        tail: begin with so many lines of what there is already.
    """
    shown: TaskLog | None = None
    position = 0
    while True:
        over = is_over()
        log = next((_of_running(paths, each) for each in look() if each.task == task), None)
        if log is not None:
            end = _verified_end(log, look)
            log = replace(log, end=log.start if end is None else max(end, log.start))
        else:
            log = next(find_logs(paths, reader, (), [task]), None)
            if log is not None:
                log = log.existing()
            elif over and shown is not None:
                log = replace(shown, end=_size(shown.path))  # interrupted: no record will come
        if log is not None:
            if shown is None or _identity(log) != _identity(shown):
                position = log.start if tail is None or shown is not None else log.last_lines(tail).start
                shown = log
            for chunk in read_bytes(log.path, position, log.end):
                yield log, chunk
            position = max(position, log.end)
            if log.state is not TaskState.RUNNING and not _goes_on(reader, log):
                yield log, b""  # the end, and perhaps that something is missing
                return
        if over:
            return
        time.sleep(LOOK_SECONDS if log is not None else WAIT_SECONDS)


def _of_running(paths: PoolPaths, running: RunningTask) -> TaskLog:
    return TaskLog(
        running.task,
        running.attempt,
        TaskState.RUNNING,
        running.worker,
        paths.worker_log(running.worker),
        running.log_start,
        STILL_OPEN,
    )


def _goes_on(reader: StateReader, log: TaskLog) -> bool:
    """Whether the task runs once more after this attempt."""
    if log.state is TaskState.SUCCESS:
        return False
    found = reader.failure_logs((log.task, log.task + 1))
    return not any(attempt == log.attempt and current for _, attempt, *_, current in found)


@dataclass(frozen=True)
class WorkerOutput:
    """A piece of a worker's log; ``task`` is known where the task still ran after the piece was read."""

    worker: int
    task: int | None
    data: bytes


def follow_workers(paths: PoolPaths, look: Look, is_over: Callable[[], bool]) -> Iterator[WorkerOutput]:
    """Yield what all workers write from now on, and what the running tasks wrote so far, until the pool is over."""
    positions = dict(_log_sizes(paths))
    positions |= {each.worker: each.log_start for each in look()}
    while True:
        over = is_over()
        before = {each.worker: each for each in look()}
        sizes = _log_sizes(paths)
        after = {each.worker: _slot_identity(each) for each in look()}
        for worker, size in sizes:
            position = positions.get(worker, 0)
            task = before.get(worker)
            sure = task is not None and task.log_start <= position and after.get(worker) == _slot_identity(task)
            for chunk in read_bytes(paths.worker_log(worker), position, size):
                yield WorkerOutput(worker, task.task if task is not None and sure else None, chunk)
            positions[worker] = max(position, size)
        if over:
            return
        time.sleep(LOOK_SECONDS)


def _slot_identity(running: RunningTask) -> tuple[int, int]:
    return running.task, running.attempt


def _log_sizes(paths: PoolPaths) -> list[tuple[int, int]]:
    sizes = []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(paths.logs):
            number = entry.name.removeprefix("worker-").removesuffix(".log")
            if number.isdecimal():
                sizes.append((int(number), entry.stat().st_size))
    return sorted(sizes)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        fd = open_old(path, os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise MachineError(f"{path} cannot be read: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def read_bytes(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a range, as far as the file has them."""
    if start >= end:
        return
    with contextlib.suppress(FileNotFoundError), _opened(path) as fd:
        while start < end:
            chunk = os.pread(fd, min(CHUNK_BYTES, end - start), start)
            if not chunk:
                return
            yield chunk
            start += len(chunk)


def _extents(fd: int, start: int, end: int) -> list[tuple[int, int]]:
    """The parts of a range that are not holes."""
    found = []
    while start < end:
        try:
            low = os.lseek(fd, start, os.SEEK_DATA)
        except OSError:  # no data from here on
            break
        high = os.lseek(fd, low, os.SEEK_HOLE)
        if low < end:
            found.append((low, min(high, end)))
        start = high
    return found


def _end_of_data(fd: int, start: int, end: int) -> int:
    """The end of a range without the zeros that a power loss has left."""
    if start >= end or os.pread(fd, LOST_NULS, max(start, end - LOST_NULS)).strip(b"\0"):
        return end
    for low, high in reversed(_extents(fd, start, end)):
        position = high
        while position > low:
            begin = max(low, position - CHUNK_BYTES)
            data = os.pread(fd, position - begin, begin).rstrip(b"\0")
            if data:
                found = begin + len(data)
                return end if end - found < LOST_NULS else found
            position = begin
    return end if end - start < LOST_NULS else start


def _start_of_last_lines(fd: int, start: int, end: int, count: int) -> int:
    """Where the last lines of a range begin; the end of the range is the end of a line."""
    if count <= 0:
        return end
    lower = max(start, end - TAIL_BYTES)
    missing = count + (os.pread(fd, 1, end - 1) == b"\n")
    extents = _extents(fd, lower, end)
    for low, high in reversed(extents):
        position = high
        while position > low:
            begin = max(low, position - CHUNK_BYTES)
            data = os.pread(fd, position - begin, begin)
            at = len(data)
            while (at := data.rfind(b"\n", 0, at)) >= 0:
                missing -= 1
                if not missing:
                    return begin + at + 1
            position = begin
    # Fewer lines than asked for: all of them, though not the hole before them.
    return extents[0][0] if extents else end
