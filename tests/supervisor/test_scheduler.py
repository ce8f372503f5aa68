from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

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
from jobpool_cli.supervisor.pace import GROWTH, MAX_BOOT_DEATHS, MAX_LATER_BOOT_DEATHS, TARGET_SECONDS
from jobpool_cli.supervisor.scheduler import Scheduler
from jobpool_cli.worker.protocol import MAX_RANGES_PER_BATCH, BatchOrder

Kind = TypeVar("Kind")
FAST, SLOW = 1e-6, 1.0


class Desk:
    """A scheduler with the orders that it has sent."""

    def __init__(
        self, tasks: int, *, slots: int = 1, retries: int = 0, max_crashes: int = 3, ready: bool = True
    ) -> None:
        """Add so many tasks and, unless told otherwise, have all workers ready."""
        self.scheduler = Scheduler(slots=slots, udf=1, retries=retries, max_crashes=max_crashes)
        self.orders: dict[int, list[BatchOrder]] = {slot: [] for slot in range(slots)}
        self.feed(TasksAdded(((0, tasks),) if tasks else ()))
        for slot in range(slots if ready else 0):
            self.feed(WorkerReady(slot))

    def feed(self, event: Event) -> list[Effect]:
        effects = self.scheduler.handle(event, 0.0)
        for effect in effects:
            if isinstance(effect, Send):
                self.orders[effect.slot].append(effect.order)
        return effects

    def finish(self, slot: int = 0, *, seconds: float = FAST, failed: tuple[int, ...] = ()) -> list[Effect]:
        """Let a worker finish the first batch that it holds."""
        order = self.orders[slot].pop(0)
        states = tuple((position, "error") for position in failed)
        size = len(tasks(order))
        return self.feed(OutcomesArrived(slot, order.batch, size, seconds * size, states, final=True))

    def warm(self, seconds: float, batches: int = 3) -> None:
        for _ in range(batches):
            self.finish(seconds=seconds)

    def lose(
        self, position: int | None, cause: LossCause = LossCause.CRASH, *, slot: int = 0, unbegun: tuple[int, ...] = ()
    ) -> list[Effect]:
        """Take the worker away while it runs a position of its first batch, or (None) in none."""
        held, self.orders[slot] = self.orders[slot], []
        batch = held[0].batch if position is not None else None
        return self.feed(WorkerLost(slot, cause, batch, position, unbegun=unbegun))

    def doubt(self, index: int | None, position: int | None) -> list[Effect]:
        """Take the worker away when it is clear that a task did harm, and not which; it was in that batch of its."""
        held, self.orders[0] = self.orders[0], []
        batch = held[index].batch if index is not None else None
        unbegun = tuple(order.batch for order in held[index + 1 :]) if index is not None else ()
        return self.feed(WorkerLost(0, LossCause.CRASH, batch, position, unbegun=unbegun, sure=False))

    def run_out(self) -> list[tuple[int, int]]:
        """Return (task, attempt) of everything that a good worker is given from now on, in order."""
        ran = []
        for _ in range(10_000):
            if not self.orders[0]:
                break
            ran += [(task, self.orders[0][0].attempt) for task in tasks(self.orders[0][0])]
            self.finish()
        assert self.scheduler.finished
        return ran


def tasks(order: BatchOrder) -> list[int]:
    return [task for low, high in order.ranges for task in range(low, high)]


def of(kind: type[Kind], effects: list[Effect]) -> list[Kind]:
    return [each for each in effects if isinstance(each, kind)]


# --- handing out


def test_a_process_is_started_for_each_slot_and_no_more_than_there_are_tasks() -> None:
    scheduler = Scheduler(slots=4, udf=1, retries=0, max_crashes=3)
    assert scheduler.handle(TasksAdded(((0, 2),)), 0.0) == [Spawn(0), Spawn(1)]
    assert scheduler.handle(TasksAdded(((2, 9),)), 0.0) == [Spawn(2), Spawn(3)]


def test_nothing_is_sent_to_a_worker_that_has_not_loaded_the_function() -> None:
    desk = Desk(5, slots=2, ready=False)
    assert not desk.orders[0]
    assert of(Send, desk.feed(WorkerReady(1)))[0].slot == 1
    assert not desk.orders[0]


def test_the_first_batch_is_one_task_and_batches_grow_by_steps_to_the_time_aimed_at() -> None:
    desk = Desk(10_000_000)
    sizes = []
    for _ in range(7):
        sizes.append(len(tasks(desk.orders[0][0])))
        desk.finish(seconds=0.000_01)
    assert sizes[0] == 1
    assert all(later <= GROWTH * earlier for earlier, later in pairwise(sizes))
    assert sizes[-1] == round(TARGET_SECONDS / 0.000_01)


def test_slow_tasks_go_out_one_by_one_and_none_is_held_ahead() -> None:
    desk = Desk(100)
    desk.warm(SLOW)
    assert [tasks(order) for order in desk.orders[0]] == [[3]]


def test_a_worker_with_fast_tasks_has_one_batch_more_than_it_runs() -> None:
    desk = Desk(10_000)
    desk.warm(FAST)
    assert len(desk.orders[0]) == 2


def test_batches_shrink_towards_the_end() -> None:
    desk = Desk(10_000)
    sizes = []
    while desk.orders[0]:
        sizes.append(len(tasks(desk.orders[0][0])))
        desk.finish(seconds=0.000_1)
    assert sum(sizes) == 10_000
    assert sizes[-1] == 1
    assert max(sizes) > 100


def test_tasks_of_different_attempts_do_not_share_a_batch() -> None:
    desk = Desk(0)
    desk.feed(TasksAdded(((0, 40),), tuple((task, 2) for task in range(40, 80))))
    desk.feed(WorkerReady(0))
    seen = []
    while desk.orders[0]:
        seen += [(task, desk.orders[0][0].attempt) for task in tasks(desk.orders[0][0])]
        desk.finish()
    assert sorted(seen) == [(task, 1 if task < 40 else 2) for task in range(80)]


def test_scattered_tasks_go_out_in_messages_that_fit_the_channel() -> None:
    desk = Desk(0)
    desk.feed(TasksAdded((), tuple((2 * task, 2) for task in range(100_000))))
    desk.feed(WorkerReady(0))
    most = 0
    while desk.orders[0]:
        most = max(most, len(desk.orders[0][0].ranges))
        desk.finish()
    assert most == MAX_RANGES_PER_BATCH


def test_what_is_queued_behind_a_busy_worker_is_taken_back_for_an_idle_one() -> None:
    desk = Desk(40, slots=2, ready=False)
    desk.feed(WorkerReady(0))
    desk.warm(0.001)
    while desk.scheduler._pending:
        desk.finish(seconds=0.001)
    queued = desk.orders[0][-1]
    assert len(desk.orders[0]) == 2
    assert of(TakeBack, desk.feed(WorkerReady(1))) == [TakeBack(0, queued.batch)]
    effects = desk.feed(BatchTakenBack(0, queued.batch))
    assert {effect.slot for effect in of(Send, effects)} == {1} | ({0} if len(tasks(queued)) > 1 else set())


def test_the_tail_of_a_long_batch_goes_to_an_idle_worker_also_if_the_first_try_failed() -> None:
    desk = Desk(400, slots=2, ready=False)
    desk.feed(WorkerReady(0))
    desk.warm(0.001)
    while desk.scheduler._pending:
        desk.finish(seconds=0.001)
    while len(desk.orders[0]) > 1:
        desk.finish(seconds=0.5)
    batch = desk.orders[0][0]
    if len(tasks(batch)) == 1:
        return
    assert of(Trim, desk.feed(WorkerReady(1))) == [Trim(0, batch.batch)]
    assert not of(Trim, desk.feed(Tick()))
    retried = desk.feed(OutcomesArrived(0, batch.batch, 1, 0.5, (), final=False))
    assert of(Trim, retried) == [Trim(0, batch.batch)]
    assert of(Send, desk.feed(BatchTrimmed(0, batch.batch, 2)))[0].slot == 1


def test_a_batch_that_ended_early_gives_back_what_was_not_run() -> None:
    desk = Desk(200)
    desk.warm(FAST)
    order = desk.orders[0].pop(0)
    desk.feed(OutcomesArrived(0, order.batch, 2, FAST, (), final=True))
    assert sorted(desk.run_out()) == sorted((task, 1) for task in range(tasks(order)[2], 200))


# --- failures and losses


def test_a_failure_is_final_unless_there_are_retries() -> None:
    desk = Desk(1)
    assert of(SettleFailure, desk.finish(failed=(0,))) == [SettleFailure(0, 0, 1, again=False)]
    assert desk.scheduler.finished


def test_retries_give_a_failed_task_so_many_further_attempts() -> None:
    desk = Desk(1, retries=2)
    settled = [of(SettleFailure, desk.finish(failed=(0,)))[0] for _ in range(3)]
    assert [(each.attempt, each.again) for each in settled] == [(1, True), (2, True), (3, False)]
    assert desk.scheduler.finished


def test_only_the_running_task_is_blamed_and_it_runs_again_alone() -> None:
    desk = Desk(1000)
    desk.warm(FAST)
    running, queued = (tasks(order) for order in desk.orders[0])
    effects = desk.lose(5)
    assert of(RecordLoss, effects) == [RecordLoss(0, running[5], 1, 1, LossCause.CRASH, again=True)]
    assert of(Spawn, effects) == [Spawn(0)]
    desk.feed(WorkerReady(0))
    sent = []
    while desk.orders[0]:
        sent.append(desk.orders[0][0])
        desk.finish()
    attempts = {task: order.attempt for order in sent for task in tasks(order)}
    # Those before it ended without leaving an outcome: they run again, as a further attempt.
    assert [attempts[task] for task in running[:6]] == [2] * 6
    assert {attempts[task] for task in [*running[6:], *queued]} == {1}
    assert [tasks(order) for order in sent if running[5] in tasks(order)] == [[running[5]]]
    assert sorted(attempts) == list(range(running[0], 1000))


def test_what_was_acknowledged_before_the_loss_does_not_run_again() -> None:
    desk = Desk(1000)
    desk.warm(FAST)
    order = desk.orders[0][0]
    desk.feed(OutcomesArrived(0, order.batch, 4, FAST, (), final=False))
    desk.lose(5)
    desk.feed(WorkerReady(0))
    assert min(task for task, _ in desk.run_out()) == tasks(order)[4]


def test_a_task_fails_when_it_has_crashed_as_often_as_allowed() -> None:
    desk = Desk(1, max_crashes=3)
    for attempt, again in ((1, True), (2, True), (3, False)):
        assert of(RecordLoss, desk.lose(0)) == [RecordLoss(0, 0, attempt, 1, LossCause.CRASH, again)]
        desk.feed(WorkerReady(0))
    assert desk.scheduler.finished


def test_batches_that_the_dead_worker_never_read_come_back_as_they_were() -> None:
    desk = Desk(1)
    (order,) = desk.orders[0]
    for _ in range(10):
        effects = desk.lose(None, unbegun=(order.batch,))
        assert not of(RecordLoss, effects)
        assert not of(SetAttempts, effects)
        desk.feed(WorkerReady(0))
        (order,) = desk.orders[0]
    assert desk.run_out() == [(0, 1)]


def test_a_death_between_two_tasks_halves_the_batch_until_the_culprit_is_alone() -> None:
    desk = Desk(300, max_crashes=1)
    desk.warm(FAST)
    culprit = tasks(desk.orders[0][0])[6]
    blamed: list[RecordLoss] = []
    for _ in range(200):
        if not desk.orders[0]:
            break
        if culprit in tasks(desk.orders[0][0]):
            blamed += of(RecordLoss, desk.lose(None))
            desk.feed(WorkerReady(0))
        else:
            desk.finish()
    assert [loss.task for loss in blamed] == [culprit]
    assert desk.scheduler.finished


def test_timeouts_count_as_failures_for_the_retries_and_crashes_do_not() -> None:
    desk = Desk(1, retries=1, max_crashes=3)
    for cause, again in ((LossCause.CRASH, True), (LossCause.TIMEOUT, True), (LossCause.CRASH, True)):
        assert of(RecordLoss, desk.lose(0, cause))[0].again is again
        desk.feed(WorkerReady(0))
    assert not of(RecordLoss, desk.lose(0, LossCause.MEMORY))[0].again


def test_what_counted_before_an_interruption_still_counts() -> None:
    scheduler = Scheduler(slots=1, udf=1, retries=0, max_crashes=3)
    scheduler.restore(7, attempt=3, since=1, crashes=2, failures=0)
    scheduler.handle(TasksAdded(((8, 9),)), 0.0)
    order = of(Send, scheduler.handle(WorkerReady(0), 0.0))[0].order
    assert (order.ranges, order.attempt) == (((7, 8),), 3)
    lost = scheduler.handle(WorkerLost(0, LossCause.CRASH, order.batch, 0), 0.0)
    assert not of(RecordLoss, lost)[0].again


def test_workers_that_die_before_they_are_ready_stop_the_pool_and_one_that_lives_resets_the_count() -> None:
    desk = Desk(9, ready=False)
    dead = WorkerLost(0, LossCause.CRASH, None, None, booted=False)
    for _ in range(MAX_BOOT_DEATHS - 1):
        assert not of(Abort, desk.feed(dead))
    desk.feed(WorkerReady(0))
    # It is not the code, then: those that follow get more chances.
    for _ in range(MAX_LATER_BOOT_DEATHS - 1):
        assert not of(Abort, desk.feed(dead))
    assert of(Abort, desk.feed(dead))
    assert desk.scheduler.stopping


def test_workers_that_die_for_no_reason_are_replaced_more_and_more_slowly() -> None:
    desk = Desk(9)
    delays = []
    for _ in range(12):
        delays += [each.delay for each in of(Spawn, desk.lose(None, unbegun=(desk.orders[0][0].batch,)))]
        desk.feed(WorkerReady(0))
    assert delays == sorted(delays)
    assert delays[0] > 0
    assert delays[-1] == 10.0


def test_a_pool_stops_when_worker_after_worker_dies_before_it_begins_a_task() -> None:
    desk = Desk(9)
    desk.warm(SLOW)
    for left in reversed(range(MAX_LATER_BOOT_DEATHS)):
        lost = desk.lose(None, unbegun=tuple(order.batch for order in desk.orders[0]))
        assert bool(of(Abort, lost)) is (left == 0)
        desk.feed(WorkerReady(0))


def test_a_worker_lost_after_all_of_a_batch_is_reported_blames_nobody_and_repeats_nothing() -> None:
    for sure in (True, False):
        desk = Desk(9)
        desk.warm(FAST)
        first, size = desk.orders[0][0], len(tasks(desk.orders[0][0]))
        desk.feed(OutcomesArrived(0, first.batch, size, FAST * size, (), final=False))
        unbegun = tuple(order.batch for order in desk.orders[0][1:])
        desk.orders[0] = []
        effects = desk.feed(WorkerLost(0, LossCause.CRASH, first.batch, size - 1, unbegun=unbegun, sure=sure))
        assert not of(RecordLoss, effects)
        desk.feed(WorkerReady(0))
        assert not set(tasks(first)) & {task for task, _ in desk.run_out()}


# --- requests


def test_pause_takes_back_what_has_not_begun_and_hands_out_nothing_until_resume() -> None:
    desk = Desk(1000)
    desk.warm(FAST)
    first, second = desk.orders[0]
    effects = desk.feed(PauseAsked())
    assert effects == [deed(0, each.batch) for each in (second, first) for deed in (TakeBack, Trim)]
    desk.feed(BatchTakenBack(0, second.batch))
    desk.feed(BatchTrimmed(0, first.batch, 1))
    desk.orders[0] = [first]
    assert not of(Send, desk.feed(OutcomesArrived(0, first.batch, 1, FAST, (), final=True)))
    assert desk.scheduler.idle
    assert not desk.scheduler.finished
    assert of(Send, desk.feed(ResumeAsked()))


def test_a_batch_that_could_not_be_trimmed_is_asked_back_again_when_its_worker_reports() -> None:
    desk = Desk(1000)
    desk.warm(FAST)
    first = desk.orders[0][0]
    desk.feed(CancelAsked(running=False))
    effects = desk.feed(OutcomesArrived(0, first.batch, 1, FAST, (), final=False))
    assert Trim(0, first.batch) in effects


def test_batches_with_old_code_are_asked_back_again_when_their_worker_reports() -> None:
    desk = Desk(1000)
    desk.warm(FAST)
    first, second = desk.orders[0]
    # The worker is in the second one already, which neither can be taken back nor, between two tasks, be cut.
    desk.feed(UdfChanged(2))
    effects = desk.feed(
        OutcomesArrived(0, first.batch, sum(high - low for low, high in first.ranges), FAST, (), final=True)
    )
    assert Trim(0, second.batch) in effects


def test_cancel_records_what_is_pending_and_lets_the_running_task_end() -> None:
    desk = Desk(100)
    desk.warm(SLOW)
    (order,) = desk.orders[0]
    assert of(RecordCancelled, desk.feed(CancelAsked(running=False))) == [RecordCancelled(((4, 100),))]
    assert desk.scheduler.outstanding_tasks == 1
    desk.finish()
    assert desk.scheduler.finished
    assert tasks(order) == [3]


def test_a_task_that_fails_or_crashes_while_the_pool_is_cancelled_is_not_run_again() -> None:
    for cause in (None, LossCause.CRASH, LossCause.TIMEOUT):
        desk = Desk(1, retries=5)
        desk.feed(CancelAsked(running=False))
        if cause is None:
            assert not of(SettleFailure, desk.finish(failed=(0,)))[0].again
        else:
            assert not of(RecordLoss, desk.lose(0, cause))[0].again
        assert desk.scheduler.finished


def test_cancelling_running_tasks_kills_busy_workers_and_counts_the_attempt() -> None:
    desk = Desk(1, slots=1)
    assert of(Kill, desk.feed(CancelAsked(running=True))) == [Kill(0, LossCause.CANCELLED)]
    effects = desk.lose(0, LossCause.CANCELLED)
    assert of(RecordLoss, effects) == [RecordLoss(0, 0, 1, 1, LossCause.CANCELLED, again=False)]
    assert of(SetAttempts, effects) == [SetAttempts(((0, 1, 1),))]
    assert desk.scheduler.finished


def test_tasks_that_are_added_after_a_cancel_run() -> None:
    desk = Desk(10)
    desk.feed(CancelAsked(running=False))
    desk.feed(TasksAdded(((5, 10),)))
    desk.finish()
    assert [task for task, _ in desk.run_out()] == [5, 6, 7, 8, 9]


def test_stop_keeps_what_is_pending_pending_and_starts_no_worker() -> None:
    desk = Desk(100)
    desk.warm(SLOW)
    effects = desk.feed(StopAsked(kill=True))
    assert of(Kill, effects) == [Kill(0, LossCause.STOPPED)]
    effects = desk.lose(0, LossCause.STOPPED)
    # It had begun: when the pool goes on, that is a further attempt, and nobody is to blame.
    assert effects == [SetAttempts(((3, 2, 1),))]
    assert desk.scheduler.idle
    assert not desk.scheduler.finished


def test_mended_code_runs_what_is_pending_also_what_was_already_handed_out() -> None:
    desk = Desk(1000)
    desk.warm(FAST)
    first, second = desk.orders[0]
    assert TakeBack(0, second.batch) in desk.feed(UdfChanged(2))
    effects = desk.feed(BatchTakenBack(0, second.batch))
    assert {each.order.udf for each in of(Send, effects)} == {2}
    assert first.udf == 1


def test_reports_on_batches_that_are_not_held_any_more_change_nothing() -> None:
    desk = Desk(10)
    order = desk.orders[0][0]
    desk.finish()
    before = desk.scheduler.outstanding_tasks
    assert not of(SettleFailure, desk.feed(OutcomesArrived(0, order.batch, 1, FAST, ((0, "error"),), final=True)))
    desk.feed(BatchTakenBack(0, order.batch))
    desk.feed(BatchTrimmed(0, order.batch, 0))
    assert desk.scheduler.outstanding_tasks == before


def test_workers_that_the_machine_does_not_let_start_come_later_and_do_not_end_the_pool() -> None:
    scheduler = Scheduler(slots=2, udf=1, retries=0, max_crashes=3)
    scheduler.handle(TasksAdded(((0, 100),)), 0.0)
    scheduler.handle(WorkerReady(0), 0.0)
    delays = []
    for _ in range(2 * MAX_BOOT_DEATHS):
        effects = scheduler.handle(WorkerLost(1, LossCause.UNSTARTED, None, None, booted=False), 0.0)
        assert not of(Abort, effects)
        delays += [each.delay for each in of(Spawn, effects)]
    assert len(delays) == 2 * MAX_BOOT_DEATHS
    assert delays == sorted(delays)
    assert delays[-1] > 1


# --- harm that came from one of several tasks


def test_of_several_suspects_none_is_blamed_and_the_one_that_runs_is_run_alone() -> None:
    desk = Desk(1000)
    desk.warm(0.01, 2)
    order = desk.orders[0][0]
    begun = tasks(order)
    assert len(begun) > 6
    effects = desk.doubt(0, 4)
    assert not of(RecordLoss, effects)
    again = {each for effect in of(SetAttempts, effects) for each in effect.tasks}
    assert again == {(task, 2, 1) for task in begun[:5]}
    desk.feed(WorkerReady(0))
    sent = []
    for _ in range(4):
        (order,) = desk.orders[0][:1]
        sent.append((tasks(order), order.attempt))
        desk.finish(seconds=0.01)
    assert ([begun[4]], 2) in sent
    assert max(len(each) for each, attempt in sent if attempt == 2) <= 2


def test_a_single_suspect_is_blamed_and_so_is_one_that_ran_alone() -> None:
    desk = Desk(100)
    desk.warm(SLOW)
    order = desk.orders[0][0]
    (loss,) = of(RecordLoss, desk.doubt(0, 0))
    assert (loss.task, loss.again) == (tasks(order)[0], True)
    for attempt in (2, 3):
        desk.feed(WorkerReady(0))
        while desk.orders[0][0].attempt != attempt:
            assert len(desk.orders[0]) == 1, "a suspect waits for its turn, and others do not run beside it"
            desk.finish(seconds=FAST)
        (order,) = desk.orders[0]
        (loss,) = of(RecordLoss, desk.doubt(None, None))
        assert (loss.task, loss.attempt, loss.again) == (tasks(order)[0], attempt, attempt < 3)


def test_what_a_worker_ran_behind_the_batch_that_did_harm_is_suspected_too() -> None:
    desk = Desk(100_000)
    desk.warm(FAST)
    first, second = desk.orders[0]
    effects = desk.doubt(1, 3)
    assert not of(RecordLoss, effects)
    again = {task for effect in of(SetAttempts, effects) for task, _, _ in effect.tasks}
    assert again == {*tasks(first), *tasks(second)[:4]}
