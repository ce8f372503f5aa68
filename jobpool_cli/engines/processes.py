"""Processes beyond the workers themselves: what they started, found by their mark; and what they hold in memory."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator

# In the environment of every worker and so of all that it starts: "<pool id>:<worker number>".
MARK = "JOBPOOL_MARK"

_inherited: tuple[int, int] | None = None


def other_processes() -> Iterator[tuple[int, int]]:
    """Yield every other process of this machine: its number, and a descriptor (pidfd).

    The descriptor pins the process while the caller looks: its number cannot become another one's before a signal.
    """
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(int(entry.name))
            try:
                yield int(entry.name), pidfd
            finally:
                os.close(pidfd)


def kill_marked(mark: str) -> None:
    """Kill every process whose mark begins so: a pool's id, or one worker's whole mark.

    Processes that scrubbed their environment escape; those of other users are not ours to touch.
    """
    exact = f"{MARK}={mark}".encode()
    name = exact.partition(b"=")[0] + b"="
    for pid, pidfd in other_processes():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            marks = [each for each in file.read().split(b"\0") if each.startswith(name)]
            if any(each == exact or each.startswith(exact + b":") for each in marks):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def needed_descriptors(processes: int) -> int:
    """Return how many files a supervisor of so many workers has open: four for each, and some of its own."""
    return 4 * processes + 64


def descriptor_limit() -> int:
    """Return how many files a supervisor may have open at most."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def raise_descriptors() -> None:
    """Let this process open as many files as it may."""
    global _inherited  # noqa: PLW0603 - a limit of the process
    _inherited = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (_inherited[1], _inherited[1]))


def give_back_descriptors(pid: int) -> None:
    """Give a child the limit that this process was started with: code that uses select() relies on a low one."""
    if _inherited is not None:
        with contextlib.suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, _inherited)


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
