"""The worker process's entry point; its command line is private to ``engines.worker_process``."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

from jobpool_cli.layout import PoolPaths
from jobpool_cli.worker.protocol import Assignment, send_frame

PR_SET_PDEATHSIG = 1
STDOUT, STDERR = 1, 2
# As if the process held half of the machine's memory more than it does.
OOM_SCORE = 500


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the supervisor dies, and make sure that it did not die before that."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def offer_to_oom_killer() -> None:
    """Where the machine runs out of memory, let the kernel end this process rather than the supervisor or a shell."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
        if int(file.read()) < OOM_SCORE:
            file.seek(0)
            file.write(str(OOM_SCORE))


def main(parent: int, orders: socket.socket, outcomes: socket.socket) -> None:
    """Run one worker."""
    die_with(parent)
    offer_to_oom_killer()
    # Only now, so that the imports cannot outlive a dead supervisor by more than a moment.
    from jobpool_cli.worker.loop import Worker  # noqa: PLC0415

    send_frame(outcomes, "warm", {})
    message, descriptors, _, _ = socket.recv_fds(orders, 1 << 16, 1)
    if not message:
        os._exit(0)
    assignment = Assignment.decode(message)
    for standard in (STDOUT, STDERR):
        os.dup2(descriptors[0], standard)
    os.close(descriptors[0])
    worker = Worker(
        PoolPaths(Path(assignment.root)),
        slot=assignment.slot,
        worker=assignment.worker,
        orders=orders,
        outcomes=outcomes,
    )
    if worker.boot(assignment.udf):
        worker.serve()
    # Not sys.exit: threads and exit handlers that the UDF left behind must not hold the worker up.
    os._exit(0)


if __name__ == "__main__":
    given = dict(each.removeprefix("--").split("=", 1) for each in sys.argv[1:])
    main(
        int(given["parent"]),
        orders=socket.socket(fileno=int(given["orders"])),
        outcomes=socket.socket(fileno=int(given["outcomes"])),
    )
