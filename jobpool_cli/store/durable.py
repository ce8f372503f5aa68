"""Files that survive a power cut: private from their first moment, synced, renamed into place, folder synced."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from jobpool_cli.layout import FILE_MODE, FOLDER_MODE, TEMPORARY_PREFIX


def make_folder(path: Path) -> None:
    """Create a private folder.

    Raises:
        FileExistsError: something of that name is there already, a symlink included.
    """
    path.mkdir(mode=FOLDER_MODE)


def open_new(path: Path, *, append: bool = False) -> int:
    """Create a private file that was not there before and return its descriptor, open for writing.

    Raises:
        FileExistsError: something of that name is there already, a symlink included.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | (os.O_APPEND if append else 0)
    return os.open(path, flags, FILE_MODE)


def write_new(path: Path, data: bytes) -> None:
    """Write a new private file and sync it; a failure leaves nothing behind."""
    fd = open_new(path)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def temporary_beside(path: Path) -> Path:
    """Name a file in the same folder that no reader looks at and that start-up removes."""
    return path.with_name(f"{TEMPORARY_PREFIX}{os.urandom(6).hex()}-{path.name}")


def publish(temporary: Path, path: Path) -> None:
    """Rename a synced temporary file into place, durably."""
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a private file: afterwards it holds all of the data, or what it held before."""
    temporary = temporary_beside(path)
    write_new(temporary, data)
    try:
        publish(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def sync_file(path: Path) -> None:
    """Flush a file's data to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it outlives a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_temporaries(folder: Path) -> None:
    """Delete what an interrupted write left in a folder."""
    for entry in os.scandir(folder):
        if entry.name.startswith(TEMPORARY_PREFIX):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
