"""Frozen types that every layer shares: states and their legal moves, options, status, one task's facts.

Standard library only: ``jobpool status`` loads this and must start as fast as Python does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class TaskState(StrEnum):
    """Where a task stands. Finished states are success, error, timeout and cancelled; failed are error and timeout."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


FAILED_STATES = frozenset({TaskState.ERROR, TaskState.TIMEOUT})
FINISHED_STATES = FAILED_STATES | {TaskState.SUCCESS, TaskState.CANCELLED}

# pending -> cancelled is `cancel`; finished -> pending is `retry`; running -> pending is a worker's death or an
# automatic retry. Success is final: nothing acknowledged is ever taken back.
TRANSITIONS: Mapping[TaskState, frozenset[TaskState]] = {
    TaskState.PENDING: frozenset({TaskState.RUNNING, TaskState.CANCELLED}),
    TaskState.RUNNING: frozenset(
        {TaskState.SUCCESS, TaskState.ERROR, TaskState.TIMEOUT, TaskState.CANCELLED, TaskState.PENDING}
    ),
    TaskState.SUCCESS: frozenset(),
    TaskState.ERROR: frozenset({TaskState.PENDING}),
    TaskState.TIMEOUT: frozenset({TaskState.PENDING}),
    TaskState.CANCELLED: frozenset({TaskState.PENDING}),
}


class PoolState(StrEnum):
    """What a pool is doing: ``interrupted`` means unfinished with nobody working on it (`resume` goes on)."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"


@dataclass(frozen=True)
class PoolOptions:
    """How a pool runs; chosen at `map`, kept in pool.json.

    Attributes:
        workers: worker slots; each runs ``processes_per_worker`` processes.
        processes_per_worker: processes side by side in a worker slot.
        timeout: seconds that one attempt of a task may take; None for no limit.
        retries: further attempts that a failed task gets by itself.
        max_crashes: deaths of its worker after which a task counts as failed.
        memory_limit: bytes (PSS) that a worker and its children may hold; None for no limit.
        grace: seconds between SIGTERM and SIGKILL when a task is stopped.
    """

    workers: int = 1
    processes_per_worker: int = 1
    timeout: float | None = None
    retries: int = 0
    max_crashes: int = 3
    memory_limit: int | None = None
    grace: float = 2.0

    @property
    def processes(self) -> int:
        """Worker processes in all."""
        return self.workers * self.processes_per_worker

    def as_dict(self) -> dict[str, Any]:
        """The options as pool.json holds them."""
        return asdict(self)


@dataclass(frozen=True)
class UdfSource:
    """Which code a pool runs: one snapshot of the user's function.

    Attributes:
        version: 1 for the code of `map`, rising with each `retry --udf`.
        path: the file as the user named it, absolute; shown in tracebacks.
        function: the function's name in that file.
        sha256: of the snapshot's main file, hex.
        created: when the snapshot was taken (UTC).
    """

    version: int
    path: str
    function: str
    sha256: str
    created: datetime


@dataclass(frozen=True)
class Where:
    """The deepest frame of a failure that lies in the user's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """``file:line in function``, as editors and people read it."""
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True)
class Failure:
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


@dataclass(frozen=True)
class RunningTask:
    """A task that a live worker is on right now, read from the shared slots."""

    task: int
    attempt: int
    worker: int
    pid: int
    started: datetime
    elapsed: float
    log_start: int


@dataclass(frozen=True)
class PoolStatus:
    """One look at a pool, cheap at any size.

    Attributes:
        counts: tasks by state; all six states are present and sum to ``n_jobs``.
        total_time: seconds from `map` to the last finished task so far (0.0 before the first).
        retry_time: seconds from the last `retry` to the last finished task; None if never retried.
        reason: why the pool is interrupted or paused, empty otherwise.
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
    udf_versions: Mapping[int, int] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        """Tasks in a finished state."""
        return sum(self.counts[state] for state in FINISHED_STATES)

    @property
    def failed(self) -> int:
        """Tasks in error or timeout."""
        return sum(self.counts[state] for state in FAILED_STATES)
