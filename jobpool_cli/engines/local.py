"""The engine of this machine: long-lived worker processes, each in a session of its own.

Their deaths are seen through pidfds, never by process numbers or closed pipes. What a dead worker leaves running is
ended with it, see ``processes``; what a task leaves running while its worker lives on ends at the latest with the pool.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from jobpool_cli.engines.base import BootFailed, EngineEvent, Lost
from jobpool_cli.engines.processes import (
    descendants,
    kill_adopted,
    kill_marked,
    kill_these,
    memory_of_tree,
    reap_adopted,
)
from jobpool_cli.engines.traces import last_trace
from jobpool_cli.engines.worker_process import WorkerProcess, describe_exit, start_worker
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import PoolOptions
from jobpool_cli.store import durable
from jobpool_cli.store.slots import (
    BEAT,
    IDLE,
    LIMIT,
    LOG_START,
    POSITION,
    POSITION_BITS,
    STARTED,
    SharedSlots,
    is_elsewhere,
    position_in,
    reset,
)
from jobpool_cli.worker.importing import IMPORT_SECONDS_VARIABLE, import_seconds
from jobpool_cli.worker.protocol import CHANNEL_CLOSED_EXIT_CODE, Assignment, BatchOrder, ProtocolError

# By then a store to shared memory has reached every core, and a worker that read the old limit shows where it went.
TRIM_WAIT_SECONDS = 0.001
MEMORY_POLL_SECONDS = 0.25
CARE_SECONDS = 1.0
BOOT_LOG_BYTES = 4000
# Why a process is condemned that does not come to the end of its imports.
IMPORT = "import"
IMPORT_HINT = f"if it needs longer, set {IMPORT_SECONDS_VARIABLE} to the seconds that it may take"
# So much is read from one worker before the others have their turn.
READ_BYTES = 16 << 20
# A process that ends closes its channel a moment before its end shows; one that lives on has closed it by itself.
CLOSED_SECONDS = 0.5
CLOSED = "its channel is closed"
# A message whose end does not come for so long from a worker that does nothing else has none.
STALLED_SECONDS = 5.0
# Time to write down where it is, for a process that does not heed SIGTERM and is killed next.
TRACE_SECONDS = 0.2


class LocalEngine:
    """Worker processes on this machine."""

    def __init__(
        self,
        paths: PoolPaths,
        options: PoolOptions,
        *,
        pool_id: str,
        folder: Path,
        udf: int,
        numbers: Iterator[int],
        standby: Sequence[WorkerProcess] = (),
    ) -> None:
        """Prepare; no process is started yet.

        Args:
            paths: the pool.
            options: its options.
            pool_id: goes into the workers' environment, so that what they leave behind can be found.
            folder: the working directory of the tasks.
            udf: the code version that workers load first.
            numbers: those of the workers to come; they rise over the pool's whole life.
            standby: processes that were started ahead, with the marks of this pool's first workers.
        """
        self._paths = paths
        self._options = options
        self._pool_id = pool_id
        self._folder = folder
        self._numbers = numbers
        self.udf = udf
        self.deaf = False
        self._slots = SharedSlots(paths.slots)
        self._views = [self._slots.slot(index) for index in range(options.processes)]
        self._standby = {process.worker: process for process in standby}
        self._processes: dict[int, WorkerProcess] = {}
        self._delayed: dict[int, float] = {}
        self._selector = selectors.DefaultSelector()
        # From the beginning: it may be stopped at any moment.
        self._views[0][BEAT] = time.monotonic_ns()
        self._memory_checked = 0.0
        self._cared = 0.0
        self._has_booted = False
        """Whether any worker has ever loaded the UDF."""

    def watch(self, fd: int) -> None:
        """Have ``poll`` return early when a descriptor of the caller's becomes readable."""
        self._selector.register(fd, selectors.EVENT_READ, None)

    # --- the contract

    def spawn(self, slot: int, delay: float) -> None:
        """Have the next ``poll`` after the delay start a worker, with the code version that is ``udf`` by then."""
        self._delayed[slot] = time.monotonic() + delay

    def _start(self, slot: int) -> Iterator[EngineEvent]:
        worker = next(self._numbers)
        try:
            self._processes[slot] = self._started(slot, worker)
        except OSError as error:
            reset(self._views[slot], 0, 0)
            said = f"could not be started: {error}"
            yield Lost(slot, worker, "unstarted", batch=None, position=None, booted=False, exit=said)

    def _started(self, slot: int, worker: int) -> WorkerProcess:
        """Start a worker process, or take the one that stands by, and give it its slot and its log."""
        log = self._paths.worker_log(worker)
        folder = self._folder if self._folder.is_dir() else self._paths.root
        log_fd = durable.open_new(log, append=True)
        try:
            reset(self._views[slot], worker, 0)
            process = self._standing_by(worker)
            process = process or start_worker(worker, pool_id=self._pool_id, folder=folder, output=log_fd)
            reset(self._views[slot], worker, process.popen.pid)
            try:
                process.assign(Assignment(str(self._paths.root), slot, worker, self.udf), log, log_fd)
            except OSError:
                process.end()
                raise
        finally:
            os.close(log_fd)
        self._selector.register(process.pidfd, selectors.EVENT_READ, slot)
        self._selector.register(process.outcomes, selectors.EVENT_READ, slot)
        return process

    def _standing_by(self, worker: int) -> WorkerProcess | None:
        """Return the process that was started ahead as this worker, if it lives."""
        process = self._standby.pop(worker, None)
        if process is not None and process.popen.poll() is not None:
            process.close()
            process = None
        return process

    def send(self, slot: int, order: BatchOrder) -> None:
        """Hand over a batch; a worker that died meanwhile is reported by ``poll``, with what it never read."""
        self._processes[slot].send(order)

    def take_back(self, slot: int, batch: int) -> bool:
        """Read the worker's end of the channel: the kernel gives a message to one reader only."""
        process = self._processes.get(slot)
        if process is None:
            return False
        unread = process.take_unread()
        for order in unread:
            if order.batch != batch:
                process.send(order)
            else:
                process.reports.taken_back(batch)
        return any(order.batch == batch for order in unread)

    def trim(self, slot: int, batch: int) -> int | None:
        """Lower the slot's limit to just behind the running position; see ``store.slots`` for why that is safe."""
        view = self._views[slot]
        # One that has read the batch and not begun it: what it reads of it may take a while.
        kept = _kept(view, batch)
        if kept is None or slot not in self._processes or not self._processes[slot].reports.has(batch):
            return None
        view[LIMIT] = batch << POSITION_BITS | kept
        time.sleep(TRIM_WAIT_SECONDS)
        kept = _kept(view, batch)
        return None if kept is None else self._processes[slot].reports.trimmed(batch, kept)

    def kill(self, slot: int, cause: str) -> None:
        """Ask the worker's processes to end; those that do not within the grace period are killed by ``poll``."""
        process = self._processes.get(slot)
        if process is not None:
            self._condemn(process, cause, self._views[slot][POSITION])

    def _condemn(self, process: WorkerProcess, cause: str, word: int) -> None:
        """End a process because of what its slot showed; whichever task it has gone on to since is not to blame."""
        if process.kill_at is not None:
            return
        process.cause, process.condemned = cause, word
        process.started |= descendants(process.popen.pid)
        process.signal(signal.SIGKILL if cause == "memory" else signal.SIGTERM)
        process.kill_at = time.monotonic() + self._options.grace

    def poll(self, timeout: float) -> Iterator[EngineEvent]:
        """Wait for frames and deaths, and enforce the limits on time and memory."""
        now = time.monotonic()
        for slot, moment in list(self._delayed.items()):
            if moment <= now:
                del self._delayed[slot]
                yield from self._start(slot)
        dead = []
        if self.deaf:
            # What may not be read would wake it all the time.
            time.sleep(timeout)
        for key, _ in self._selector.select(0 if self.deaf else timeout):
            slot = key.data
            process = self._processes.get(slot) if slot is not None else None
            if process is None:
                continue
            if key.fd == process.pidfd:
                dead.append(slot)
            elif not self.deaf:
                yield from self._read(process)
        for slot in dead:
            yield from self._bury(slot)
        self._enforce(time.monotonic())
        if now - self._cared > CARE_SECONDS:
            self._cared = now
            self._views[0][BEAT] = time.monotonic_ns()
            reap_adopted({process.popen.pid for process in (*self._processes.values(), *self._standby.values())})

    def stop(self) -> None:
        """Kill everything; what has not been reported by now runs again later."""
        self._delayed.clear()
        for process in (*self._processes.values(), *self._standby.values()):
            process.signal(signal.SIGKILL)
        for process in self._standby.values():
            process.end()
        self._standby.clear()
        for slot in list(self._processes):
            self._processes[slot].popen.wait()
            self._close(slot)
        kill_marked(self._pool_id, self._paths.logs)
        kill_adopted()

    # --- inside

    def _read(self, process: WorkerProcess, *, all_of_it: bool = False) -> Iterator[EngineEvent]:
        process.heard_at = time.monotonic()
        try:
            frames, alive = process.reader.feed(process.outcomes, None if all_of_it else READ_BYTES)
            for frame in frames:
                event = process.reports.event(frame)
                self._has_booted |= process.booted
                if event is not None:
                    yield event
        except ProtocolError as error:
            self._distrust(process, error.message)
            return
        if not alive:
            self._selector.unregister(process.outcomes)
            process.closed_at = time.monotonic()

    def _distrust(self, process: WorkerProcess, why: str) -> None:
        """End a process whose reports cannot be believed any more; what it reported before stands."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(process.outcomes)
        process.distrusted = why
        process.signal(signal.SIGKILL)

    def _bury(self, slot: int) -> Iterator[EngineEvent]:
        process = self._processes[slot]
        if process.outcomes in [key.fileobj for key in self._selector.get_map().values()]:
            yield from self._read(process, all_of_it=True)
        # The dead leader still holds its process group's number, so that this cannot hit a stranger.
        process.signal(signal.SIGKILL)
        code = process.popen.wait()
        if code == CHANNEL_CLOSED_EXIT_CODE:
            process.distrusted = process.distrusted or CLOSED
        view = self._views[slot]
        word = view[POSITION]
        running = process.reports.running(word)
        lost = Lost(
            slot=slot,
            worker=process.worker,
            cause=_cause(process, word),
            batch=running[0] if running is not None else None,
            position=running[1] if running is not None else None,
            booted=process.booted,
            sure=not process.distrusted,
            exit=_exit(process, code),
            unbegun=tuple(order.batch for order in process.take_unread()),
        )
        if running is not None:
            elapsed = _elapsed(view[STARTED], process.assigned_at)
            log = _log_range(process.log, view[LOG_START])
            lost = replace(
                lost,
                started=(time.time_ns() - elapsed) // 1000,
                duration=elapsed,
                log=log,
                trace=last_trace(process.log, *log) if log is not None else None,
            )
        elif not process.booted:
            lost = replace(lost, exit=f"{lost.exit}\n{_tail(process.log)}".strip())
        self._close(slot)
        kill_these(process.started)
        kill_marked(f"{self._pool_id}:{process.worker}", process.log)
        if process.cause == IMPORT and not process.booted and not self._has_booted:
            yield BootFailed(slot, f"{_tail(process.log)}\n{_exit(process, code)}".strip(), IMPORT_HINT)
        yield lost

    def _close(self, slot: int) -> None:
        process = self._processes.pop(slot)
        for each in (process.outcomes, process.pidfd):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(each)
        process.close()
        reset(self._views[slot], 0, 0)

    def _enforce(self, now: float) -> None:
        for slot, process in self._processes.items():
            self._watch_over(slot, process, now)
        if self._options.timeout is not None:
            for slot, process in self._processes.items():
                word = self._overdue(slot, self._options.timeout)
                if word is not None:
                    self._condemn(process, "timeout", word)
        limit = self._options.memory_limit
        if limit is not None and now - self._memory_checked > MEMORY_POLL_SECONDS:
            self._memory_checked = now
            for slot, process in self._processes.items():
                word = self._views[slot][POSITION]
                if word != IDLE and memory_of_tree(process.popen.pid) > limit:
                    self._condemn(process, "memory", word)

    def _watch_over(self, slot: int, process: WorkerProcess, now: float) -> None:
        """End a process that is past its time in any other way than by a task."""
        if process.kill_at is not None:
            if now >= process.kill_at and not process.asked_for_trace:
                process.ask_for_trace()
                process.kill_at = now + TRACE_SECONDS
            elif now >= process.kill_at:
                process.started |= descendants(process.popen.pid)
                process.signal(signal.SIGKILL)
        elif self.deaf:
            # What it has to say for itself may lie unread.
            process.heard_at = now
        elif not process.booted and now - process.assigned_at > import_seconds():
            self._condemn(process, IMPORT, self._views[slot][POSITION])
        elif process.distrusted:
            pass
        elif process.closed_at is not None and now - process.closed_at > CLOSED_SECONDS:
            self._distrust(process, CLOSED)
        elif (
            process.reader.is_amid_frame
            and now - process.heard_at > STALLED_SECONDS
            and self._views[slot][POSITION] == IDLE
        ):
            self._distrust(process, "a message without an end")

    def _overdue(self, slot: int, timeout: float) -> int | None:
        """Return the slot's word if its task is past its time; one that ended meanwhile is not mistaken for it."""
        view = self._views[slot]
        word: int = view[POSITION]
        if word == IDLE:
            return None
        elapsed = time.monotonic_ns() - view[STARTED]
        return word if elapsed > timeout * 1e9 and view[POSITION] == word else None


def _kept(view: memoryview, batch: int) -> int | None:
    """Return how many leading tasks of a batch its worker has begun; None if it is past it, or in another."""
    position = position_in(view, batch)
    if position is not None:
        return position + 1
    return None if is_elsewhere(view, batch) else 0


def _cause(process: WorkerProcess, word: int) -> str:
    """Return why a process is gone, given what its slot showed at its end."""
    if process.cause in {"crash", IMPORT}:
        return "crash"
    return process.cause if word == process.condemned else "stopped"


def _exit(process: WorkerProcess, code: int) -> str:
    """Say in words how a process ended."""
    if process.cause == IMPORT:
        return f"it was not imported within {import_seconds():g} s"
    if process.distrusted:
        return (
            f"it was ended, as what it reports cannot be believed any more ({process.distrusted});"
            " does the task write to, or close, file descriptors that it did not open?"
        )
    return describe_exit(code)


def _elapsed(started: int, since: float) -> int:
    """Return how long a task has run, in nanoseconds: no longer than its process, whatever stands in its slot."""
    now = time.monotonic_ns()
    return now - started if since * 1e9 <= started <= now else 0


def _log_range(log: Path, start: int) -> tuple[int, int] | None:
    """Return the bytes that a task wrote, None if somebody deleted the log."""
    try:
        size = log.stat().st_size
    except OSError:
        return None
    return (start, size) if 0 <= start <= size else (size, size)


def _tail(log: Path) -> str:
    try:
        return log.read_bytes()[-BOOT_LOG_BYTES:].decode("utf-8", "replace")
    except OSError as error:
        return f"(its log cannot be read: {error})"
