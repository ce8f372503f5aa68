"""The scheduler against its model, driven by hypothesis, and by chance over long histories; see ``scheduler_model``."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobpool_cli.supervisor.events import (
    CancelAsked,
    Event,
    LossCause,
    PauseAsked,
    ResumeAsked,
    StopAsked,
    StopRevoked,
    TasksAdded,
    Tick,
    UdfChanged,
)
from tests.faults.ledger import scaled
from tests.supervisor.scheduler_model import Fake, Model

SLOTS = st.integers(0, 2)


class SchedulerMachine(Model, RuleBasedStateMachine):
    @initialize(
        slots=st.integers(1, 3),
        tasks=st.sampled_from([300, 120, 40, 7, 2, 1, 0]),
        retries=st.integers(0, 2),
        max_crashes=st.integers(1, 3),
        seconds=st.sampled_from([1e-5, 1e-3, 0.01, 1.0]),
        warm=st.integers(0, 60),
    )
    def start(self, slots: int, tasks: int, retries: int, max_crashes: int, seconds: float, warm: int) -> None:
        self.begin(slots=slots, tasks=tasks, retries=retries, max_crashes=max_crashes, seconds=seconds)
        for slot in range(slots):
            # Most of what can go wrong needs batches of many tasks, which come when some have run.
            self.go_on(slot, warm, good=True)

    # --- rules

    def worker(self, slot: int) -> Fake | None:
        return self.workers[slot % len(self.workers)]

    @rule(slot=SLOTS)
    def boot(self, slot: int) -> None:
        self.make_ready(slot % len(self.workers))

    @rule(slot=SLOTS, steps=st.integers(1, 40), good=st.booleans(), delivered=st.booleans())
    def go_on(self, slot: int, steps: int, good: bool, delivered: bool = True) -> None:  # noqa: FBT001, FBT002
        self.boot(slot)
        self.work(slot % len(self.workers), steps, good=good)
        if delivered:
            self.deliver_letters(slot, 1000)

    @rule(slot=SLOTS, most=st.integers(1, 3))
    def deliver_letters(self, slot: int, most: int) -> None:
        fake = self.worker(slot)
        if fake is not None:
            self.deliver(fake, most)

    @rule(slot=SLOTS, steps=st.integers(0, 6))
    def flush(self, slot: int, steps: int) -> None:
        self.go_on(slot, steps, good=True, delivered=False)
        fake = self.worker(slot)
        if fake is not None and fake.unsent and not fake.running:
            self.send(slot % len(self.workers), fake, final=False)

    @rule(
        slot=SLOTS,
        steps=st.integers(0, 12),
        cause=st.sampled_from([LossCause.CRASH, LossCause.CRASH, LossCause.TIMEOUT, LossCause.MEMORY]),
    )
    def die(self, slot: int, steps: int, cause: LossCause) -> None:
        if steps:
            self.go_on(slot, steps, good=True, delivered=False)
        fake = self.worker(slot)
        if fake is not None:
            # What kills a worker for its task kills one that runs a task.
            self.lose(slot % len(self.workers), cause if fake.running else LossCause.CRASH)

    @rule(slot=SLOTS)
    def fail_to_start(self, slot: int) -> None:
        fake = self.worker(slot)
        if fake is not None and not fake.booted:
            self.lose(slot % len(self.workers), LossCause.UNSTARTED)

    @rule(tasks=st.integers(1, 90), max_steps=st.integers(1, 2))
    def every_task_crashes(self, tasks: int, max_steps: int) -> None:
        for turn in range(tasks):
            slot = turn % len(self.workers)
            self.make_ready(slot)
            fake = self.workers[slot]
            # Read the order and begin; a worker that was further on has its task end first.
            self.work(slot, 2 if fake and fake.current is None else max_steps)
            if fake is not None and fake.running:
                self.lose(slot, LossCause.CRASH)

    @rule(slot=SLOTS, says_goodbye=st.booleans())
    def carry_out_kill(self, slot: int, says_goodbye: bool) -> None:  # noqa: FBT001
        fake = self.worker(slot)
        if fake is None or fake.condemned is None:
            return
        if says_goodbye and fake.running and fake.unsent:
            self.send(slot % len(self.workers), fake, final=False)
        self.lose(slot % len(self.workers), fake.condemned)

    @rule()
    def the_supervisor_is_killed_and_the_pool_resumed(self) -> None:
        self.interrupt()

    @rule(kill=st.booleans())
    def stop(self, kill: bool) -> None:  # noqa: FBT001
        self.feed(StopAsked(kill))

    @rule()
    def revoke_the_stop(self) -> None:
        self.feed(StopRevoked())

    @rule(works=st.booleans())
    def trims_work_or_come_between_two_tasks(self, works: bool) -> None:  # noqa: FBT001
        self.trims = works

    @rule(event=st.sampled_from([Tick(), PauseAsked(), ResumeAsked(), ResumeAsked()]))
    def hear(self, event: Event) -> None:
        self.feed(event)

    @rule(running=st.booleans())
    def cancel(self, running: bool) -> None:  # noqa: FBT001
        self.feed(CancelAsked(running))
        assert not self.scheduler._pending

    @rule()
    def mend_the_code(self) -> None:
        self.udf += 1
        self.feed(UdfChanged(self.udf))

    @rule(some=st.sampled_from([1, 2, 3]), cancelled=st.booleans())
    def retry(self, some: int, cancelled: bool) -> None:  # noqa: FBT001
        ranges, singles = [], []
        for task, book in enumerate(self.tasks):
            if task % some or book.state not in {"failed", "cancelled" if cancelled else ""}:
                continue
            again = book.state == "failed" or book.recorded
            book.state, book.crashes, book.failures, book.first_counted = "pending", 0, 0, 0
            if again:
                book.attempt += 1
                book.since, book.recorded = book.attempt, True
                singles.append((task, book.attempt))
            else:
                ranges.append((task, task + 1))
        self.feed(TasksAdded(tuple(ranges), tuple(singles)))

    @rule(seed=st.integers(0, 2**32))
    def a_busy_hour_passes(self, seed: int) -> None:
        """Many of the above, likelier ones more often: what goes wrong only after a long history is found by this."""
        chance = random.Random(seed)  # noqa: S311
        for _ in range(60):
            slot, steps = chance.randrange(3), chance.randrange(1, 25)
            good, delivered = chance.random() < 0.9, chance.random() < 0.7
            deeds: list[tuple[float, Callable[[], None]]] = [
                (12, partial(self.go_on, slot, steps, good=good, delivered=delivered)),
                (4, partial(self.deliver_letters, slot, chance.randrange(1, 3))),
                (4, partial(self.flush, slot, chance.randrange(6))),
                (4, partial(self.die, slot, steps, chance.choice([*LossCause][:3]))),
                (1, partial(self.fail_to_start, slot)),
                (0.3, partial(self.every_task_crashes, chance.randrange(90), chance.randrange(1, 3))),
                (3, partial(self.carry_out_kill, slot, says_goodbye=chance.random() < 0.5)),
                (0.5, self.the_supervisor_is_killed_and_the_pool_resumed),
                (0.5, partial(self.stop, kill=chance.random() < 0.5)),
                (2, self.revoke_the_stop),
                (2, partial(self.trims_work_or_come_between_two_tasks, works=chance.random() < 0.7)),
                (1, partial(self.hear, PauseAsked())),
                (3, partial(self.hear, ResumeAsked())),
                (1, partial(self.cancel, running=chance.random() < 0.7)),
                (1, self.mend_the_code),
                (3, partial(self.retry, chance.randrange(1, 3), cancelled=chance.random() < 0.8)),
            ]
            chance.choices([deed for _, deed in deeds], [weight for weight, _ in deeds])[0]()
            self.check_counts()
            self.check_nobody_idles()

    @precondition(lambda self: hasattr(self, "workers"))
    @rule()
    def all_work_ends(self) -> None:
        """With workers that work, everything that is not cancelled comes to its end, in a bounded number of steps."""
        self.finish()

    def teardown(self) -> None:
        if hasattr(self, "workers"):
            self.all_work_ends()

    # --- what holds at any moment

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "workers"):
            self.check_counts()

    @invariant()
    def nobody_idles_while_tasks_wait(self) -> None:
        if hasattr(self, "workers"):
            self.check_nobody_idles()


class StoppingMachine(SchedulerMachine):
    """The same, and then it is told to stop: what has not ended stays pending, nothing is handed out any more."""

    def teardown(self) -> None:
        if not hasattr(self, "workers"):
            return
        self.feed(StopAsked(kill=True))
        for slot, fake in enumerate(self.workers):
            if fake is not None and fake.condemned is not None:
                self.lose(slot, fake.condemned)
        assert self.scheduler.idle
        assert not self.held
        self.counts_agree()


FEW = settings(
    max_examples=scaled(60, 3000),
    stateful_step_count=scaled(25, 50),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = FEW
TestStopping = StoppingMachine.TestCase
TestStopping.settings = settings(FEW, max_examples=scaled(20, 700))


@pytest.mark.parametrize("part", range(scaled(4, 40)))
def test_long_histories_keep_to_the_model(part: int) -> None:
    for seed in range(part * 1000, part * 1000 + scaled(30, 120)):
        chance = random.Random(seed)  # noqa: S311
        machine = SchedulerMachine()
        machine.start(
            slots=chance.randrange(1, 4),
            tasks=chance.choice([5, 60, 300]),
            retries=chance.randrange(3),
            max_crashes=chance.randrange(1, 4),
            seconds=chance.choice([1e-5, 1e-3, 0.01]),
            warm=chance.randrange(40),
        )
        for _ in range(3):
            machine.a_busy_hour_passes(seed=chance.getrandbits(32))
        machine.teardown()
