"""Which worker runs what, and what becomes of every task: a pure machine, events in, effects out.

It knows no process, file or clock: ``handle(event, now)`` returns what the loop shall do. Three rules give the speed:

- batches aim at ``pace.TARGET_SECONDS`` of work and grow eightfold at most from one to the next (function times are
  unknown at first);
- a worker with short tasks always has one batch more than it runs;
- near the end batches shrink (guided self-scheduling), and what is left in the hands of a busy worker is taken back
  for an idle one.

And three the safety: a batch's positions are accepted in order and once; of a lost worker's tasks only the one that
ran is blamed; everything that a worker holds comes back when it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatchmethod

from jobpool_cli.supervisor.crew import Crew, Worker
from jobpool_cli.supervisor.events import (
    Abort,
    BatchTakenBack,
    BatchTrimmed,
    CancelAsked,
    DiskFilled,
    Effect,
    Event,
    Kill,
    LossCause,
    OutcomesArrived,
    PauseAsked,
    RecordCancelled,
    RecordLoss,
    ResumeAsked,
    RoomFound,
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
from jobpool_cli.supervisor.fuse import Fuse
from jobpool_cli.supervisor.holdings import MAX_BATCH_TASKS, History, Outstanding, Pending
from jobpool_cli.supervisor.pace import Boots, Pace
from jobpool_cli.supervisor.queue import Queue
from jobpool_cli.worker.protocol import BatchOrder


class Scheduler:
    """The decisions of one pool's supervisor."""

    def __init__(
        self,
        *,
        slots: int,
        udf: int,
        retries: int,
        max_crashes: int,
        paused: bool = False,
        pace: Pace | None = None,
    ) -> None:
        """Start with no task and no worker.

        Args:
            slots: worker processes at most.
            udf: the code version that batches run.
            retries: further attempts for a task that fails.
            max_crashes: deaths of its worker that make a task fail.
            paused: start without handing out anything.
            pace: how much is handed out at once.
        """
        self._crew = Crew(slots)
        self._udf = udf
        self._retries = retries
        self._max_crashes = max_crashes
        self._next_batch = 1
        self._pending = Queue()
        self._histories: dict[int, History] = {}
        self._pace = pace or Pace()
        self._boots = Boots()
        self._suspects: set[int] = set()
        """Tasks that ran since something did harm, and are not recorded: each batch of theirs runs by itself."""
        self._fuse = Fuse(slots)
        self._effects: list[Effect] = []
        self.paused = paused
        self.held = False
        """Whether the disk keeps outcomes from being recorded."""
        self.cancelling = False
        self.stopping = False

    # --- what the loop asks

    @property
    def outstanding_tasks(self) -> int:
        """Tasks in the hands of workers."""
        return self._crew.outstanding

    @property
    def waiting_tasks(self) -> int:
        """Tasks that have not begun: those in no worker's hands, and all but one of what each worker holds."""
        return self._pending.tasks + self.outstanding_tasks - len(self._crew.busy)

    @property
    def idle(self) -> bool:
        """Whether no worker holds anything."""
        return not self._crew.busy

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.idle and not self._pending

    def find(self, slot: int, batch: int) -> Outstanding | None:
        """Return a batch that a worker holds."""
        return self._crew.find(slot, batch)

    # --- the machine

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event; return what to do, in order. ``now`` is monotonic seconds."""
        del now  # decisions depend on the order of events alone; the loop keeps time for --timeout
        self._effects = []
        self._on(event)
        if self.cancelling:
            self._cancel_pending()
        if not self._restrained:
            self._hand_out()
            self._balance()
        return self._effects

    @singledispatchmethod
    def _on(self, event: object) -> None:
        raise TypeError(f"no such event: {event!r}")

    @_on.register
    def _tick(self, event: Tick) -> None:
        del event

    @_on.register
    def _worker_ready(self, event: WorkerReady) -> None:
        self._crew.is_ready(event.slot)
        self._boots.succeeded()

    @_on.register
    def _tasks_added(self, event: TasksAdded) -> None:
        self.cancelling = False
        self._fuse.begin_row()
        for low, high in event.ranges:
            self._pending.add(Pending(low, high, 1))
        for task, attempt in event.singles:
            self._histories.pop(task, None)
            self._pending.add(Pending(task, task + 1, attempt))

    @_on.register
    def _udf_changed(self, event: UdfChanged) -> None:
        self._udf = event.udf
        self._fuse.reset()
        self._recall()

    @property
    def _restrained(self) -> bool:
        return self.paused or self.held or self.stopping or self.cancelling

    @_on.register
    def _pause_asked(self, event: PauseAsked) -> None:
        del event
        self.paused = True
        self._recall()

    @_on.register
    def _resume_asked(self, event: ResumeAsked) -> None:
        del event
        self.paused = False

    @_on.register
    def _disk_filled(self, event: DiskFilled) -> None:
        del event
        self.held = True
        self._recall()

    @_on.register
    def _room_found(self, event: RoomFound) -> None:
        del event
        self.held = False

    @_on.register
    def _cancel_asked(self, event: CancelAsked) -> None:
        self.cancelling = True
        self._recall()
        if event.running:
            self._kill_busy(LossCause.CANCELLED)

    @_on.register
    def _stop_asked(self, event: StopAsked) -> None:
        self.stopping = True
        self._recall()
        if event.kill:
            self._kill_busy(LossCause.STOPPED)

    @_on.register
    def _stop_revoked(self, event: StopRevoked) -> None:
        del event
        self.stopping = False

    @_on.register
    def _outcomes_arrived(self, event: OutcomesArrived) -> None:
        batch = self.find(event.slot, event.batch)
        if batch is None:
            return
        fresh = event.upto - batch.done
        if fresh > 0:
            self._pace.learn(event.busy / fresh)
            self._boots.worked()
            self._fuse.ended(fresh)
        batch.done = event.upto
        for position, _state in event.failed:
            self._settle_failure(event.slot, batch, batch.order.task_at(position))
        if event.final:
            if self._suspects:
                begun = batch.order.slices(0, batch.done)
                self._suspects.difference_update(task for low, high in begun for task in range(low, high))
            self._crew.is_through(event.slot, batch)
            self._return_positions(batch, batch.done, batch.size, batch.order.attempt)
        # What could not be taken back while the worker was between two tasks may be by now.
        worker = self._crew[event.slot]
        for each in worker.batches:
            each.asked_back = False
        if self._restrained or any(each.order.udf != self._udf for each in worker.batches):
            self._ask_back(event.slot, worker)

    def _settle_failure(self, slot: int, batch: Outstanding, task: int) -> None:
        attempt = batch.order.attempt
        history = self._history(task, attempt)
        history.failures += 1
        again = history.failures <= self._retries and not self.cancelling
        self._effects.append(SettleFailure(slot, task, attempt, again))
        if again:
            self._go_on(task, attempt + 1, history, cap=MAX_BATCH_TASKS)
        else:
            self._histories.pop(task, None)

    @_on.register
    def _batch_taken_back(self, event: BatchTakenBack) -> None:
        batch = self.find(event.slot, event.batch)
        if batch is not None:
            self._crew.is_through(event.slot, batch)
            self._return_positions(batch, 0, batch.size, batch.order.attempt)

    @_on.register
    def _batch_trimmed(self, event: BatchTrimmed) -> None:
        batch = self.find(event.slot, event.batch)
        if batch is not None and batch.done <= event.kept < batch.size:
            self._return_positions(batch, event.kept, batch.size, batch.order.attempt)
            batch.size = event.kept

    @_on.register
    def _worker_lost(self, event: WorkerLost) -> None:
        held = self._crew.lost(event.slot)
        for batch in [each for each in held if each.order.batch in event.unbegun]:
            held.remove(batch)
            self._return_positions(batch, 0, batch.size, batch.order.attempt)
        doubtful = event.cause is LossCause.CRASH and not event.sure
        blamed = self._lose_doubtful(event, held) if doubtful else self._lose(event, held)
        if not event.booted:
            self._count_boot_death(event.cause)
        elif event.cause is LossCause.CRASH and event.unbegun and not held and self._boots.died_idle():
            self._abort(f"{self._boots.idle_deaths} workers in a row died before they began a task")
        self._stop_if_all_crash()
        if (event.cause in (LossCause.CRASH, LossCause.UNSTARTED) or not event.booted) and not blamed:
            self._boots.lost_blameless()
        if self._needed(event.slot):
            self._spawn(event.slot, self._boots.backoff(blamed=blamed))

    def _lose(self, event: WorkerLost, held: Sequence[Outstanding]) -> bool:
        """Take back what a worker held that is gone; return whether a task is blamed for it."""
        blamed = False
        for batch in held:
            position = batch.running_at(event.batch, event.position)
            if position is not None:
                self._lose_running(event, batch, position)
                blamed = True
            elif batch is not held[0]:
                self._return_positions(batch, 0, batch.size, batch.order.attempt)
            elif event.batch is None and event.cause is LossCause.CRASH:
                blamed = self._lose_unclear(event, batch) or blamed
            else:
                self._repeat_positions(batch, batch.done, batch.size)
        return blamed

    def _count_boot_death(self, cause: LossCause) -> None:
        if cause is LossCause.STOPPED:
            # Its machine went away with it.
            return
        if cause is LossCause.UNSTARTED and (self.held or self._crew.has_ready):
            # The machine takes no more processes: the pool goes on with those that it has. On a full disk none has a
            # log; there will be room.
            return
        if self._boots.died():
            self._abort(f"{self._boots.deaths} worker processes in a row died before they were ready")

    def _abort(self, reason: str) -> None:
        self._effects.append(Abort(reason))
        self.stopping = True
        self._recall()

    def _stop_if_all_crash(self) -> None:
        if self._fuse.blown and self._pending and not (self.stopping or self.cancelling):
            self._abort(
                f"{self._fuse.given_up} tasks in a row crashed their workers, and no other task ended meanwhile;"
                " their errors say how, and resume goes on all the same"
            )

    def _lose_running(self, event: WorkerLost, batch: Outstanding, position: int) -> None:
        """Blame the task at a position; what the worker had finished but not sent runs again, unblamed."""
        attempt = batch.order.attempt
        # Finished but unsent: these ran, so that their next execution bears a higher attempt.
        self._repeat_positions(batch, batch.done, position)
        self._return_positions(batch, position + 1, batch.size, attempt)
        task = batch.order.task_at(position)
        if event.cause is LossCause.STOPPED:
            self._repeat_positions(batch, position, position + 1)
            return
        history, cap = self._history(task, attempt), MAX_BATCH_TASKS
        if event.cause is LossCause.CRASH:
            history.crashes += 1
            again, cap = history.crashes < self._max_crashes and not self.cancelling, 1
            self._fuse.crashed(history, again=again or self.cancelling)
        elif event.cause is LossCause.CANCELLED:
            # It ran: if it is taken up again, that is a further attempt.
            self._effects.append(SetAttempts(((task, attempt, history.since),)))
            again = False
        else:
            history.failures += 1
            again = history.failures <= self._retries and not self.cancelling
            self._fuse.ended(1)
        self._effects.append(RecordLoss(event.slot, task, attempt, batch.order.udf, event.cause, again))
        if again:
            self._go_on(task, attempt + 1, history, cap=cap, front=cap == 1 and self._fuse.insists)
        else:
            self._histories.pop(task, None)
            self._suspects.discard(task)

    def _lose_doubtful(self, event: WorkerLost, held: Sequence[Outstanding]) -> bool:
        """Blame the only task that has begun and is not recorded; if there are more, each of them is a suspect.

        The one that runs is so most of all, and runs alone; the others in batches of half as many as they are.
        """
        suspects: list[tuple[Outstanding, int]] = []
        for batch in held:
            position = batch.running_at(event.batch, event.position)
            suspects.append((batch, batch.size if position is None else position + 1))
        count = sum(stop - batch.done for batch, stop in suspects)
        if count == 1:
            batch = next(batch for batch, stop in suspects if stop > batch.done)
            self._suspects.add(batch.order.task_at(batch.done))
            self._lose_running(event, batch, batch.done)
            return True
        for batch, stop in reversed(suspects):
            self._suspects.update(
                task for low, high in batch.order.slices(batch.done, stop) for task in range(low, high)
            )
            self._return_positions(batch, stop, batch.size, batch.order.attempt)
            last = stop if batch.running_at(event.batch, event.position) is None else stop - 1
            self._repeat_positions(batch, batch.done, last, cap=max(1, count // 2))
            self._repeat_positions(batch, last, stop, cap=1)
        return False

    def _lose_unclear(self, event: WorkerLost, batch: Outstanding) -> bool:
        """Handle a death between two tasks of a batch, or while its outcomes were encoded: halve until it is clear."""
        left = batch.size - batch.done
        if left == 1 and batch.cap == 1:
            self._lose_running(event, batch, batch.done)
            return True
        self._repeat_positions(batch, batch.done, batch.size, cap=max(1, left // 2))
        return False

    # --- pending tasks

    def _return_positions(self, batch: Outstanding, start: int, stop: int, attempt: int) -> None:
        """Queue positions that never began, ahead of all others: they come first in the order of the arguments."""
        for low, high in reversed(batch.order.slices(start, stop)):
            self._pending.add(Pending(low, high, attempt, batch.cap), front=True)

    def _repeat_positions(self, batch: Outstanding, start: int, stop: int, cap: int | None = None) -> None:
        """Queue positions that may have run and left no outcome: their next execution is a further attempt."""
        attempt = batch.order.attempt + 1
        ranges = batch.order.slices(start, stop)
        tasks = [task for low, high in ranges for task in range(low, high)]
        if not tasks:
            return
        # Nothing counts against a task without a history: its limits may as well count from the attempt it was at.
        nothing = History(since=batch.order.attempt)
        histories = self._histories
        self._effects.append(SetAttempts(tuple((task, attempt, histories.get(task, nothing).since) for task in tasks)))
        for low, high in reversed(ranges):
            self._pending.add(Pending(low, high, attempt, cap or batch.cap), front=True)

    def _history(self, task: int, attempt: int) -> History:
        return self._histories.setdefault(task, History(since=attempt))

    def _go_on(self, task: int, attempt: int, history: History, cap: int, *, front: bool = False) -> None:
        self._effects.append(SetAttempts(((task, attempt, history.since),)))
        self._pending.add(Pending(task, task + 1, attempt, cap), front=front)

    def credit(self, tasks: int) -> None:
        """Let so many tasks count that ended well before this supervisor was there, with the code that runs now."""
        self._fuse.ended(tasks)

    def restore(self, task: int, *, attempt: int, since: int, crashes: int, failures: int) -> None:
        """Queue a task beyond its first attempt with what already counts against it (after an interruption)."""
        if crashes or failures:
            self._histories[task] = History(since, crashes, failures)
        self._pending.add(Pending(task, task + 1, attempt, 1 if crashes else MAX_BATCH_TASKS))

    def _cancel_pending(self) -> None:
        if self._pending:
            self._effects.append(RecordCancelled(self._pending.clear()))
            self._suspects.clear()
        if self.idle:
            self.cancelling = False

    # --- workers

    def _needed(self, slot: int) -> bool:
        """Whether a process in a slot without one would have something to do."""
        wanted = not self.stopping and not self.held
        return wanted and not self._crew[slot].spawned and self._pending.tasks > self._crew.booting

    def _spawn(self, slot: int, delay: float = 0.0) -> None:
        self._crew.spawned(slot)
        self._effects.append(Spawn(slot, delay))

    def _kill_busy(self, cause: LossCause) -> None:
        self._effects += [Kill(slot, cause) for slot in sorted(self._crew.busy)]

    def _recall(self) -> None:
        """Ask for everything back that is not running yet."""
        for slot, worker in self._crew:
            self._ask_back(slot, worker)

    def _ask_back(self, slot: int, worker: Worker) -> None:
        # The queued ones first: the worker would go on to them when the running one is cut short.
        for batch in reversed(worker.batches):
            # Any of them may be unbegun: then taking it back succeeds, and there is nothing to trim. And the second
            # one may have begun, where the end of the first has not been heard of yet.
            if batch.done == 0:
                self._effects.append(TakeBack(slot, batch.order.batch))
            if batch.size - batch.done > 1:
                self._effects.append(Trim(slot, batch.order.batch))
            batch.asked_back = True

    # --- handing out

    def _hand_out(self) -> None:
        if not self._pending:
            return
        for slot in sorted(self._crew.vacant):
            if not self._needed(slot):
                break
            self._spawn(slot)
        # Among suspects one at a time, so that it is clear which of them does harm.
        for held in range(1 if self._suspects else self._pace.depth):
            for slot in sorted(self._crew.ready[held]):
                if not self._pending:
                    return
                self._send(slot)

    def _send(self, slot: int) -> None:
        size = self._pace.batch_size(self._crew[slot].last_size, self._pending.tasks / (2 * len(self._crew)))
        if self._fuse.doubtful:
            size = 1
            if not (self._fuse.insists and self._pending.bring_a_crashed_one_first()):
                self._pending.bring_a_distant_one_first()
        attempt, cap = self._pending.head.attempt, self._pending.head.cap
        order = BatchOrder(self._next_batch, self._pending.take(min(size, cap)), attempt, self._udf)
        self._next_batch += 1
        self._crew.takes(slot, Outstanding(order, order.size, cap))
        self._effects.append(Send(slot, order))

    def _balance(self) -> None:
        """When a worker is idle and nothing waits, take work back from those that hold more than they run."""
        if self._pending or not self._crew.ready[0]:
            return
        for slot, worker in self._crew:
            if len(worker.batches) > 1 and not worker.batches[-1].asked_back:
                worker.batches[-1].asked_back = True
                self._effects.append(TakeBack(slot, worker.batches[-1].order.batch))
                return
        for slot, worker in self._crew:
            batch = worker.batches[0] if worker.batches else None
            if batch and not batch.asked_back and self._pace.is_worth_trimming(batch.size - batch.done - 1):
                batch.asked_back = True
                self._effects.append(Trim(slot, batch.order.batch))
                return
