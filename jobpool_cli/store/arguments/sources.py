"""All bytes of what the user named: a file, or a pipe such as ``<(zcat args.csv.gz)``; and nothing that never ends."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import threading
import time
from pathlib import Path

from jobpool_cli.errors import InputError

# A pipe's writer opens it as soon as it is started; nobody comes later than this by accident.
WRITER_SECONDS = 5.0
LOOK_SECONDS = 0.02
_NULL = (1, 3)


def read_whole(path: Path, name: str) -> bytes:
    """Return the bytes of a file, or of a pipe once its writer has closed it.

    Raises:
        InputError: nobody writes to the pipe, or it is a device.
        OSError: it cannot be read.
        ValueError: no path can be like this.
    """
    # Opening a pipe to which nobody writes would wait for ever, and so would a modem's line.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        _check(fd, name)
        return file.read()


def _check(fd: int, name: str) -> None:
    """Make sure that what is open can be read to its end."""
    found = os.fstat(fd)
    if stat.S_ISFIFO(found.st_mode) and not _has_writer(fd):
        raise InputError(f"{name} is a pipe, and nobody writes to it", "start what writes to it first")
    if stat.S_ISBLK(found.st_mode) or (stat.S_ISCHR(found.st_mode) and not _ends(fd, found)):
        raise InputError(f"{name} is a device, not a table", "name a CSV, TSV, JSON Lines or Parquet file")
    os.set_blocking(fd, True)


def _has_writer(fd: int) -> bool:
    """Whether there is, or was, anybody at the other end of a pipe; gives them some time."""
    link = f"/proc/self/fd/{fd}"
    if os.readlink(link).startswith("pipe:"):
        return True  # not from a file system: it was made with both its ends
    came = threading.Event()

    def wait() -> None:
        # Returns when a writer opens the pipe, be it silent for hours.
        with contextlib.suppress(OSError):
            os.close(os.open(link, os.O_RDONLY))
            came.set()

    threading.Thread(target=wait, daemon=True).start()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + WRITER_SECONDS
    while time.monotonic() < deadline:
        # One who has come and gone shows here.
        if poll.poll(LOOK_SECONDS * 1000) or came.is_set():
            return True
    with contextlib.suppress(OSError):
        os.close(os.open(link, os.O_RDWR | os.O_NONBLOCK))  # lets the thread go
    return False


def _ends(fd: int, found: os.stat_result) -> bool:
    """Whether reading a device comes to an end: /dev/null at once, a terminal with Ctrl-D."""
    return os.isatty(fd) or (os.major(found.st_rdev), os.minor(found.st_rdev)) == _NULL
