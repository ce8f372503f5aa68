"""What happens to a pool, and what its supervisor then does: the vocabulary of the pure scheduler.

Positions count from 0 inside a batch; tasks count from 0 inside the pool; ranges are half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from jobpool_cli.store.ranges import Ranges
from jobpool_cli.worker.protocol import BatchOrder


class LossCause(StrEnum):
    """Why a worker process is gone."""

    CRASH = "crash"  # it died by itself, or a stranger killed it
    TIMEOUT = "timeout"  # killed: its task ran past --timeout
    MEMORY = "memory"  # killed: its task held more than --memory-limit
    CANCELLED = "cancelled"  # killed by `cancel --running`
    UNSTARTED = "unstarted"  # the machine did not let it start
    STOPPED = "stopped"  # killed by `shutdown --no-wait`


# --- events


@dataclass(frozen=True)
class WorkerReady:
    """A worker process has loaded the UDF and takes batches."""

    slot: int


@dataclass(frozen=True)
class OutcomesArrived:
    """A worker finished the positions up to ``upto`` of a batch.

    Attributes:
        busy: seconds that the positions since the last such event took.
        failed: (position, state) of those that failed.
        final: the worker is through with the batch, whether or not it ran all of it.
    """

    slot: int
    batch: int
    upto: int
    busy: float
    failed: tuple[tuple[int, str], ...]
    final: bool


@dataclass(frozen=True)
class WorkerLost:
    """A worker process is gone.

    Attributes:
        batch: the batch that its slot last showed, None if it was in none.
        position: the position in it that was running.
        booted: whether it ever became ready.
        unbegun: batches that were sent to it and that it never read.
        sure: whether the task at the position is to blame; if not, it may be any task of the batch that has begun and
            is not recorded.
    """

    slot: int
    cause: LossCause
    batch: int | None
    position: int | None
    booted: bool = True
    unbegun: tuple[int, ...] = ()
    sure: bool = True


@dataclass(frozen=True)
class BatchTakenBack:
    """A batch that its worker had not begun is in the supervisor's hands again."""

    slot: int
    batch: int


@dataclass(frozen=True)
class BatchTrimmed:
    """The worker will run the positions below ``kept`` of the batch, and no others."""

    slot: int
    batch: int
    kept: int


@dataclass(frozen=True)
class TasksAdded:
    """Tasks are pending (again): at the start, and after a retry.

    Attributes:
        ranges: of tasks at their first attempt.
        singles: (task, attempt) of tasks at a later one; limits on crashes and retries count anew.
    """

    ranges: Ranges = ()
    singles: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class UdfChanged:
    """Tasks that are pending from now on run another version of the code."""

    udf: int


@dataclass(frozen=True)
class CancelAsked:
    """Nothing that is pending shall run; ``running`` tasks are stopped, too, if asked."""

    running: bool


@dataclass(frozen=True)
class PauseAsked:
    """Hand out nothing; what runs goes on to its end."""


@dataclass(frozen=True)
class DiskFilled:
    """Hand out nothing, whatever people ask for: outcomes could not be recorded."""


@dataclass(frozen=True)
class RoomFound:
    """The disk takes outcomes again."""


@dataclass(frozen=True)
class ResumeAsked:
    """Hand out tasks again."""


@dataclass(frozen=True)
class StopAsked:
    """Go home: let running tasks end, or kill them; pending tasks stay pending."""

    kill: bool


@dataclass(frozen=True)
class StopRevoked:
    """Stay after all, and go on."""


@dataclass(frozen=True)
class Tick:
    """Time passed."""


Event = (
    WorkerReady
    | OutcomesArrived
    | WorkerLost
    | BatchTakenBack
    | BatchTrimmed
    | TasksAdded
    | UdfChanged
    | CancelAsked
    | PauseAsked
    | DiskFilled
    | RoomFound
    | ResumeAsked
    | StopAsked
    | StopRevoked
    | Tick
)


# --- effects


@dataclass(frozen=True)
class Spawn:
    """Start a worker process in a slot, after ``delay`` seconds."""

    slot: int
    delay: float = 0.0


@dataclass(frozen=True)
class Send:
    """Hand a batch to a worker."""

    slot: int
    order: BatchOrder


@dataclass(frozen=True)
class TakeBack:
    """Try to take back a batch that its worker may not have begun."""

    slot: int
    batch: int


@dataclass(frozen=True)
class Trim:
    """Try to keep the worker from beginning any further task of a batch."""

    slot: int
    batch: int


@dataclass(frozen=True)
class Kill:
    """End a worker process."""

    slot: int
    cause: LossCause


@dataclass(frozen=True)
class SettleFailure:
    """What becomes of a failure that a worker reported: the task's final state, or (``again``) a further attempt."""

    slot: int
    task: int
    attempt: int
    again: bool


@dataclass(frozen=True)
class RecordLoss:
    """A task's worker went down with it: record that, as the task's final state or (``again``) as history."""

    slot: int
    task: int
    attempt: int
    udf: int
    cause: LossCause
    again: bool


@dataclass(frozen=True)
class SetAttempts:
    """Tasks go on to another attempt; ``since`` is the attempt from which limits count."""

    tasks: tuple[tuple[int, int, int], ...]  # (task, attempt, since)


@dataclass(frozen=True)
class RecordCancelled:
    """Pending tasks are cancelled."""

    ranges: Ranges


@dataclass(frozen=True)
class Abort:
    """The pool cannot go on; pending tasks stay pending."""

    reason: str


Effect = Spawn | Send | TakeBack | Trim | Kill | SettleFailure | RecordLoss | SetAttempts | RecordCancelled | Abort
