"""The pool's lock: who holds it is the supervisor, and while it is held the supervisor lives.

An "open file description" lock of Linux (``F_OFD_SETLK`` in fcntl(2)): the kernel drops it with the process, however
that ends; others can ask for it without taking it; and no other part of the process can lose it by closing a file.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from jobpool_cli.errors import ConflictError
from jobpool_cli.layout import FILE_MODE

# struct flock of Linux on 64-bit machines: type, whence, start, length, pid (0 as OFD locks demand).
_FLOCK = struct.Struct("hhqqi4x")


class PoolLock:
    """The lock, held from construction until ``release``."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            ConflictError: another supervisor holds it.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError:
            os.close(self._fd)
            raise ConflictError(
                f"{path.parent.name} is being worked on already",
                f"see how far it is: jobpool status {path.parent.name}",
            ) from None

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._fd)


def is_held(path: Path) -> bool:
    """Return whether a supervisor lives, without touching the lock."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(fd)
