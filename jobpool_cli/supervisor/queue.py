"""The tasks that wait, as ranges in the order in which they will be handed out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from jobpool_cli.store.ranges import Ranges
from jobpool_cli.supervisor.holdings import Pending
from jobpool_cli.worker.protocol import MAX_RANGES_PER_BATCH


class Queue:
    """Ranges of tasks that wait; knows how many tasks that are."""

    def __init__(self) -> None:
        """Begin empty."""
        self._ranges: deque[Pending] = deque()
        self.tasks = 0

    def __bool__(self) -> bool:
        """Whether any task waits."""
        return bool(self._ranges)

    def __iter__(self) -> Iterator[Pending]:
        """Yield the ranges, the next one first."""
        return iter(self._ranges)

    @property
    def head(self) -> Pending:
        """The range from which the next batch is taken."""
        return self._ranges[0]

    def add(self, pending: Pending, *, front: bool = False) -> None:
        """Add a range; one that goes on where its neighbour in the queue ends (or begins) joins it."""
        if pending.size <= 0:
            return
        self.tasks += pending.size
        beside = self._ranges[0 if front else -1] if self._ranges else None
        if beside is not None and (beside.attempt, beside.cap) == (pending.attempt, pending.cap):
            if front and pending.high == beside.low:
                self._ranges[0] = Pending(pending.low, beside.high, pending.attempt, pending.cap)
                return
            if not front and beside.high == pending.low:
                self._ranges[-1] = Pending(beside.low, pending.high, pending.attempt, pending.cap)
                return
        (self._ranges.appendleft if front else self._ranges.append)(pending)

    def take(self, size: int) -> Ranges:
        """Take so many tasks from the front at most: as many as can make one batch with the first of them."""
        attempt, cap = self.head.attempt, self.head.cap
        found: list[tuple[int, int]] = []
        while size and self._ranges and len(found) < MAX_RANGES_PER_BATCH:
            head = self.head
            if head.attempt != attempt or head.cap != cap:
                break
            count = min(size, head.size)
            found.append((head.low, head.low + count))
            self._ranges.popleft()
            if count < head.size:
                self._ranges.appendleft(Pending(head.low + count, head.high, attempt, cap))
            size -= count
            self.tasks -= count
        return tuple(found)

    def clear(self) -> Ranges:
        """Take everything."""
        found = tuple((each.low, each.high) for each in self._ranges)
        self._ranges.clear()
        self.tasks = 0
        return found

    def bring_a_crashed_one_first(self) -> bool:
        """Have a task come first that is to run alone, if one is at the front or the end; whether there is."""
        if self._ranges[0].cap != 1 and self._ranges[-1].cap == 1:
            self._ranges.rotate(1)
        return self._ranges[0].cap == 1

    def bring_a_distant_one_first(self) -> None:
        """Have the middle of the widest range come first, alone; where all are single tasks, one of the middle."""
        index, widest = max(enumerate(self._ranges), key=lambda pair: pair[1].size)
        if widest.size == 1:
            # Those that crashed stay at the end, where they are looked for.
            index = len(self._ranges) // 2
            widest = self._ranges[index]
        middle = (widest.low + widest.high) // 2
        del self._ranges[index]
        for low, high in ((middle + 1, widest.high), (widest.low, middle)):
            if low < high:
                self._ranges.insert(index, Pending(low, high, widest.attempt, widest.cap))
        self._ranges.appendleft(Pending(middle, middle + 1, widest.attempt, widest.cap))
