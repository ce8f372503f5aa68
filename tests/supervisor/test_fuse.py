"""The fuse of pools of which every task crashes, against whole pools with crashing rows in them, played through."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from jobpool_cli.supervisor.events import (
    Abort,
    BatchTakenBack,
    Effect,
    Event,
    LossCause,
    OutcomesArrived,
    RecordLoss,
    Send,
    Spawn,
    TakeBack,
    TasksAdded,
    Tick,
    UdfChanged,
    WorkerLost,
    WorkerReady,
)
from jobpool_cli.supervisor.fuse import TASKS, TASKS_PER_FURTHER_WORKER
from jobpool_cli.supervisor.scheduler import Scheduler
from jobpool_cli.worker.protocol import BatchOrder

MILLION = 1_000_000


def tasks_of(order: BatchOrder) -> list[int]:
    return [task for low, high in order.ranges for task in range(low, high)]


class Play:
    """Workers that crash on bad tasks and succeed on all others; ``slow`` ones only end when nothing else does."""

    def __init__(self, *, slots: int = 2, max_crashes: int = 3, before: int = 0, seed: int = 1) -> None:
        """Begin a pool; ``before``: successes that its books hold already."""
        self.scheduler = Scheduler(slots=slots, udf=1, retries=0, max_crashes=max_crashes)
        self.scheduler.credit(before)
        self.orders: dict[int, list[BatchOrder]] = {}
        self.starts = 0
        self.succeeded: set[int] = set()
        self.failed: list[int] = []
        self.reason = ""
        self.chance = random.Random(seed)  # noqa: S311

    def feed(self, event: Event) -> None:
        events = [event]
        while events:
            for effect in self.scheduler.handle(events.pop(0), 0.0):
                events += self.apply(effect)

    def apply(self, effect: Effect) -> list[Event]:
        match effect:
            case Spawn(slot):
                self.starts += 1
                self.orders[slot] = []
                return [WorkerReady(slot)]
            case Send(slot, order):
                self.orders[slot].append(order)
            case TakeBack(slot, batch) if self.orders[slot][-1].batch == batch and len(self.orders[slot]) > 1:
                self.orders[slot].pop()
                return [BatchTakenBack(slot, batch)]
            case RecordLoss(task=task, again=False):
                self.failed.append(task)
            case Abort(reason):
                self.reason = reason
        return []

    def run(
        self,
        tasks: Iterable[tuple[int, int]],
        bad: Callable[[int], bool],
        *,
        slow: Callable[[int], bool] = lambda _: False,
        steps: int = 10**9,
    ) -> None:
        self.feed(TasksAdded(tuple(tasks)))
        for _ in range(steps):
            busy = [slot for slot, orders in self.orders.items() if orders]
            quick = [
                slot
                for slot in busy
                if bad(tasks_of(self.orders[slot][0])[0]) or not slow(self.orders[slot][0].ranges[0][0])
            ]
            if not busy:
                return
            self.step(self.chance.choice(quick or busy), bad)

    def step(self, slot: int, bad: Callable[[int], bool]) -> None:
        order = self.orders[slot][0]
        tasks = tasks_of(order)
        position = next((position for position, task in enumerate(tasks) if bad(task)), None)
        if position is None:
            self.orders[slot].pop(0)
            self.succeeded.update(tasks)
            self.feed(OutcomesArrived(slot, order.batch, len(tasks), 1e-3 * len(tasks), (), final=True))
        else:
            unbegun = tuple(each.batch for each in self.orders.pop(slot)[1:])
            self.feed(WorkerLost(slot, LossCause.CRASH, order.batch, position, unbegun=unbegun))
        self.feed(Tick())


@pytest.mark.parametrize(("slots", "max_crashes"), [(1, 3), (2, 3), (2, 1), (16, 3), (4, 10)])
def test_a_million_tasks_that_all_crash_cost_some_dozens_of_workers_and_stay_pending(
    slots: int, max_crashes: int
) -> None:
    play = Play(slots=slots, max_crashes=max_crashes)
    play.run([(0, MILLION)], bad=lambda _: True)
    limit = TASKS + TASKS_PER_FURTHER_WORKER * (slots - 1)
    assert len(play.failed) in range(limit, limit + slots)
    assert f"{limit} tasks in a row crashed" in play.reason
    assert play.starts <= (limit + slots) * max_crashes + 2 * slots
    assert play.scheduler.idle
    assert sum(each.size for each in play.scheduler._pending) == MILLION - len(play.failed)


def test_a_resumed_pool_gets_as_many_tasks_again() -> None:
    play = Play(slots=1)
    play.run([(0, 1000)], bad=lambda _: True)
    left = [(each.low, each.high) for each in play.scheduler._pending]
    again = Play(slots=1)
    again.run(left, bad=lambda _: True)
    assert len(again.failed) == TASKS
    assert not set(again.failed) & set(play.failed)


def test_fewer_tasks_than_that_all_crash_to_their_end() -> None:
    play = Play(slots=1)
    play.run([(0, TASKS)], bad=lambda _: True)
    assert (sorted(play.failed), play.reason) == (list(range(TASKS)), "")


def one_of(share: int) -> Callable[[int], bool]:
    return lambda task: task % share == 0


BLOCKS: dict[str, Callable[[int], bool]] = {
    "every 100th": one_of(100),
    "every second": one_of(2),
    "two of three": lambda task: task % 3 > 0,
    "at random, half": lambda task: hash((task, 7)) % 2 == 0,
    "the first 250": lambda task: task < 250,
    "the first half": lambda task: task < 500,
    "a block in the middle": lambda task: 250 <= task < 600,
    "the last 450": lambda task: task >= 550,
    "the first seven tenths": lambda task: task < 700,
}


@pytest.mark.parametrize("where", BLOCKS)
@pytest.mark.parametrize(("slots", "max_crashes"), [(1, 3), (2, 1), (16, 2)])
def test_a_pool_with_good_rows_among_crashing_ones_runs_to_its_end(where: str, slots: int, max_crashes: int) -> None:
    bad = BLOCKS[where]
    for seed in range(2):
        play = Play(slots=slots, max_crashes=max_crashes, seed=seed)
        play.run([(0, 1000)], bad)
        assert not play.reason
        assert play.scheduler.finished
        assert play.succeeded == {task for task in range(1000) if not bad(task)}
        assert Counter(play.failed) == Counter(task for task in range(1000) if bad(task))


def test_good_tasks_that_take_long_while_others_crash_at_once_are_waited_for() -> None:
    half = random.Random(1)  # noqa: S311
    bad = [half.random() < 0.5 for _ in range(1000)]
    for seed in range(4):
        play = Play(slots=32, seed=seed)
        play.run([(0, 1000)], bad.__getitem__, slow=lambda task: not bad[task])
        assert not play.reason
        assert len(play.failed) == sum(bad)


def test_what_succeeded_before_an_interruption_counts_for_the_rest_of_the_pool() -> None:
    play = Play(before=1000)
    play.run([(1000, 1500)], bad=lambda _: True)
    assert (len(play.failed), play.reason) == (500, "")


def test_mended_code_that_crashes_blows_the_fuse_whatever_the_old_code_did() -> None:
    play = Play(slots=1, before=MILLION)
    play.feed(UdfChanged(2))
    play.run([(0, 1000)], bad=lambda _: True)
    assert len(play.failed) == TASKS


def test_tasks_that_are_retried_as_they_are_may_crash_again_to_their_end() -> None:
    play = Play(slots=1)
    play.run([(0, 15)], bad=lambda _: True)
    play.feed(TasksAdded(singles=tuple((task, 4) for task in range(15))))
    play.run([(15, 19)], bad=lambda _: True)
    assert len(play.failed) == 34
    assert not play.reason


def test_a_worker_that_strangers_kill_does_not_blow_it_where_many_crashes_are_allowed() -> None:
    play = Play(slots=2, max_crashes=1000)
    play.run([(0, 100)], bad=lambda _: True, steps=10_000)
    assert not play.reason
