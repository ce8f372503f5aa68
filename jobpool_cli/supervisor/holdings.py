"""What the scheduler holds: ranges of tasks that wait, batches that workers have, what counts against a task."""

from __future__ import annotations

from dataclasses import dataclass

from jobpool_cli.worker.protocol import BatchOrder

# A batch's rows are Python objects in the worker: this bounds its memory.
MAX_BATCH_TASKS = 65_536


@dataclass(frozen=True)
class Pending:
    """A range of tasks that wait; ``cap`` bounds the batches made of it (1: run each alone)."""

    low: int
    high: int
    attempt: int
    cap: int = MAX_BATCH_TASKS

    @property
    def size(self) -> int:
        """How many tasks."""
        return self.high - self.low


@dataclass
class Outstanding:
    """A batch in the hands of a worker."""

    order: BatchOrder
    size: int
    cap: int
    done: int = 0
    asked_back: bool = False

    def running_at(self, batch: int | None, position: int | None) -> int | None:
        """Return the position of this batch at which its worker was, None if that was between tasks or in another."""
        if batch != self.order.batch or position is None:
            return None
        return position if self.done <= position < self.size else None


@dataclass
class History:
    """What counts against the limits of one task that ran and will run again."""

    since: int
    crashes: int = 0
    failures: int = 0
    row: int = 0
    """For the fuse: the row of crashes in which the first one was."""
