"""Frozen types that every layer shares: states and their legal moves, options, status, one task's facts.

Standard library only: ``jobpool status`` loads this and must start as fast as Python does. That is why they are named
tuples: the making of a frozen dataclass takes four times as long.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from jobpool_cli.errors import UsageError

# Processes that one pool can have on a machine: records of the shared file that tells what each of them runs.
MAX_PROCESSES = 1024

_PLACE = r"(?P<file>.*?)(:(?P<line>\d+))?( in (?P<function>.+))?"
# How a place is written that lies outside of the user's code: a killed worker has none.
NOWHERE = "-"


class TaskState(StrEnum):
    """Where a task stands. Finished states are success, error, timeout and cancelled; failed are error and timeout.

    A pending task runs, or is cancelled; a running one ends in a finished state, or is pending again when its worker
    dies or it is retried by itself. `retry` makes failed and cancelled tasks pending. Success is final.
    """

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


FAILED_STATES = frozenset({TaskState.ERROR, TaskState.TIMEOUT})
FINISHED_STATES = FAILED_STATES | {TaskState.SUCCESS, TaskState.CANCELLED}


class PoolState(StrEnum):
    """What a pool is doing: ``interrupted`` means unfinished with nobody working on it (`resume` goes on)."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"


class Cluster(NamedTuple):
    """Where tasks run that do not run on this machine: a Dask scheduler, or a cluster that is started for the pool.

    Attributes:
        scheduler: the address of a running Dask scheduler; None where a cluster is started.
        kind: the cluster to start: local, slurm, pbs, lsf, sge or htcondor.
        options: what is given to the cluster's class.
        minimum: workers at least, where they come and go with the work; None for as many all the time.
    """

    scheduler: str | None = None
    kind: str | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 - a default of a named tuple, which nobody changes
    minimum: int | None = None


CLUSTER_KINDS = ("local", "slurm", "pbs", "lsf", "sge", "htcondor")


class PoolOptions(NamedTuple):
    """How a pool runs; chosen at `map`, kept in pool.json.

    Attributes:
        workers: worker slots; each runs ``processes_per_worker`` processes.
        processes_per_worker: processes side by side in a worker slot.
        timeout: seconds that one attempt of a task may take; None for no limit.
        retries: further attempts that a failed task gets by itself.
        max_crashes: deaths of its worker after which a task counts as failed.
        memory_limit: bytes (PSS) that a worker and its children may hold; None for no limit.
        grace: seconds between SIGTERM and SIGKILL when a task is stopped.
        cluster: where the workers are; None for this machine.
    """

    workers: int = 1
    processes_per_worker: int = 1
    timeout: float | None = None
    retries: int = 0
    max_crashes: int = 3
    memory_limit: int | None = None
    grace: float = 2.0
    cluster: Cluster | None = None

    @property
    def processes(self) -> int:
        """Worker processes in all."""
        return self.workers * self.processes_per_worker

    def as_dict(self) -> dict[str, Any]:
        """The options as pool.json holds them."""
        return {**self._asdict(), "cluster": self.cluster._asdict() if self.cluster is not None else None}


def default_workers() -> int:
    """Return how many workers a pool has if nobody says: one for each core that this process may use."""
    return min(len(os.sched_getaffinity(0)), MAX_PROCESSES)


def check_processes(options: PoolOptions) -> PoolOptions:
    """Return the options if a pool can have so many processes.

    Raises:
        UsageError: it cannot.
    """
    if options.processes > MAX_PROCESSES:
        raise UsageError(
            f"{options.workers} workers with {options.processes_per_worker} processes each are"
            f" {options.processes} processes",
            f"a pool has at most {MAX_PROCESSES} on one machine",
        )
    return options


class Where(NamedTuple):
    """The deepest frame of a failure that lies in the user's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """``file:line in function``, as editors and people read it."""
        return f"{self.file}:{self.line} in {self.function}"

    def is_at(self, place: str) -> bool:
        """Return whether a place that somebody wrote is this one.

        Args:
            place: ``file``, ``file:line`` or ``file:line in function``; the file absolute, relative to the working
                folder, or only the end of its path.
        """
        wanted = re.fullmatch(_PLACE, place, re.DOTALL)
        assert wanted is not None  # noqa: S101 - every part is optional
        file, line, function = wanted["file"], wanted["line"], wanted["function"]
        return (
            (self.file in {file, os.path.abspath(file)} or self.file.endswith(f"/{file}"))
            and (line is None or self.line == int(line))
            and (function is None or self.function == function)
        )


class Failure(NamedTuple):
    """One failed attempt of one task, as the state database keeps it.

    Attributes:
        task: position in the arguments, from 0.
        attempt: from 1.
        state: error or timeout (a crash after which the task ran again is an error that is not ``current``).
        type: the exception's type, qualified unless a builtin (``ValueError``, ``mymod.MyError``).
        message: ``str(exception)``, cut where it is very long.
        where: deepest frame in the user's code, None where there is none (a killed worker).
        traceback: the remote traceback's text.
        started: when the attempt began (UTC), None if unknown.
        duration: seconds.
        worker: number of the worker process, names the log file.
        log: byte range in that worker's log.
        udf: version of the code that ran.
        current: whether this failure is the task's present state (False: it ran again since).
    """

    task: int
    attempt: int
    state: TaskState
    type: str
    message: str
    where: Where | None
    traceback: str
    started: datetime | None
    duration: float | None
    worker: int | None
    log: tuple[int, int] | None
    udf: int
    current: bool = True


class FailureGroup(NamedTuple):
    """Failures of one exception type at one place of the user's code.

    Attributes:
        type: the exception's type, as ``Failure`` has it.
        where: deepest frame in the user's code, None where there is none (a killed worker).
        size: tasks whose present state is such a failure.
        example: the lowest of them.
        message: the example's.
    """

    type: str
    where: Where | None
    size: int
    example: int
    message: str

    def is_like(self, kind: str | None, at: str | None) -> bool:
        """Return whether a description fits.

        Args:
            kind: the type, as `errors` shows it; None fits every type.
            at: the place, as ``Where.is_at`` reads it, or ``-`` for failures that have none; None fits every place.
        """
        if kind is not None and kind != self.type:
            return False
        if at is None:
            return True
        return self.where is None if at == NOWHERE else self.where is not None and self.where.is_at(at)


class Ended(NamedTuple):
    """One attempt of a task that ended.

    Attributes:
        task: position in the arguments, from 0.
        attempt: from 1.
        state: success, error, timeout or cancelled.
        finished: when (UTC), None if unknown.
        duration: seconds, None if unknown.
        error: ``type: message``, empty for a success.
        where: deepest frame in the user's code, for an error.
        again: the task was, or will be, run again: this is not its last word.
    """

    task: int
    attempt: int
    state: TaskState
    finished: datetime | None
    duration: float | None
    error: str = ""
    where: Where | None = None
    again: bool = False


class Changes(NamedTuple):
    """What ended between two looks.

    Attributes:
        listed: attempts one by one, in the order in which they ended.
        others: how many more tasks ended in each state.
        others_again: how many more attempts failed whose tasks run again.
    """

    listed: tuple[Ended, ...] = ()
    others: Mapping[TaskState, int] = MappingProxyType({})
    others_again: int = 0

    @property
    def first_failure(self) -> Ended | None:
        """The first of those listed that is a failure for good, if there is one; failures are always listed first."""
        return next((each for each in self.listed if each.state in FAILED_STATES and not each.again), None)


class RunningTask(NamedTuple):
    """A task that a live worker is on right now, read from the shared slots.

    Attributes:
        task: position in the arguments, from 0.
        attempt: from 1.
        worker: number of the worker process, names the log file.
        pid: that process, for display only.
        started: when the attempt began (UTC).
        elapsed: seconds since then.
        log_start: offset in the worker's log at which the attempt's output begins.
    """

    task: int
    attempt: int
    worker: int
    pid: int
    started: datetime
    elapsed: float
    log_start: int


class PoolStatus(NamedTuple):
    """One look at a pool, cheap at any size.

    Attributes:
        pool: its name.
        state: what it is doing.
        n_jobs: tasks in all.
        counts: tasks by state; all six states are present and sum to ``n_jobs``.
        created: when `map` made it (UTC).
        total_time: seconds from `map` to the last finished task so far (0.0 before the first).
        retry_time: seconds from the last `retry` to the last finished task; None if never retried.
        reason: why the pool is interrupted or paused, empty otherwise.
        udf: the entry point of the code of `map`, ``file.py:function``.
        workers: worker processes, as `map` was told; not how many live.
        udf_versions: for each code version that produced results, how many.
    """

    pool: str
    state: PoolState
    n_jobs: int
    counts: Mapping[TaskState, int]
    created: datetime
    total_time: float
    retry_time: float | None = None
    reason: str = ""
    udf: str = ""
    workers: int = 0
    udf_versions: Mapping[int, int] = MappingProxyType({})

    @property
    def finished(self) -> int:
        """Tasks in a finished state."""
        return sum(self.counts[state] for state in FINISHED_STATES)

    @property
    def failed(self) -> int:
        """Tasks in error or timeout."""
        return sum(self.counts[state] for state in FAILED_STATES)

    @property
    def is_done(self) -> bool:
        """Whether all tasks are finished."""
        return self.state is PoolState.DONE

    @property
    def all_succeeded(self) -> bool:
        """Whether all tasks are finished with success."""
        return self.counts[TaskState.SUCCESS] == self.n_jobs

    @property
    def any_succeeded(self) -> bool:
        """Whether any task is finished with success."""
        return self.counts[TaskState.SUCCESS] > 0

    @property
    def any_failed(self) -> bool:
        """Whether any task is in error or timeout."""
        return self.failed > 0
