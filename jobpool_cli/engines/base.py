"""The contract between the supervisor and what runs its batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from jobpool_cli.worker.protocol import BatchOrder


@dataclass(frozen=True)
class Ready:
    """A worker has loaded the UDF."""

    slot: int


@dataclass(frozen=True)
class BootFailed:
    """A worker could not load the UDF: the pool cannot run. ``hint`` says what to do, if anything is known."""

    slot: int
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Refused:
    """A worker cannot write to the pool: ``number`` is the system's for the reason."""

    slot: int
    number: int
    message: str


@dataclass(frozen=True)
class Outcomes:
    """A worker's report on a batch: ``body`` as ``worker.outbox`` builds it, checked, and the columns."""

    slot: int
    worker: int
    body: dict[str, Any]
    payload: bytes


@dataclass(frozen=True)
class Trace:
    """Where a worker was when it died: Python's frames as text, and the deepest one in the user's code."""

    text: str
    where: tuple[str, int, str] | None


@dataclass(frozen=True)
class Lost:
    """A worker is gone.

    Attributes:
        cause: a value of ``LossCause``.
        batch: the batch it was in, None if in none.
        position: the position in it that was running.
        sure: whether its end came during that task, rather than was noticed during it.
        exit: how the process ended, in words.
        started: when the running task began, microseconds since the epoch.
        duration: how long it ran, nanoseconds.
        log: byte range of its output.
        trace: where it was, if it could write that down.
        unbegun: batches that were sent to it and that it never read.
    """

    slot: int
    worker: int
    cause: str
    batch: int | None
    position: int | None
    booted: bool
    exit: str
    started: int | None = None
    duration: int | None = None
    log: tuple[int, int] | None = None
    trace: Trace | None = None
    unbegun: tuple[int, ...] = ()
    sure: bool = True


@dataclass(frozen=True)
class TakenBack:
    """A batch has come back that its worker had not begun: what ``take_back`` could not tell at once."""

    slot: int
    batch: int


@dataclass(frozen=True)
class Trimmed:
    """A worker keeps only so many leading positions of a batch: what ``trim`` could not tell at once."""

    slot: int
    batch: int
    kept: int


@dataclass(frozen=True)
class Closed:
    """The engine can run nothing any more, until the pool is resumed: ``Lost`` of all workers precedes it."""

    slot: int
    reason: str


@dataclass(frozen=True)
class Queued:
    """Machines have been asked for, and it may take long until there is one."""

    slot: int


EngineEvent = Queued | Ready | BootFailed | Refused | Outcomes | Lost | TakenBack | Trimmed | Closed


class Engine(Protocol):
    """Runs batches in worker slots numbered from 0; everything but ``poll`` returns at once.

    Attributes:
        udf: the code version that workers load first from now on.
        deaf: whether what workers send stays with them for the time being.
    """

    udf: int
    deaf: bool

    def spawn(self, slot: int, delay: float) -> None:
        """Start a worker in a free slot after a delay in seconds; ``Ready``, ``BootFailed`` or ``Lost`` follows."""

    def send(self, slot: int, order: BatchOrder) -> None:
        """Hand a batch to a ready worker; ``Outcomes`` follow until one is final, or ``Lost``."""

    def take_back(self, slot: int, batch: int) -> bool:
        """Take a batch back if its worker has not begun it; True if so. Or ``TakenBack`` follows."""

    def trim(self, slot: int, batch: int) -> int | None:
        """Keep a worker from beginning further tasks of a batch.

        Returns:
            the number of leading positions that stay with the worker; None if it is past that batch, or in another,
            or ``Trimmed`` follows.
        """

    def kill(self, slot: int, cause: str) -> None:
        """End a worker and all that it started; ``Lost`` with that cause follows."""

    def poll(self, timeout: float) -> Iterator[EngineEvent]:
        """Wait up to a number of seconds for something to happen, and yield it.

        Whoever iterates may call the other methods between two events: a worker whose death has not been yielded yet
        still takes batches, and names them as ``unbegun`` in its ``Lost``.
        """

    def stop(self) -> None:
        """End all workers and all that they started; no event follows."""
