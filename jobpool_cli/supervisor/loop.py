"""The supervisor: it alone writes the pool. Each turn of its loop is a list of named steps.

What must be recorded is collected and committed in groups; the scheduler decides, the engine runs, the sealer writes
segments. Nothing here knows how tasks are chosen or processes are run.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jobpool_cli.engines.base import (
    BootFailed,
    Closed,
    Engine,
    EngineEvent,
    Lost,
    Outcomes,
    Queued,
    Ready,
    Refused,
    TakenBack,
    Trimmed,
)
from jobpool_cli.engines.processes import kill_marked
from jobpool_cli.engines.worker_process import WorkerProcess
from jobpool_cli.errors import DamagedPoolError, DiskError, JobPoolError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import PoolOptions
from jobpool_cli.store import durable
from jobpool_cli.store.footers import footer_crc
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.slots import left_running as read_left_running
from jobpool_cli.store.state.checking import check_whole
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.state.writer import FailureRecord, StateWriter
from jobpool_cli.supervisor import recovery
from jobpool_cli.supervisor.control import WAS_KILLED, Control
from jobpool_cli.supervisor.engines import make_engine, pace_of
from jobpool_cli.supervisor.events import (
    Abort,
    BatchTakenBack,
    BatchTrimmed,
    DiskFilled,
    Effect,
    Event,
    Kill,
    LossCause,
    OutcomesArrived,
    RecordCancelled,
    RecordLoss,
    ResumeAsked,
    RoomFound,
    Send,
    SetAttempts,
    SettleFailure,
    Spawn,
    StopAsked,
    TakeBack,
    Tick,
    Trim,
    UdfChanged,
    WorkerLost,
    WorkerReady,
)
from jobpool_cli.supervisor.launch import Report
from jobpool_cli.supervisor.log import log
from jobpool_cli.supervisor.recording import Recorder, as_disk_error
from jobpool_cli.supervisor.scheduler import Scheduler
from jobpool_cli.supervisor.sealing import SEAL_AT_LAST_BYTES, SealedSegment, Sealer, worth_sealing

POLL_SECONDS = 0.1

_LOSSES = {
    LossCause.CRASH: ("crash", "WorkerCrashed"),
    LossCause.TIMEOUT: ("timeout", "TaskTimeout"),
    LossCause.MEMORY: ("error", "MemoryLimitExceeded"),
}


class Supervisor:
    """One pool's supervisor, from the taken lock to the last commit."""

    def __init__(
        self, paths: PoolPaths, report: Callable[[Report], None], standby: Sequence[WorkerProcess] = ()
    ) -> None:
        """Read the pool's state and get ready.

        Args:
            paths: the pool, whose lock is held.
            report: tells the starter how it went, once.
            standby: workers that were started before the pool was there.
        """
        self._paths = paths
        self._report = report
        self._manifest = Manifest.read(paths.pool_json)
        self._options: PoolOptions = self._manifest.options
        self._stop_reason = ""
        """Why this supervisor must end, whatever is asked of it."""
        if not standby:
            # What a dead supervisor may have left; a pool whose workers stood by never had another.
            kill_marked(self._manifest.id, paths.logs)
            check_whole(paths)
        self._writer = StateWriter(paths.state_db)
        left_running = read_left_running(paths.slots)
        with StateReader(paths.state_db) as reader:
            if left_running:
                recovery.raise_attempts(reader, self._writer, left_running, self._manifest.n_jobs)
            # Only now: the slots, which tell what ran, are cleared with the rest; and a disk may be too full for that.
            recovery.clean_up(paths, reader)
            counters = reader.counters()
            self._scheduler = Scheduler(
                slots=self._options.processes,
                udf=counters.udf,
                retries=self._options.retries,
                max_crashes=self._options.max_crashes,
                paused=counters.paused,
                pace=pace_of(paths, self._manifest),
            )
            self._unfinished = recovery.fill(self._scheduler, reader, self._manifest.n_jobs)
        self._engine = self._make_engine(counters.udf, standby)
        self._sealer = Sealer(paths)
        self._recorder = Recorder(paths, self._writer)
        self._change, self._commit = self._recorder.change, self._recorder.commit
        self._control = Control(
            paths, self._feed, self._recorder, self._scheduler, must_end=lambda: bool(self._stop_reason)
        )
        self._recorder.on_commit += [self._control.committed, self._sealer.recorded, self._forget_failures]
        self._inbox_rows = self._inbox_bytes = self._inbox_whole_bytes = 0
        self._unwritten: dict[bool, list[FailureRecord]] = {True: [], False: []}
        self._failures: dict[tuple[int, int], FailureRecord] = {}
        self._lost: Lost | None = None
        self._change(partial(self._writer.set_stop_reason, WAS_KILLED))

    def _make_engine(self, udf: int, standby: Sequence[WorkerProcess]) -> Engine:
        numbers = itertools.count(recovery.next_worker(self._paths))
        engine = make_engine(self._paths, self._manifest, udf=udf, numbers=numbers, standby=standby)
        read_end, write_end = os.pipe()
        for end in (read_end, write_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write_end)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        engine.watch(read_end)
        self._signals = read_end
        return engine

    def _on_sigterm(self, *_: object) -> None:
        self._stop_reason = "the supervisor was told to end (SIGTERM), as when the machine shuts down"

    # --- the loop

    def run(self) -> None:
        """Work until nothing is left, or until told to stop."""
        try:
            self._feed(self._unfinished)
            # Before the first worker starts: a `retry --udf` says which code it shall load.
            self._control.carry_out_requests()
            self._commit()
            self._recorder.check(f"{self._paths.root.name} cannot be worked on")
            if self._scheduler.paused:
                # No worker will start, so that there is none to wait for.
                self._report(Report(ok=True))
            while True:
                self._engine.deaf = self._recorder.is_overfull
                for event in self._engine.poll(min(POLL_SECONDS, max(0.0, self._recorder.until_commit))):
                    self._on_engine(event)
                self._notice_signals()
                self._control.carry_out_requests()
                self._mind_the_disk()
                self._feed(Tick())
                self._take_over_segments()
                self._seal_if_large()
                if self._recorder.until_commit <= 0:
                    self._commit()
                if self._scheduler.idle and self._is_over():
                    break
            self._change(partial(self._writer.set_stop_reason, self._stop_reason or self._control.stop_reason))
            if not self._commit(at_last=True):
                self._control.ended_unrecorded()
            self._recorder.end(None)
        except Exception as error:
            self._recorder.end(error)
            refused = as_disk_error(error)
            if refused is not None:
                # Nothing more is written to such a disk; `status` has it from the slots.
                raise refused from error
            with contextlib.suppress(JobPoolError), self._writer.transaction():
                self._writer.set_stop_reason(reason_of(error))
            raise
        finally:
            self._engine.stop()
            self._sealer.close()
        self._writer.close()

    def _is_over(self) -> bool:
        """Whether to leave the loop; if so, everything is committed and sealed."""
        if not self._scheduler.stopping and not self._scheduler.finished:
            return False
        if self._scheduler.finished and self._scheduler.paused:
            # There is nothing left to hold back; a retry shall run.
            self._change(partial(self._writer.set_paused, paused=False))
            self._feed(ResumeAsked())
        written = self._commit()
        if written:
            self._report(Report(ok=True))
        if not (written and self._seal_rest()) and not self._scheduler.stopping:
            # The disk is full: there will be room.
            return False
        # A request that came meanwhile is still ours.
        return not self._control.carry_out_requests() or self._scheduler.stopping

    def _notice_signals(self) -> None:
        try:
            if not os.read(self._signals, 64):
                return
        except BlockingIOError:
            return
        if self._stop_reason:
            # Also in the middle of a shutdown that lets tasks end: the machine will not wait for them.
            self._feed(StopAsked(kill=True))

    def _mind_the_disk(self) -> None:
        """Hand out nothing while outcomes cannot be recorded, and go on as soon as they can."""
        self._recorder.look()
        if self._recorder.held is not self._scheduler.held:
            self._feed(DiskFilled() if self._recorder.held else RoomFound())

    # --- events of the engine

    def _on_engine(self, event: EngineEvent) -> None:  # noqa: C901 - one case a kind
        match event:
            case Ready(slot):
                self._report(Report(ok=True))
                self._feed(WorkerReady(slot))
                self._sealer.warm_up()
            case BootFailed(_, message, hint):
                self._report(Report(ok=False, kind="input", message=message, hint=hint))
                self._stop_reason = f"the UDF does not load: {(message.strip() or 'no reason given').splitlines()[-1]}"
                self._feed(StopAsked(kill=True))
            case Queued():
                self._report(Report(ok=True))
            case TakenBack(slot, batch):
                self._feed(BatchTakenBack(slot, batch))
            case Trimmed(slot, batch, kept):
                self._feed(BatchTrimmed(slot, batch, kept))
            case Closed(_, reason):
                self._stop_reason = self._stop_reason or reason
                self._feed(StopAsked(kill=True))
            case Refused(_, number, message):
                refusal = DiskError(number, message)
                if not refusal.may_pass:
                    raise refusal
                self._recorder.hold(number)
            case Outcomes():
                self._take_outcomes(event)
            case Lost():
                self._take_loss(event)

    def _take_outcomes(self, event: Outcomes) -> None:
        body = event.body
        batch = self._scheduler.find(event.slot, body["batch"])
        if batch is None:
            return
        attempt, udf = batch.order.attempt, batch.order.udf
        if body["rows"]:
            ranges = tuple((low, high) for low, high in body["ranges"])
            if "file" in body:
                temporary = self._paths.results / body["file"]
                self._change(partial(self._adopt_segment, temporary, ranges, body["rows"], body["size"], udf))
            else:
                self._inbox_rows += body["rows"]
                self._inbox_bytes += len(event.payload)
                self._inbox_whole_bytes += body["whole"]
                self._change(
                    partial(self._writer.add_successes, ranges, body["rows"], body["result_kind"], event.payload, udf),
                    len(event.payload),
                )
        for failure in body["failures"]:
            task = batch.order.task_at(failure["position"])
            self._failures[task, attempt] = _record(task, attempt, udf, event.worker, failure)
        if body["last_finished"] is not None:
            self._change(partial(self._writer.finished_at, body["last_finished"]))
        self._feed(
            OutcomesArrived(
                slot=event.slot,
                batch=body["batch"],
                upto=body["upto"],
                busy=body["busy"],
                failed=tuple((failure["position"], "error") for failure in body["failures"]),
                final=body["final"],
            )
        )

    def _adopt_segment(self, temporary: Path, ranges: Any, rows: int, size: int, udf: int) -> None:
        name = self._sealer.place(temporary)
        self._writer.add_segment_of_batch(name, ranges, rows, size, udf, footer_crc(self._paths.results / name))

    def _take_loss(self, event: Lost) -> None:
        if event.cause == LossCause.UNSTARTED:
            self._recorder.look(at_once=True)
            self._mind_the_disk()
        self._lost = event
        self._feed(
            WorkerLost(
                slot=event.slot,
                cause=LossCause(event.cause),
                batch=event.batch,
                position=event.position,
                booted=event.booted,
                unbegun=event.unbegun,
                sure=event.sure,
            )
        )
        self._lost = None
        if not event.booted:
            log(f"worker {event.worker} {event.exit}")

    # --- effects of the scheduler

    def _feed(self, event: Event) -> None:
        """Give an event to the scheduler and carry out what it decides, and what follows from that."""
        if isinstance(event, UdfChanged):
            self._engine.udf = event.udf
        events = deque([event])
        while events:
            for effect in self._scheduler.handle(events.popleft(), time.monotonic()):
                following = self._apply(effect)
                if following is not None:
                    events.append(following)

    def _apply(self, effect: Effect) -> Event | None:  # noqa: C901 - one line a kind
        match effect:
            case Spawn(slot, delay):
                self._engine.spawn(slot, delay)
            case Send(slot, order):
                self._engine.send(slot, order)
            case TakeBack(slot, batch):
                if self._engine.take_back(slot, batch):
                    return BatchTakenBack(slot, batch)
            case Trim(slot, batch):
                kept = self._engine.trim(slot, batch)
                if kept is not None:
                    return BatchTrimmed(slot, batch, kept)
            case Kill(slot, cause):
                self._engine.kill(slot, cause)
            case SettleFailure(_, task, attempt, again):
                record = self._failures.pop((task, attempt))
                self._add_failure(record, current=not again)
            case RecordLoss():
                self._record_loss(effect)
            case SetAttempts(tasks):
                self._change(partial(self._writer.set_attempts, tasks))
            case RecordCancelled(ranges):
                self._control.cancelled(ranges)
                self._change(partial(self._writer.cancel, ranges))
            case Abort(reason):
                exits = f": {self._lost.exit}" if self._lost else ""
                self._stop_reason = reason
                self._report(Report(ok=False, kind="input", message=reason + exits))
        return None

    def _record_loss(self, effect: RecordLoss) -> None:
        lost = self._lost
        if lost is None:
            raise RuntimeError("a loss is recorded while none is taken in")
        now = time.time_ns() // 1000
        self._change(partial(self._writer.finished_at, now))
        if effect.cause is LossCause.CANCELLED:
            self._change(partial(self._writer.cancel, ((effect.task, effect.task + 1),)))
            return
        state, kind = _LOSSES[effect.cause]
        record = FailureRecord(
            task=effect.task,
            attempt=effect.attempt,
            state="error" if state == "crash" and not effect.again else state,
            type=kind,
            message=self._loss_message(effect.cause, lost),
            udf=effect.udf,
            started=lost.started,
            duration=lost.duration,
            worker=lost.worker,
            log=lost.log,
            frames=lost.trace.text if lost.trace is not None else None,
            where=lost.trace.where if lost.trace is not None else None,
        )
        self._add_failure(record, current=not effect.again)

    def _loss_message(self, cause: LossCause, lost: Lost) -> str:
        if cause is LossCause.TIMEOUT:
            return f"ran past the time limit of {self._options.timeout:g} s and was stopped"
        if cause is LossCause.MEMORY:
            return f"held more than the memory limit of {self._options.memory_limit} bytes and was stopped"
        return f"the worker process died during the task: {lost.exit}"

    # --- recording

    def _add_failure(self, record: FailureRecord, *, current: bool) -> None:
        """Have a failure written with all others of the next commit."""
        waiting = self._unwritten[current]
        if not waiting:
            self._change(partial(self._write_failures, current=current))
        waiting.append(record)

    def _write_failures(self, *, current: bool) -> None:
        self._writer.add_failures(self._unwritten[current], current=current)

    def _forget_failures(self) -> None:
        for waiting in self._unwritten.values():
            waiting.clear()

    # --- sealing

    def _seal_if_large(self) -> None:
        worth = worth_sealing(self._inbox_rows, self._inbox_bytes, self._inbox_whole_bytes)
        if worth and not self._sealer.busy and not self._recorder.held and self._commit():
            self._inbox_rows = self._inbox_bytes = self._inbox_whole_bytes = 0
            self._sealer.begin(self._writer.inbox_sizes())

    def _take_over_segments(self) -> None:
        with self._recorder.attempt() as attempt:
            for segment in self._sealer.finished():
                self._change(partial(self._adopt_sealed, segment))
        if not attempt.done:
            # They are in the inbox as before, and sealed again when there is room.
            self._inbox_bytes = SEAL_AT_LAST_BYTES

    def _adopt_sealed(self, segment: SealedSegment) -> None:
        name = self._sealer.place(segment.temporary)
        self._writer.replace_by_segment(segment.ids, name, segment.size, footer_crc(self._paths.results / name))

    def _seal_rest(self) -> bool:
        """Seal all that is left, after which results/ holds every success; False if the disk has no room for that."""
        if not self._finish_sealing():
            return False
        # No worker holds a batch: these are segments that workers had begun to write when they died.
        durable.remove_temporaries(self._paths.results)
        self._inbox_rows = self._inbox_bytes = self._inbox_whole_bytes = 0
        self._sealer.begin(self._writer.inbox_sizes())
        return self._finish_sealing()

    def _finish_sealing(self) -> bool:
        while self._sealer.busy:
            self._take_over_segments()
            time.sleep(0.001)
        return self._commit() and not self._recorder.held


def _record(task: int, attempt: int, udf: int, worker: int, body: dict[str, Any]) -> FailureRecord:
    """Make a record of a failure as ``worker.failure.describe`` tells it."""
    where = body["where"]
    return FailureRecord(
        task=task,
        attempt=attempt,
        state="error",
        type=body["type"],
        message=body["message"],
        udf=udf,
        frames=body["frames"],
        where=(where[0], where[1], where[2]) if where else None,
        exception=base64.b64decode(body["exception"]) if body["exception"] else None,
        started=body["started"],
        duration=body["duration"],
        worker=worker,
        log=(body["log"][0], body["log"][1]),
    )


def reason_of(error: BaseException) -> str:
    """Return what `status` says of a pool whose supervisor was ended by an error."""
    if isinstance(error, DamagedPoolError):
        # What mends it is not what `status` would advise, to resume.
        return "; ".join(filter(None, (error.message, error.hint)))
    return error.message if isinstance(error, JobPoolError) else f"{type(error).__name__}: {error}"
