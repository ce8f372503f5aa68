"""The engine of this machine: long-lived worker processes, each in a session of its own.

Their deaths are seen through pidfds, never by process numbers or closed pipes, and what a dead worker leaves running
is found by the mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jobpool_cli.engines.base import BootFailed, EngineEvent, Lost, Outcomes, Ready
from jobpool_cli.engines.processes import MARK, give_back_descriptors, kill_marked, memory_of_tree
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import PoolOptions
from jobpool_cli.store import durable
from jobpool_cli.store.slots import (
    IDLE,
    LIMIT,
    LOG_START,
    POSITION,
    POSITION_BITS,
    POSITION_MASK,
    STARTED,
    SharedSlots,
    position_in,
    reset,
)
from jobpool_cli.worker.protocol import BatchOrder, Frame, FrameReader, ProtocolError

SEND_BUFFER_BYTES = 4 << 20
# By then a store to shared memory has reached every core, and a worker that read the old limit shows where it went.
TRIM_WAIT_SECONDS = 0.001
MEMORY_POLL_SECONDS = 0.25
BOOT_LOG_BYTES = 4000
# So much is read from one worker before the others have their turn.
READ_BYTES = 16 << 20


@dataclass
class Process:
    """One worker process."""

    worker: int
    popen: subprocess.Popen[bytes]
    pidfd: int
    orders: socket.socket
    orders_worker_end: socket.socket
    outcomes: socket.socket
    log: Path
    reader: FrameReader = field(default_factory=FrameReader)
    booted: bool = False
    cause: str = "crash"
    condemned: int = IDLE
    """What its slot showed when it was condemned: only that task pays for it."""
    kill_at: float | None = None


class LocalEngine:
    """Worker processes on this machine."""

    def __init__(
        self, paths: PoolPaths, options: PoolOptions, *, pool_id: str, folder: Path, udf: int, first_worker: int
    ) -> None:
        """Prepare; no process is started yet.

        Args:
            paths: the pool.
            options: its options.
            pool_id: goes into the workers' environment, so that what they leave behind can be found.
            folder: the working directory of the tasks.
            udf: the code version that workers load first.
            first_worker: number of the first worker; they rise over the pool's whole life.
        """
        self._paths = paths
        self._options = options
        self._pool_id = pool_id
        self._folder = folder
        self._next_worker = first_worker
        self.udf = udf
        self._slots = SharedSlots(paths.slots)
        self._views = [self._slots.slot(index) for index in range(options.processes)]
        self._processes: dict[int, Process] = {}
        self._delayed: dict[int, float] = {}
        self._selector = selectors.DefaultSelector()
        self._memory_checked = 0.0

    def watch(self, fd: int) -> None:
        """Have ``poll`` return early when a descriptor of the caller's becomes readable."""
        self._selector.register(fd, selectors.EVENT_READ, None)

    # --- the contract

    def spawn(self, slot: int, delay: float) -> None:
        """Have the next ``poll`` after the delay start a worker, with the code version that is ``udf`` by then."""
        self._delayed[slot] = time.monotonic() + delay

    def _start(self, slot: int) -> Iterator[EngineEvent]:
        worker, self._next_worker = self._next_worker, self._next_worker + 1
        with contextlib.ExitStack() as undo:
            try:
                self._processes[slot] = self._started(slot, worker, undo)
            except OSError as error:
                reset(self._views[slot], 0, 0)
                said = f"could not be started: {error}"
                yield Lost(slot, worker, "unstarted", batch=None, position=None, booted=False, exit=said)
            else:
                undo.pop_all()

    def _started(self, slot: int, worker: int, undo: contextlib.ExitStack) -> Process:
        """Start a worker process; ``undo`` is how to take back what was done when that fails halfway."""
        log = self._paths.worker_log(worker)
        orders, orders_worker_end = map(undo.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        outcomes, outcomes_worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        undo.enter_context(outcomes)
        with outcomes_worker_end:
            outcomes_worker_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            outcomes.settimeout(0)
            log_fd = durable.open_new(log, append=True)
            reset(self._views[slot], worker, 0)
            try:
                popen = subprocess.Popen(
                    [
                        sys.executable, "-P", "-m", "jobpool_cli.worker", str(self._paths.root),
                        f"--slot={slot}", f"--worker={worker}", f"--udf={self.udf}", f"--parent={os.getpid()}",
                        f"--orders={orders_worker_end.fileno()}", f"--outcomes={outcomes_worker_end.fileno()}",
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log_fd,
                    stderr=log_fd,
                    pass_fds=(orders_worker_end.fileno(), outcomes_worker_end.fileno()),
                    start_new_session=True,
                    cwd=self._folder if self._folder.is_dir() else self._paths.root,
                    env={**os.environ, MARK: f"{self._pool_id}:{worker}"},
                )  # fmt: skip
            finally:
                os.close(log_fd)
        undo.callback(popen.wait)
        undo.callback(popen.kill)
        pidfd = os.pidfd_open(popen.pid)
        undo.callback(os.close, pidfd)
        give_back_descriptors(popen.pid)
        reset(self._views[slot], worker, popen.pid)
        self._selector.register(pidfd, selectors.EVENT_READ, slot)
        undo.callback(self._selector.unregister, pidfd)
        self._selector.register(outcomes, selectors.EVENT_READ, slot)
        return Process(worker, popen, pidfd, orders, orders_worker_end, outcomes, log)

    def send(self, slot: int, order: BatchOrder) -> None:
        """Hand over a batch; a worker that died meanwhile is reported by ``poll``, with what it never read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._processes[slot].orders.send(order.encode())

    def take_back(self, slot: int, batch: int) -> bool:
        """Read the worker's end of the channel: the kernel gives a message to one reader only."""
        process = self._processes.get(slot)
        if process is None:
            return False
        unread = _unread(process)
        for order in unread:
            if order.batch != batch:
                process.orders.send(order.encode())
        return any(order.batch == batch for order in unread)

    def trim(self, slot: int, batch: int) -> int | None:
        """Lower the slot's limit to just behind the running position; see ``store.slots`` for why that is safe."""
        view = self._views[slot]
        position = position_in(view, batch)
        if position is None:
            return None
        view[LIMIT] = batch << POSITION_BITS | (position + 1)
        time.sleep(TRIM_WAIT_SECONDS)
        position = position_in(view, batch)
        return None if position is None else position + 1

    def kill(self, slot: int, cause: str) -> None:
        """Ask the worker's processes to end; those that do not within the grace period are killed by ``poll``."""
        process = self._processes.get(slot)
        if process is not None:
            self._condemn(process, cause, self._views[slot][POSITION])

    def _condemn(self, process: Process, cause: str, word: int) -> None:
        """End a process because of what its slot showed; whichever task it has gone on to since is not to blame."""
        if process.kill_at is not None:
            return
        process.cause, process.condemned = cause, word
        self._signal(process, signal.SIGKILL if cause == "memory" else signal.SIGTERM)
        process.kill_at = time.monotonic() + self._options.grace

    def poll(self, timeout: float) -> Iterator[EngineEvent]:
        """Wait for frames and deaths, and enforce the limits on time and memory."""
        now = time.monotonic()
        for slot, moment in list(self._delayed.items()):
            if moment <= now:
                del self._delayed[slot]
                yield from self._start(slot)
        dead = []
        for key, _ in self._selector.select(timeout):
            slot = key.data
            process = self._processes.get(slot) if slot is not None else None
            if process is None:
                continue
            if key.fd == process.pidfd:
                dead.append(slot)
            else:
                yield from self._read(slot, process)
        for slot in dead:
            yield from self._bury(slot)
        self._enforce(time.monotonic())

    def stop(self) -> None:
        """Kill everything; what has not been reported by now runs again later."""
        self._delayed.clear()
        for process in self._processes.values():
            self._signal(process, signal.SIGKILL)
        for slot in list(self._processes):
            self._processes[slot].popen.wait()
            self._close(slot)
        kill_marked(self._pool_id)

    # --- inside

    def _read(self, slot: int, process: Process, *, all_of_it: bool = False) -> list[EngineEvent]:
        try:
            frames, alive = process.reader.feed(process.outcomes, None if all_of_it else READ_BYTES)
        except ProtocolError:
            # Something wrote into the channel that is not ours to read: this worker cannot be believed any more.
            self._selector.unregister(process.outcomes)
            self._signal(process, signal.SIGKILL)
            return []
        if not alive:
            self._selector.unregister(process.outcomes)
            # It is dead, or it closed its channel and lives on: then nothing more can come of it.
            self._signal(process, signal.SIGKILL)
        return [self._event(slot, process, frame) for frame in frames]

    @staticmethod
    def _event(slot: int, process: Process, frame: Frame) -> EngineEvent:
        if frame.kind == "ready":
            process.booted = True
            return Ready(slot)
        if frame.kind == "boot-failed":
            return BootFailed(slot, str(frame.body["message"]))
        return Outcomes(slot, process.worker, frame.body, frame.payload)

    def _bury(self, slot: int) -> Iterator[EngineEvent]:
        process = self._processes[slot]
        if process.outcomes in [key.fileobj for key in self._selector.get_map().values()]:
            yield from self._read(slot, process, all_of_it=True)
        # The dead leader still holds its process group's number, so that this cannot hit a stranger.
        self._signal(process, signal.SIGKILL)
        code = process.popen.wait()
        view = self._views[slot]
        word = view[POSITION]
        lost = Lost(
            slot=slot,
            worker=process.worker,
            cause=process.cause if process.cause == "crash" or word == process.condemned else "stopped",
            batch=None if word == IDLE else word >> POSITION_BITS,
            position=None if word == IDLE else word & POSITION_MASK,
            booted=process.booted,
            exit=describe_exit(code),
            unbegun=tuple(order.batch for order in _unread(process)),
        )
        if word != IDLE:
            elapsed = max(0, time.monotonic_ns() - view[STARTED])
            lost = Lost(
                **{**lost.__dict__, "started": (time.time_ns() - elapsed) // 1000, "duration": elapsed,
                   "log": _log_range(process.log, view[LOG_START])}
            )  # fmt: skip
        elif not process.booted:
            lost = Lost(**{**lost.__dict__, "exit": f"{lost.exit}\n{_tail(process.log)}".strip()})
        worker = process.worker
        self._close(slot)
        kill_marked(f"{self._pool_id}:{worker}")
        yield lost

    def _close(self, slot: int) -> None:
        process = self._processes.pop(slot)
        for each in (process.outcomes, process.pidfd):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(each)
        for channel in (process.orders, process.orders_worker_end, process.outcomes):
            channel.close()
        os.close(process.pidfd)
        reset(self._views[slot], 0, 0)

    @staticmethod
    def _signal(process: Process, number: signal.Signals) -> None:
        """Send a signal to the worker's process group; the unreaped leader keeps the group's number ours."""
        if process.popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.popen.pid, number)

    def _enforce(self, now: float) -> None:
        for process in self._processes.values():
            if process.kill_at is not None and now >= process.kill_at:
                self._signal(process, signal.SIGKILL)
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

    def _overdue(self, slot: int, timeout: float) -> int | None:
        """Return the slot's word if its task is past its time; one that ended meanwhile is not mistaken for it."""
        view = self._views[slot]
        word: int = view[POSITION]
        if word == IDLE:
            return None
        elapsed = time.monotonic_ns() - view[STARTED]
        return word if elapsed > timeout * 1e9 and view[POSITION] == word else None


def _unread(process: Process) -> list[BatchOrder]:
    """Take the orders that a worker has not read out of its channel."""
    orders = []
    with contextlib.suppress(BlockingIOError):
        while message := process.orders_worker_end.recv(1 << 20, socket.MSG_DONTWAIT):
            orders.append(BatchOrder.decode(message))
    return orders


def describe_exit(code: int) -> str:
    """Say in words how a process ended."""
    if code < 0:
        try:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exited with code {code}"


def _log_range(log: Path, start: int) -> tuple[int, int] | None:
    """Return the bytes that a task wrote, None if somebody deleted the log."""
    try:
        return start, log.stat().st_size
    except OSError:
        return None


def _tail(log: Path) -> str:
    try:
        return log.read_bytes()[-BOOT_LOG_BYTES:].decode("utf-8", "replace")
    except OSError as error:
        return f"(its log cannot be read: {error})"
