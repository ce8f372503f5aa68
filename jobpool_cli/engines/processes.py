"""Processes beyond the workers themselves: what they started, how it is found and ended, what it holds in memory.

What a worker started is found by the mark in its environment. What scrubbed its environment is found by the log that it
writes to; by descent, when a task is stopped; and at the latest at the pool's end, because the supervisor adopts the
orphans of its workers. Only what scrubbed its environment and closed its output outlives a supervisor killed by -9.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

# In the environment of every worker and so of all that it starts: "<pool id>:<worker number>".
MARK = "JOBPOOL_MARK"
# The mark of a supervisor: one that a task of another pool starts is no part of that task.
DETACHED = "detached"

PR_SET_CHILD_SUBREAPER = 36
STDOUT, STDERR = 1, 2
# Whoever forks while one looks is found by the next look.
LOOKS = 20
BETWEEN_LOOKS_SECONDS = 0.002

# The log of a worker or a supervisor of some pool, in the pool's folder.
_LOG = re.compile(r"(.*)/(logs/worker-[0-9]+\.log|supervisor\.log)$")

_inherited: tuple[int, int] | None = None
_adopts = False


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


def kill_marked(mark: str, logs: Path | None = None) -> None:
    """Kill every process whose mark begins so: a pool's id, or one worker's whole mark.

    Args:
        mark: the beginning.
        logs: the folder of the pool's logs, or one worker's log. A process without any mark is killed, too, if its
            output goes there: it scrubbed its environment. Those of other users are not ours to touch; and what
            writes to another pool's log, or descends from what does, is that one's: a copy bears the same id.
    """
    place = str(logs.resolve()) if logs is not None else None
    for _ in range(LOOKS):
        found = False
        for pid, pidfd in other_processes():
            with contextlib.suppress(OSError):
                own = _mark_of(pid)
                if _is_of(pid, own, mark, logs) if own else place is not None and _writes_to(pid, place):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(BETWEEN_LOOKS_SECONDS)


def marked_processes(mark: str, logs: Path) -> list[int]:
    """Return the processes whose mark begins so, as ``kill_marked`` would find them."""
    found = []
    for pid, _ in other_processes():
        with contextlib.suppress(OSError):
            if _is_of(pid, _mark_of(pid), mark, logs):
                found.append(pid)
    return found


def _mark_of(pid: int) -> str:
    """Return a process's mark, empty if it has none."""
    name = f"{MARK}=".encode()
    with open(f"/proc/{pid}/environ", "rb") as file:
        found = next((each for each in file.read().split(b"\0") if each.startswith(name)), name)
    return os.fsdecode(found[len(name) :])


def _is_of(pid: int, own: str, mark: str, logs: Path | None) -> bool:
    if own != mark and not own.startswith(f"{mark}:"):
        return False
    if logs is None:
        return True
    root = logs.parent if logs.is_dir() else logs.parent.parent
    place = _pool_of(pid)
    # A mount may show one folder in two places.
    return place is None or not place.exists() or os.path.samefile(place, root)


def _pool_of(pid: int) -> Path | None:
    """Return the folder of the pool to whose logs a process writes, or what it descends from; None if none does."""
    while pid > 1:
        for output in _outputs(pid):
            if found := _LOG.fullmatch(output):
                return Path(found[1])
        try:
            pid = _parent(pid)
        except OSError:  # it has ended
            break
    return None


def _writes_to(pid: int, place: str) -> bool:
    """Return whether a process's standard output goes to this file, or to one in this folder."""
    return any(output == place or output.startswith(f"{place}/") for output in _outputs(pid))


def _outputs(pid: int) -> Iterator[str]:
    """Yield where a process's standard output goes."""
    for fd in (STDOUT, STDERR):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/fd/{fd}")


def adopt_orphans() -> None:
    """Have what this process's descendants leave behind become its children, instead of those of process 1."""
    global _adopts  # noqa: PLW0603 - a property of the process
    _adopts = True
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap_adopted(own: Collection[int]) -> None:
    """Bury dead children other than these, if this process adopts; nobody else will."""
    if _adopts:
        with contextlib.suppress(OSError):
            for pid in _children(os.getpid()):
                if pid not in own:
                    with contextlib.suppress(OSError):
                        os.waitpid(pid, os.WNOHANG)


def kill_adopted() -> None:
    """If this process adopts, kill its children and what they started, except supervisors, and bury them."""
    for _ in range(LOOKS if _adopts else 0):
        found = descendants(os.getpid())
        if not found:
            return
        kill_these(found)
        reap_adopted(())
        time.sleep(BETWEEN_LOOKS_SECONDS)


def descendants(pid: int) -> set[tuple[int, int]]:
    """Return what a process started, and what that started: number and birth; no supervisor, and nothing below one."""
    found: set[tuple[int, int]] = set()
    waiting = [pid]
    while waiting:
        with contextlib.suppress(OSError):
            for child in _children(waiting.pop()):
                with contextlib.suppress(OSError):
                    if _mark_of(child) != DETACHED and (born := _birth(child)) is not None:
                        found.add((child, born))
                        waiting.append(child)
    return found


def kill_these(processes: Collection[tuple[int, int]]) -> None:
    """Kill processes given by number and birth; a number that is another process's by now is left alone."""
    for pid, born in processes:
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                if _birth(pid) == born:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def _birth(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the machine did; None if it is dead."""
    words = _stat(pid)
    return None if words[0] in b"ZX" else int(words[19])


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[bytes]:
    """Return what ``/proc/PID/stat`` says after the name: the state, the parent, and so on (see proc(5))."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


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
