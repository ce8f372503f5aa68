"""What the scheduler holds: ranges of tasks that wait, batches that workers have, what counts against a task."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

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

    @cached_property
    def _offsets(self) -> list[int]:
        """The position at which each range begins."""
        return [0, *accumulate(high - low for low, high in self.order.ranges)]

    def running_at(self, batch: int | None, position: int | None) -> int | None:
        """Return the position of this batch at which its worker was, None if that was between tasks or in another."""
        if batch != self.order.batch or position is None:
            return None
        return position if self.done <= position < self.size else None

    def task_at(self, position: int) -> int:
        """Return the task at a position."""
        index = bisect_right(self._offsets, position) - 1
        return self.order.ranges[index][0] + position - self._offsets[index]

    def slices(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the task ranges at the positions from start to stop."""
        found = []
        for low, high in self.order.ranges:
            begin, end = max(low, low + start), min(high, low + stop)
            if begin < end:
                found.append((begin, end))
            start, stop = start - (high - low), stop - (high - low)
        return found


@dataclass
class Worker:
    """What the scheduler knows of one slot."""

    ready: bool = False
    spawned: bool = False
    batches: deque[Outstanding] = field(default_factory=deque)
    last_size: int = 0


@dataclass
class History:
    """What counts against the limits of one task that ran and will run again."""

    since: int
    crashes: int = 0
    failures: int = 0
    row: int = 0
    """For the fuse: the row of crashes in which the first one was."""
