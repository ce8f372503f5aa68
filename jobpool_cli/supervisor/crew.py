"""The workers as the scheduler knows them: which slots have one, which are ready, and what each holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from jobpool_cli.supervisor.holdings import Outstanding


@dataclass
class Worker:
    """What the scheduler knows of one slot."""

    ready: bool = False
    spawned: bool = False
    batches: deque[Outstanding] = field(default_factory=deque)
    last_size: int = 0


class Crew:
    """All slots; sorted by what they could take, so that with a thousand of them an event need not look at each."""

    def __init__(self, slots: int) -> None:
        """Begin with so many slots and no worker."""
        self._workers = [Worker() for _ in range(slots)]
        self.vacant = set(range(slots))
        """Slots without a process."""
        self.ready: tuple[set[int], set[int]] = (set(), set())
        """Slots of workers that take batches: those that hold none, and those that hold one."""
        self.busy: set[int] = set()
        """Slots of workers that hold something."""
        self.booting = 0
        """Workers that were started and are not ready."""

    def __len__(self) -> int:
        """How many slots."""
        return len(self._workers)

    def __getitem__(self, slot: int) -> Worker:
        """Return the worker of a slot; only the methods below change it."""
        return self._workers[slot]

    def __iter__(self) -> Iterator[tuple[int, Worker]]:
        """Yield the slots that hold something, in their order, with their workers."""
        return iter([(slot, self._workers[slot]) for slot in sorted(self.busy)])

    @property
    def has_ready(self) -> bool:
        """Whether any worker takes batches, or would if it held fewer."""
        return len(self._workers) > len(self.vacant) + self.booting

    @property
    def outstanding(self) -> int:
        """Tasks that workers hold."""
        return sum(batch.size - batch.done for _, worker in self for batch in worker.batches)

    def find(self, slot: int, batch: int) -> Outstanding | None:
        """Return a batch that a worker holds."""
        return next((each for each in self._workers[slot].batches if each.order.batch == batch), None)

    def spawned(self, slot: int) -> None:
        """A worker is started in a slot."""
        self._workers[slot].spawned = True
        self.booting += 1
        self._sort_in(slot)

    def is_ready(self, slot: int) -> None:
        """A worker takes batches."""
        self._workers[slot].ready = True
        self.booting -= 1
        self._sort_in(slot)

    def takes(self, slot: int, batch: Outstanding) -> None:
        """A worker holds one more batch."""
        worker = self._workers[slot]
        worker.last_size = batch.size
        worker.batches.append(batch)
        self._sort_in(slot)

    def is_through(self, slot: int, batch: Outstanding) -> None:
        """A worker holds a batch no more."""
        self._workers[slot].batches.remove(batch)
        self._sort_in(slot)

    def lost(self, slot: int) -> deque[Outstanding]:
        """A worker is gone; return what it held."""
        worker = self._workers[slot]
        if worker.spawned and not worker.ready:
            self.booting -= 1
        self._workers[slot] = Worker(last_size=1)
        self._sort_in(slot)
        return worker.batches

    def _sort_in(self, slot: int) -> None:
        worker = self._workers[slot]
        _keep(self.vacant, slot, not worker.spawned)
        _keep(self.busy, slot, bool(worker.batches))
        for held, slots in enumerate(self.ready):
            _keep(slots, slot, worker.ready and len(worker.batches) == held)


def _keep(slots: set[int], slot: int, belongs: bool) -> None:  # noqa: FBT001
    if belongs:
        slots.add(slot)
    else:
        slots.discard(slot)
