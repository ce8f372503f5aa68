"""The scheduler against a model: fake workers that run, die, are trimmed and robbed; requests at any moment.

The model keeps its own books of every task and checks every effect against them. What it holds the scheduler to:

- a task is settled (success, failure, cancelled) once, until a retry opens it again;
- it is in the hands of one worker at most, and an attempt of it is begun once at most;
- only the task that ran is blamed for the death of its worker, and it fails when its limit is reached, not before;
- the counts agree, and when all workers do their work, everything ends.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobpool_cli.supervisor.events import (
    Abort,
    BatchTakenBack,
    BatchTrimmed,
    CancelAsked,
    Effect,
    Event,
    Kill,
    LossCause,
    OutcomesArrived,
    PauseAsked,
    RecordCancelled,
    RecordLoss,
    ResumeAsked,
    Send,
    SetAttempts,
    SettleFailure,
    Spawn,
    StopAsked,
    TakeBack,
    TasksAdded,
    Tick,
    Trim,
    UdfChanged,
    WorkerLost,
    WorkerReady,
)
from jobpool_cli.supervisor.scheduler import MAX_BOOT_DEATHS, Scheduler
from jobpool_cli.worker.protocol import BatchOrder

SLOTS = st.integers(0, 2)


@dataclass
class Task:
    """The model's book of one task."""

    state: str = "pending"
    attempt: int = 1
    since: int = 1
    recorded: bool = False
    crashes: int = 0
    failures: int = 0
    first_counted: int = 0
    begun: set[int] = field(default_factory=set)


@dataclass
class Fake:
    """A worker process: orders that it has not read, and how far it is in the one that it runs."""

    booted: bool = False
    condemned: LossCause | None = None
    unread: deque[BatchOrder] = field(default_factory=deque)
    current: BatchOrder | None = None
    tasks: list[int] = field(default_factory=list)
    position: int = 0
    running: bool = False
    limit: int = 0
    sent: int = 0
    unsent: list[bool] = field(default_factory=list)


def tasks_of(order: BatchOrder) -> list[int]:
    return [task for low, high in order.ranges for task in range(low, high)]


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        slots=st.integers(1, 3),
        tasks=st.sampled_from([300, 120, 40, 7, 2, 1, 0]),
        retries=st.integers(0, 2),
        max_crashes=st.integers(1, 3),
        seconds=st.sampled_from([1e-5, 1e-3, 0.01, 1.0]),
        warm=st.integers(0, 60),
    )
    def start(self, slots: int, tasks: int, retries: int, max_crashes: int, seconds: float, warm: int) -> None:
        self.scheduler = Scheduler(slots=slots, udf=1, retries=retries, max_crashes=max_crashes)
        self.retries, self.max_crashes, self.seconds = retries, max_crashes, seconds
        self.tasks = [Task() for _ in range(tasks)]
        self.workers: list[Fake | None] = [None] * slots
        self.held: dict[int, tuple[int, int]] = {}
        self.udf = 1
        self.trims = True
        self.boot_deaths = 0
        self.aborted = False
        self.may_be_blamed: set[int] = set()
        self.losses = 0
        self.feed(TasksAdded(((0, tasks),) if tasks else ()))
        for slot in range(slots):
            # Most of what can go wrong needs batches of many tasks, which come when some have run.
            self.go_on(slot, warm, good=True)

    # --- carrying out effects, and checking them

    def feed(self, event: Event) -> None:
        events = deque([event])
        while events:
            was_cancelling = self.scheduler.cancelling
            self.losses = 0
            for effect in self.scheduler.handle(events.popleft(), 0.0):
                following = self.apply(effect, cancelling=was_cancelling)
                if following is not None:
                    events.append(following)

    def apply(self, effect: Effect, *, cancelling: bool) -> Event | None:  # noqa: C901, PLR0912
        match effect:
            case Spawn(slot):
                assert self.workers[slot] is None
                self.workers[slot] = Fake()
            case Send(slot, order):
                self.take_send(slot, order)
            case TakeBack(slot, batch):
                return self.take_back(slot, batch)
            case Trim(slot, batch):
                return self.trim(slot, batch)
            case Kill(slot, cause):
                fake = self.workers[slot]
                if fake is not None:
                    fake.condemned = fake.condemned or cause
            case SettleFailure(_, task, attempt, again):
                book = self.tasks[task]
                assert (book.state, book.attempt) == ("reported", attempt)
                book.state = "pending"
                book.failures += 1
                book.first_counted = book.first_counted or attempt
                assert again == (book.failures <= self.retries and not cancelling)
                if not again:
                    self.settle(task, "failed")
            case RecordLoss():
                self.take_loss(effect, cancelling=cancelling)
            case SetAttempts(attempts):
                for task, attempt, since in attempts:
                    book = self.tasks[task]
                    # Where nothing counts against a task, its limits may as well count from a later attempt.
                    assert since == book.since or book.since < since <= (book.first_counted or book.attempt)
                    book.since = since
                    assert attempt in {book.attempt, book.attempt + 1}
                    book.attempt, book.recorded = attempt, True
            case RecordCancelled(ranges):
                for task in (task for low, high in ranges for task in range(low, high)):
                    self.settle(task, "cancelled")
            case Abort():
                assert self.boot_deaths >= MAX_BOOT_DEATHS
                self.aborted = True
        return None

    def settle(self, task: int, state: str) -> None:
        assert self.tasks[task].state == "pending", f"task {task} was {self.tasks[task].state} already"
        assert task not in self.held
        self.tasks[task].state = state

    def take_send(self, slot: int, order: BatchOrder) -> None:
        fake = self.workers[slot]
        assert fake is not None
        assert fake.booted
        assert order.udf == self.udf
        for task in tasks_of(order):
            book = self.tasks[task]
            assert book.state == "pending"
            assert task not in self.held, f"two copies of task {task}"
            assert book.attempt == order.attempt
            self.held[task] = (slot, order.batch)
        fake.unread.append(order)
        assert len(fake.unread) <= 2

    def take_back(self, slot: int, batch: int) -> Event | None:
        fake = self.workers[slot]
        order = next((each for each in fake.unread if each.batch == batch), None) if fake else None
        if fake is None or order is None:
            return None
        fake.unread.remove(order)
        self.release(tasks_of(order))
        return BatchTakenBack(slot, batch)

    def trim(self, slot: int, batch: int) -> Event | None:
        fake = self.workers[slot]
        if fake is None or fake.current is None or fake.current.batch != batch or not (self.trims and fake.running):
            return None
        kept = fake.position + 1
        self.release(fake.tasks[kept : fake.limit])
        fake.limit = min(fake.limit, kept)
        return BatchTrimmed(slot, batch, kept)

    def take_loss(self, effect: RecordLoss, *, cancelling: bool) -> None:
        self.losses += 1
        assert self.losses == 1, "more than one task was blamed"
        assert effect.task in self.may_be_blamed
        book = self.tasks[effect.task]
        # The further attempt may have been announced already, in the same breath.
        assert effect.attempt in {book.attempt, book.attempt - 1}
        assert effect.cause is not LossCause.STOPPED
        if effect.cause is LossCause.CRASH:
            book.crashes += 1
            book.first_counted = book.first_counted or effect.attempt
            assert effect.again == (book.crashes < self.max_crashes and not cancelling)
        elif effect.cause is LossCause.CANCELLED:
            assert not effect.again
        else:
            book.failures += 1
            book.first_counted = book.first_counted or effect.attempt
            assert effect.again == (book.failures <= self.retries and not cancelling)
        if not effect.again:
            self.settle(effect.task, "cancelled" if effect.cause is LossCause.CANCELLED else "failed")

    def release(self, tasks: Sequence[int]) -> None:
        for task in tasks:
            del self.held[task]

    # --- what workers do

    def read_order(self, fake: Fake) -> None:
        fake.current = fake.unread.popleft()
        fake.tasks = tasks_of(fake.current)
        fake.position, fake.sent, fake.limit, fake.running = 0, 0, len(fake.tasks), False

    def begin(self, fake: Fake) -> None:
        assert fake.current is not None
        begun = self.tasks[fake.tasks[fake.position]].begun
        assert fake.current.attempt not in begun, f"attempt {fake.current.attempt} of a task was begun twice"
        begun.add(fake.current.attempt)
        fake.running = True

    def send(self, slot: int, fake: Fake, *, final: bool) -> None:
        assert fake.current is not None
        failed = []
        upto = fake.position
        for position, good in zip(range(fake.sent, upto), fake.unsent, strict=True):
            task = fake.tasks[position]
            self.release([task])
            if good:
                self.settle(task, "success")
            else:
                assert self.tasks[task].state == "pending"
                self.tasks[task].state = "reported"
                failed.append((position, "error"))
        batch, busy = fake.current.batch, self.seconds * (upto - fake.sent)
        fake.sent, fake.unsent = upto, []
        if final:
            self.release(fake.tasks[upto : fake.limit])
            fake.current = None
        self.feed(OutcomesArrived(slot, batch, upto, busy, tuple(failed), final))

    def work(self, slot: int, steps: int, *, good: bool = True) -> None:
        """Let a worker go on by so many steps: read an order, begin a task, end it, send."""
        for _ in range(steps):
            fake = self.workers[slot]
            if fake is None or not fake.booted:
                return
            if fake.current is None:
                if not fake.unread:
                    return
                self.read_order(fake)
            elif fake.running:
                fake.unsent.append(good)
                fake.position += 1
                fake.running = False
            elif fake.position < fake.limit:
                self.begin(fake)
            else:
                self.send(slot, fake, final=True)

    def lose(self, slot: int, cause: LossCause) -> None:
        fake = self.workers[slot]
        assert fake is not None
        self.workers[slot] = None
        if not fake.booted:
            self.boot_deaths += 1
        unbegun = tuple(order.batch for order in fake.unread)
        for order in fake.unread:
            self.release(tasks_of(order))
        batch = position = None
        self.may_be_blamed = set()
        if fake.current is not None:
            self.release(fake.tasks[fake.sent : fake.limit])
            if fake.running:
                batch, position = fake.current.batch, fake.position
                self.may_be_blamed = {fake.tasks[fake.position]}
            elif fake.limit - fake.sent == 1:
                # Nobody else can have been it: it was alone.
                self.may_be_blamed = {fake.tasks[fake.sent]}
        self.feed(WorkerLost(slot, cause, batch, position, fake.booted, unbegun))

    # --- rules

    def worker(self, slot: int) -> Fake | None:
        return self.workers[slot % len(self.workers)]

    @rule(slot=SLOTS)
    def boot(self, slot: int) -> None:
        fake = self.worker(slot)
        if fake is not None and not fake.booted:
            fake.booted = True
            self.boot_deaths = 0
            self.feed(WorkerReady(slot % len(self.workers)))

    @rule(slot=SLOTS, steps=st.integers(1, 40), good=st.booleans())
    def go_on(self, slot: int, steps: int, good: bool) -> None:  # noqa: FBT001
        self.boot(slot)
        self.work(slot % len(self.workers), steps, good=good)

    @rule(slot=SLOTS, steps=st.integers(0, 6))
    def flush(self, slot: int, steps: int) -> None:
        self.go_on(slot, steps, good=True)
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
            self.go_on(slot, steps, good=True)
        fake = self.worker(slot)
        if fake is None or (not fake.booted and self.boot_deaths == MAX_BOOT_DEATHS - 1):
            return
        # What kills a worker for its task kills one that runs a task.
        self.lose(slot % len(self.workers), cause if fake.running else LossCause.CRASH)

    @rule(slot=SLOTS, says_goodbye=st.booleans())
    def carry_out_kill(self, slot: int, says_goodbye: bool) -> None:  # noqa: FBT001
        fake = self.worker(slot)
        if fake is None or fake.condemned is None:
            return
        if says_goodbye and fake.running and fake.unsent:
            self.send(slot % len(self.workers), fake, final=False)
        self.lose(slot % len(self.workers), fake.condemned)

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
            deeds: list[tuple[int, Callable[[], None]]] = [
                (12, partial(self.go_on, slot, steps, good=chance.random() < 0.9)),
                (4, partial(self.flush, slot, chance.randrange(6))),
                (4, partial(self.die, slot, steps, chance.choice([*LossCause][:3]))),
                (3, partial(self.carry_out_kill, slot, says_goodbye=chance.random() < 0.5)),
                (2, partial(self.trims_work_or_come_between_two_tasks, works=chance.random() < 0.7)),
                (1, partial(self.hear, PauseAsked())),
                (3, partial(self.hear, ResumeAsked())),
                (1, partial(self.cancel, running=chance.random() < 0.7)),
                (1, self.mend_the_code),
                (3, partial(self.retry, chance.randrange(1, 3), cancelled=chance.random() < 0.8)),
            ]
            chance.choices([deed for _, deed in deeds], [weight for weight, _ in deeds])[0]()
            self.counts_agree()
            self.nobody_idles_while_tasks_wait()

    @precondition(lambda self: hasattr(self, "workers"))
    @rule()
    def all_work_ends(self) -> None:
        """With workers that work, everything that is not cancelled comes to its end, in a bounded number of steps."""
        self.feed(ResumeAsked())
        for _ in range(40 + 30 * len(self.tasks)):
            if self.scheduler.finished:
                break
            for slot in range(len(self.workers)):
                fake = self.workers[slot]
                if fake is not None and fake.condemned is not None:
                    self.lose(slot, fake.condemned)
                self.boot(slot)
                self.work(slot, 4)
            self.feed(Tick())
        assert self.scheduler.finished
        assert not [task for task, book in enumerate(self.tasks) if book.state == "pending"]

    def teardown(self) -> None:
        if hasattr(self, "workers"):
            self.all_work_ends()

    # --- what holds at any moment

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "workers"):
            return
        waiting = Counter(task for each in self.scheduler._pending for task in range(each.low, each.high))
        assert not [task for task, copies in waiting.items() if copies > 1 or task in self.held]
        assert len(waiting) == self.scheduler._pending_tasks
        unsettled = {task for task, book in enumerate(self.tasks) if book.state == "pending"}
        assert unsettled == set(waiting) | set(self.held)
        assert self.scheduler.outstanding_tasks == len(self.held)
        assert self.scheduler.finished == (
            not waiting and not any(worker and (worker.current or worker.unread) for worker in self.workers)
        )

    @invariant()
    def nobody_idles_while_tasks_wait(self) -> None:
        if not hasattr(self, "workers") or self.scheduler._restrained or not self.scheduler._pending:
            return
        assert any(self.workers), "tasks wait, and no worker is being started"
        assert all(worker.current or worker.unread for worker in self.workers if worker and worker.booted)


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
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = FEW
TestStopping = StoppingMachine.TestCase
TestStopping.settings = settings(FEW, max_examples=20)


@pytest.mark.parametrize("seed", range(120))
def test_long_histories_keep_to_the_model(seed: int) -> None:
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
