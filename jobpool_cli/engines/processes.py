"""Processes beyond the workers themselves: what they started, found by their mark; and what they hold in memory."""

from __future__ import annotations

import contextlib
import os
import signal

# In the environment of every worker and so of all that it starts: "<pool id>:<worker number>".
MARK = "JOBPOOL_MARK"


def kill_marked(mark: str) -> None:
    """Kill every process whose mark begins so: a pool's id, or one worker's whole mark.

    Processes that scrubbed their environment escape; those of other users are not ours to touch.
    """
    exact = f"{MARK}={mark}".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            # The descriptor pins the process: it cannot become another one between the look and the signal.
            pidfd = os.pidfd_open(int(entry.name))
            try:
                with open(f"/proc/{entry.name}/environ", "rb") as file:
                    marks = [each for each in file.read().split(b"\0") if each.startswith(b"JOBPOOL_MARK=")]
                if any(each == exact or each.startswith(exact + b":") for each in marks):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def memory_of_tree(pid: int) -> int:
    """Return the bytes that a process and its descendants hold, shared pages counted in proportion (PSS)."""
    total = 0
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        # Whatever ends while one looks holds nothing any more.
        with contextlib.suppress(OSError):
            total += _pss(each)
        with contextlib.suppress(OSError):
            waiting += _children(each)
    return total


def _pss(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) << 10
    return 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
            found += map(int, file.read().split())
    return found
