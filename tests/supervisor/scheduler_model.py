"""The scheduler against a model: fake workers that run, die, are trimmed and robbed; requests at any moment.

The model keeps its own books of every task and checks every effect against them. What it holds the scheduler to:

- a task is settled (success, failure, cancelled) once, until a retry opens it again;
- it is in the hands of one worker at most, and an attempt of it is begun once at most;
- only the task that ran is blamed for the death of its worker, and it fails when its limit is reached, not before;
- nothing is handed out while the pool is paused, stopped or being cancelled;
- the counts agree, and when all workers do their work, everything ends.

What a worker sends lies in its channel until it is delivered, so that it races with requests, trims and deaths.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobpool_cli.supervisor.events import (
    Abort,
    BatchTakenBack,
    BatchTrimmed,
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
    StopRevoked,
    TakeBack,
    TasksAdded,
    Tick,
    Trim,
    UdfChanged,
    WorkerLost,
    WorkerReady,
)
from jobpool_cli.supervisor.fuse import TASKS
from jobpool_cli.supervisor.pace import MAX_BOOT_DEATHS
from jobpool_cli.supervisor.scheduler import Scheduler
from jobpool_cli.worker.protocol import BatchOrder


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
class Letter:
    """What a worker has sent: the event, the tasks that it tells of, and which of them went well."""

    event: OutcomesArrived
    tasks: list[int]
    good: list[bool]


@dataclass
class Fake:
    """A worker process: orders that it has not read, how far it is in the one that it runs, what it has sent."""

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
    letters: deque[Letter] = field(default_factory=deque)

    @property
    def busy(self) -> bool:
        """Whether the supervisor takes it to hold a batch."""
        return bool(self.current or self.unread or self.letters)


def tasks_of(order: BatchOrder) -> list[int]:
    return [task for low, high in order.ranges for task in range(low, high)]


class Model:
    """A scheduler, the workers that it thinks it has, and the books."""

    def begin(self, *, slots: int, tasks: int, retries: int, max_crashes: int, seconds: float) -> None:
        self.retries, self.max_crashes, self.seconds = retries, max_crashes, seconds
        self.tasks = [Task() for _ in range(tasks)]
        self.workers: list[Fake | None] = [None] * slots
        self.held: dict[int, tuple[int, int]] = {}
        self.udf = 1
        self.paused = False
        self.trims = True
        self.may_be_blamed: set[int] = set()
        self.losses = 0
        self.handled = 0
        self._new_scheduler()
        self.feed(TasksAdded(((0, tasks),) if tasks else ()))

    def _new_scheduler(self) -> None:
        self.scheduler = Scheduler(
            slots=len(self.workers),
            udf=self.udf,
            retries=self.retries,
            max_crashes=self.max_crashes,
            paused=self.paused,
        )
        self.stopping = False
        self.boot_deaths = 0
        self.crashed_in_a_row: set[int] = set()

    def interrupt(self) -> None:
        """Kill the supervisor and its workers; the next one begins with what the books say."""
        self.workers = [None] * len(self.workers)
        self.held.clear()
        self._new_scheduler()
        self.scheduler.credit(sum(1 for book in self.tasks if book.state == "success"))
        fresh = []
        for task, book in enumerate(self.tasks):
            if book.state != "pending":
                continue
            if book.attempt in book.begun:
                book.attempt, book.recorded = book.attempt + 1, True
            if book.recorded:
                self.scheduler.restore(
                    task, attempt=book.attempt, since=book.since, crashes=book.crashes, failures=book.failures
                )
            else:
                fresh.append((task, task + 1))
        self.feed(TasksAdded(tuple(fresh)))

    # --- carrying out effects, and checking them

    def feed(self, event: Event) -> None:
        self._note(event)
        events = deque([event])
        while events:
            was_cancelling = self.scheduler.cancelling
            self.losses = 0
            self.handled += 1
            for effect in self.scheduler.handle(events.popleft(), 0.0):
                following = self.apply(effect, cancelling=was_cancelling)
                if following is not None:
                    events.append(following)

    def _note(self, event: Event) -> None:
        match event:
            case PauseAsked():
                self.paused = True
            case ResumeAsked():
                self.paused = False
            case StopAsked():
                self.stopping = True
            case StopRevoked():
                self.stopping = False
            case UdfChanged() | TasksAdded():
                self.crashed_in_a_row.clear()
            case OutcomesArrived(upto=upto) if upto > 0:
                self.crashed_in_a_row.clear()

    def apply(self, effect: Effect, *, cancelling: bool) -> Event | None:  # noqa: C901, PLR0912
        match effect:
            case Spawn(slot):
                assert self.workers[slot] is None
                assert not self.stopping
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
                    self.set_attempt(task, attempt, since)
            case RecordCancelled(ranges):
                for task in (task for low, high in ranges for task in range(low, high)):
                    self.settle(task, "cancelled")
            case Abort():
                assert self.boot_deaths >= MAX_BOOT_DEATHS or len(self.crashed_in_a_row) >= TASKS
                self.stopping = True
        return None

    def set_attempt(self, task: int, attempt: int, since: int) -> None:
        book = self.tasks[task]
        # Where nothing counts against a task, its limits may as well count from a later attempt.
        assert since == book.since or book.since < since <= (book.first_counted or book.attempt)
        book.since = since
        assert attempt in {book.attempt, book.attempt + 1}
        book.attempt, book.recorded = attempt, True

    def settle(self, task: int, state: str) -> None:
        assert self.tasks[task].state == "pending", f"task {task} was {self.tasks[task].state} already"
        assert task not in self.held
        self.tasks[task].state = state

    def take_send(self, slot: int, order: BatchOrder) -> None:
        restrained = self.paused or self.stopping or self.scheduler.cancelling
        assert not restrained, "something is handed out all the same"
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
        assert len({*(order.batch for order in fake.unread), *(each.event.batch for each in fake.letters)}) <= 2

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
        if fake is None or fake.current is None or fake.current.batch != batch or not self.trims:
            return None
        # One that has begun nothing yet gives all of it back; between two tasks, nobody can tell.
        if not fake.running and fake.position:
            return None
        kept = fake.position + fake.running
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
            self.crashed_in_a_row.add(effect.task)
        elif effect.cause is LossCause.CANCELLED:
            assert not effect.again
        else:
            book.failures += 1
            book.first_counted = book.first_counted or effect.attempt
            assert effect.again == (book.failures <= self.retries and not cancelling)
            self.crashed_in_a_row.clear()
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

    def begin_task(self, fake: Fake) -> None:
        assert fake.current is not None
        begun = self.tasks[fake.tasks[fake.position]].begun
        assert fake.current.attempt not in begun, f"attempt {fake.current.attempt} of a task was begun twice"
        begun.add(fake.current.attempt)
        fake.running = True

    def send(self, slot: int, fake: Fake, *, final: bool) -> None:
        """Have a worker send what it has finished; it lies in the channel until somebody delivers it."""
        assert fake.current is not None
        span = range(fake.sent, fake.position)
        failed = tuple((at, "error") for at, good in zip(span, fake.unsent, strict=True) if not good)
        event = OutcomesArrived(slot, fake.current.batch, fake.position, self.seconds * len(span), failed, final)
        fake.letters.append(Letter(event, [fake.tasks[at] for at in span], fake.unsent))
        fake.sent, fake.unsent = fake.position, []
        if final:
            assert fake.position == fake.limit
            fake.current = None

    def deliver(self, fake: Fake, most: int = 1000) -> None:
        for _ in range(min(most, len(fake.letters))):
            letter = fake.letters.popleft()
            self.release(letter.tasks)
            for task, good in zip(letter.tasks, letter.good, strict=True):
                if good:
                    self.settle(task, "success")
                else:
                    assert self.tasks[task].state == "pending"
                    self.tasks[task].state = "reported"
            self.feed(letter.event)

    def work(self, slot: int, steps: int, *, good: bool = True) -> None:
        """Let a worker go on by so many steps: read an order, begin a task, end it, send."""
        fake = self.workers[slot]
        if fake is None or not fake.booted:
            return
        for _ in range(steps):
            if fake.current is None:
                if not fake.unread:
                    return
                self.read_order(fake)
            elif fake.running:
                fake.unsent.append(good)
                fake.position += 1
                fake.running = False
            elif fake.position < fake.limit:
                self.begin_task(fake)
            else:
                self.send(slot, fake, final=True)

    def lose(self, slot: int, cause: LossCause) -> None:
        fake = self.workers[slot]
        assert fake is not None
        # What a dead worker had sent is read before its death is told.
        self.deliver(fake)
        self.workers[slot] = None
        if not fake.booted and not (
            cause is LossCause.UNSTARTED and any(each and each.booted for each in self.workers)
        ):
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

    def make_ready(self, slot: int) -> None:
        fake = self.workers[slot]
        if fake is not None and not fake.booted:
            fake.booted = True
            self.boot_deaths = 0
            self.feed(WorkerReady(slot))

    def finish(self) -> None:
        """Run to the end with workers that work; the number of turns that takes is bounded."""
        self.feed(ResumeAsked())
        self.feed(StopRevoked())
        for _ in range(40 + 30 * len(self.tasks)):
            if self.scheduler.finished:
                break
            for slot in range(len(self.workers)):
                fake = self.workers[slot]
                if fake is not None and fake.condemned is not None:
                    self.lose(slot, fake.condemned)
                self.make_ready(slot)
                self.work(slot, 4)
                fake = self.workers[slot]
                if fake is not None:
                    self.deliver(fake)
            self.feed(Tick())
        assert self.scheduler.finished
        assert not [task for task, book in enumerate(self.tasks) if book.state == "pending"]

    # --- what holds at any moment

    def check_counts(self) -> None:
        waiting = Counter(task for each in self.scheduler._pending for task in range(each.low, each.high))
        assert not [task for task, copies in waiting.items() if copies > 1 or task in self.held]
        assert len(waiting) == self.scheduler._pending.tasks
        unsettled = {task for task, book in enumerate(self.tasks) if book.state == "pending"}
        assert unsettled == set(waiting) | set(self.held)
        assert self.scheduler.outstanding_tasks == len(self.held)
        assert self.scheduler.finished == (not waiting and not any(worker and worker.busy for worker in self.workers))

    def check_nobody_idles(self) -> None:
        if self.scheduler._restrained or not self.scheduler._pending:
            return
        assert any(self.workers), "tasks wait, and no worker is being started"
        assert all(worker.busy for worker in self.workers if worker and worker.booted)
