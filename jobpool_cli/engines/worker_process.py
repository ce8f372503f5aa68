"""One worker process as the supervisor sees it: started, told which pool and slot it is for, sent orders, buried.

A process can be started before there is a pool: it imports what every worker needs and waits for its assignment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from jobpool_cli.engines.processes import MARK, give_back_descriptors
from jobpool_cli.engines.reports import Reports
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store.slots import IDLE
from jobpool_cli.worker.capture import TRACE_SIGNAL
from jobpool_cli.worker.protocol import Assignment, BatchOrder, FrameReader

SEND_BUFFER_BYTES = 4 << 20


@dataclass
class WorkerProcess:
    """One worker process and the supervisor's ends of its channels.

    Attributes:
        worker: its number, which names its log.
        orders_worker_end: the other end of ``orders``, kept to take back what the worker has not read.
        log: nothing until it is assigned.
        reports: the books on what it may report, once it is assigned.
        cause: why it was condemned, a value of ``LossCause``.
        condemned: what its slot showed when it was condemned: only that task pays for it.
        kill_at: when patience with a condemned process ends, monotonic seconds.
        asked_for_trace: whether it was told to write down where it is, the last thing before it is killed.
        assigned_at: when it was told what it is for, monotonic seconds.
        heard_at: when something came from it last, monotonic seconds.
        closed_at: when its channel was seen closed, monotonic seconds.
        distrusted: why nothing more is believed that comes from it; empty as long as it is.
        started: what it had started by the time it was condemned, as ``processes.descendants`` tells it.
    """

    worker: int
    popen: subprocess.Popen[bytes]
    pidfd: int
    orders: socket.socket
    orders_worker_end: socket.socket
    outcomes: socket.socket
    reports: Reports = field(init=False)
    log: Path = Path(os.devnull)
    reader: FrameReader = field(default_factory=FrameReader)
    cause: str = "crash"
    condemned: int = IDLE
    kill_at: float | None = None
    asked_for_trace: bool = False
    assigned_at: float = 0.0
    heard_at: float = 0.0
    closed_at: float | None = None
    distrusted: str = ""
    started: set[tuple[int, int]] = field(default_factory=set)

    @property
    def booted(self) -> bool:
        """Whether it has loaded the UDF."""
        return self.reports.booted

    def assign(self, assignment: Assignment, log: Path, log_fd: int) -> None:
        """Tell the process what it is for, and give it its log; if it is dead already, that shows in the pidfd."""
        self.log = log
        self.reports = Reports(assignment.slot, assignment.worker, PoolPaths(Path(assignment.root)).results)
        self.assigned_at = self.heard_at = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.orders, [assignment.encode()], [log_fd])

    def send(self, order: BatchOrder) -> None:
        """Send a batch; what a process that died meanwhile did not read stays in the channel."""
        self.reports.sent(order)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.orders.send(order.encode())

    def take_unread(self) -> list[BatchOrder]:
        """Take the orders that the worker has not read out of its channel."""
        orders: list[BatchOrder] = []
        if not self.booted:
            # What it may not have read is its assignment.
            return orders
        with contextlib.suppress(BlockingIOError):
            while message := self.orders_worker_end.recv(1 << 20, socket.MSG_DONTWAIT):
                orders.append(BatchOrder.decode(message))
        return orders

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its process group; the unreaped leader keeps the group's number ours."""
        if self.popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, number)

    def ask_for_trace(self) -> None:
        """Have it write to its log where each of its threads is: it is about to be killed."""
        self.asked_for_trace = True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, TRACE_SIGNAL)

    def end(self) -> None:
        """Kill it, and leave nothing of it."""
        self.signal(signal.SIGKILL)
        self.popen.wait()
        self.close()

    def close(self) -> None:
        """Close what belongs to a process that has been reaped."""
        for channel in (self.orders, self.orders_worker_end, self.outcomes):
            channel.close()
        os.close(self.pidfd)


def start_worker(worker: int, *, pool_id: str, folder: str | Path, output: int | None) -> WorkerProcess:
    """Start a worker process in a session of its own; it dies with this process.

    Args:
        worker: its number.
        pool_id: with the number, its mark: goes into its environment, so that what it leaves behind can be found.
        folder: its working directory.
        output: what it writes until it is assigned goes to this descriptor, or nowhere.

    Raises:
        OSError: it could not be started; nothing is left of it.
    """
    with contextlib.ExitStack() as undo:
        orders, orders_worker_end = map(undo.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        outcomes, outcomes_worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        undo.enter_context(outcomes)
        with outcomes_worker_end:
            outcomes_worker_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            outcomes.settimeout(0)
            # Nobody would read what a stray write puts there, so that it would wait for ever; and nothing comes the
            # other way on the other channel.
            orders_worker_end.shutdown(socket.SHUT_WR)
            outcomes.shutdown(socket.SHUT_WR)
            popen = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "jobpool_cli.worker", f"--parent={os.getpid()}",
                    f"--orders={orders_worker_end.fileno()}", f"--outcomes={outcomes_worker_end.fileno()}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if output is None else output,
                stderr=subprocess.DEVNULL if output is None else output,
                pass_fds=(orders_worker_end.fileno(), outcomes_worker_end.fileno()),
                start_new_session=True,
                cwd=folder,
                env={**os.environ, MARK: f"{pool_id}:{worker}"},
            )  # fmt: skip
        undo.callback(popen.wait)
        undo.callback(popen.kill)
        pidfd = os.pidfd_open(popen.pid)
        give_back_descriptors(popen.pid)
        undo.pop_all()
    return WorkerProcess(worker, popen, pidfd, orders, orders_worker_end, outcomes)


def describe_exit(code: int) -> str:
    """Say in words how a process ended."""
    if code < 0:
        try:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exited with code {code}"
