"""The worker process's entry point; its command line is private to ``engines.local``."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
from pathlib import Path

from jobpool_cli.layout import PoolPaths

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the supervisor dies, and make sure that it did not die before that."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Run one worker."""
    parser = argparse.ArgumentParser(prog="jobpool-worker")
    for name in ("--slot", "--worker", "--udf", "--orders", "--outcomes", "--parent"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("root", type=Path)
    options = parser.parse_args()
    die_with(options.parent)

    # Only now, so that the imports above cannot outlive a dead supervisor by more than a moment.
    from jobpool_cli.worker.loop import Worker  # noqa: PLC0415

    worker = Worker(
        PoolPaths(options.root),
        pool=options.root.name,
        slot=options.slot,
        worker=options.worker,
        orders=socket.socket(fileno=options.orders),
        outcomes=socket.socket(fileno=options.outcomes),
    )
    if worker.boot(options.udf):
        worker.serve()
    # Not sys.exit: threads and exit handlers that the UDF left behind must not hold the worker up.
    os._exit(0)


if __name__ == "__main__":
    main()
