"""The pool's lock: who holds it is the supervisor, and while it is held the supervisor lives.

An "open file description" lock of Linux (``F_OFD_SETLK`` in fcntl(2)): the kernel drops it with the process, however
that ends; others can ask for it without taking it; and no other part of the process can lose it by closing a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from jobpool_cli.errors import ConflictError
from jobpool_cli.store.durable import open_old, open_private

# struct flock of Linux on 64-bit machines: type, whence, start, length, pid (0 as OFD locks demand).
_FLOCK = struct.Struct("hhqqi4x")


class PoolLock:
    """The lock, held from construction until ``release``."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            ConflictError: another supervisor holds it.
        """
        self._fd = open_private(path, os.O_RDWR)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError:
            os.close(self._fd)
            raise ConflictError(
                f"{path.parent.name} is being worked on already",
                f"see how far it is: jobpool status {path.parent.name}",
            ) from None

    def inscribe(self, pool_id: str) -> None:
        """Write the pool's id into the file: what a pool left running is found by it, even if pool.json is damaged."""
        os.pwrite(self._fd, pool_id.encode(), 0)

    def release(self) -> None:
        """Give the lock back, unless that was done."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def holders(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the number of each process that has the lock's file open for writing, and a descriptor of it (pidfd).

    Only a supervisor, `map` and `rm` do so; the kernel does not tell who holds a lock of this kind. Processes of other
    users do not show.
    """
    from jobpool_cli.engines.processes import other_processes  # noqa: PLC0415 - `status` only asks `is_held`

    try:
        wanted = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return
    for pid, pidfd in other_processes():
        if _has_open_for_writing(pid, wanted):
            yield pid, pidfd


def _has_open_for_writing(pid: int, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{fd}")
                if (found.st_dev, found.st_ino) != (wanted.st_dev, wanted.st_ino):
                    continue
                with open(f"/proc/{pid}/fdinfo/{fd}") as file:
                    flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
                if flags & os.O_ACCMODE != os.O_RDONLY:
                    return True
    return False


def is_held(path: Path) -> bool:
    """Return whether a supervisor lives, without touching the lock."""
    try:
        fd = open_old(path, os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(fd)
