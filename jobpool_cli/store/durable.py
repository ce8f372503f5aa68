"""Files that survive a power cut: private from their first moment, synced, renamed into place, folder synced.

What a disk refused is written anew, to a new file, or given up. A sync that failed is never asked for again: the kernel
may have dropped what it could not write, and the next sync would say that all is well (https://lwn.net/Articles/752063).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from jobpool_cli.errors import REFUSALS
from jobpool_cli.layout import FILE_MODE, FOLDER_MODE, TEMPORARY_PREFIX

# Less than this is as good as nothing: what runs may still want to write to its log, and commands to leave requests.
ENOUGH_BYTES = 1 << 20
# What shows whether the disk takes something, whatever it says of its free space: a quota is seen in no other way.
SAMPLE_BYTES = 256 << 10


def make_folder(path: Path) -> None:
    """Create a private folder.

    Raises:
        FileExistsError: something of that name is there already, a symlink included.
    """
    path.mkdir(mode=FOLDER_MODE)
    if path.stat().st_mode & FOLDER_MODE != FOLDER_MODE:
        # A umask that takes rights from the owner, too; and never any way to more than these.
        path.chmod(FOLDER_MODE)


def make_way(path: Path) -> None:
    """Create a private folder and those above it that are missing, durably, unless it is there."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):  # a dangling link stays one, and the next step fails
            make_folder(each)
        # Where a parent may be entered and not read, it cannot be synced either.
        with contextlib.suppress(PermissionError):
            sync_folder(each.parent)


def open_new(path: Path, *, append: bool = False) -> int:
    """Create a private file that was not there before and return its descriptor, open for writing.

    Raises:
        FileExistsError: something of that name is there already, a symlink included.
    """
    flags = os.O_EXCL | os.O_WRONLY | (os.O_APPEND if append else 0)
    return open_private(path, flags)


def open_private(path: Path, flags: int) -> int:
    """Open a file and return its descriptor; where this creates it, it is private, whatever the umask."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CREAT, FILE_MODE)
    if os.fstat(fd).st_mode & FILE_MODE != FILE_MODE:
        os.fchmod(fd, FILE_MODE)
    return fd


def open_old(path: Path, flags: int = 0) -> int:
    """Open a file that is there for reading and return its descriptor.

    Raises:
        OSError: there is none, or something that is no file has its name: a folder, or a pipe that nobody writes to.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is no file", str(path))


def read_old(path: Path) -> bytes:
    """Return what a file holds.

    Raises:
        OSError: as ``open_old`` does.
    """
    with open(open_old(path), "rb") as file:
        return file.read()


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


def sync_commits(state_db: Path) -> None:
    """Flush what a killed supervisor may have written to its write-ahead log and not synced.

    Whoever reads the database next takes it for committed; only afterwards may it be shown, or built upon.
    """
    with contextlib.suppress(OSError):
        log = state_db.with_name(f"{state_db.name}-wal")
        if log.stat().st_size:
            sync_file(log)


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
                if entry.is_dir(follow_symlinks=False):
                    import shutil  # noqa: PLC0415 - seldom, and `status` loads this

                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)


def is_nearly_full(folder: Path) -> bool:
    """Return whether a folder's disk says that it has hardly any room left."""
    disk = os.statvfs(folder)
    # Some file systems tell nothing.
    return bool(disk.f_blocks) and disk.f_bavail * disk.f_frsize < ENOUGH_BYTES


def check_room(folder: Path) -> None:
    """Make sure that a folder's disk takes more.

    Raises:
        OSError: it does not; its number says why.
    """
    if is_nearly_full(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    sample = temporary_beside(folder / "sample")
    fd = open_new(sample)
    try:
        os.posix_fallocate(fd, 0, SAMPLE_BYTES)
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            sample.unlink()


def why_refused(files: Sequence[Path]) -> int:
    """Return why some files that lie together could not be written, as a number of ``errors.REFUSALS``.

    For errors of libraries that do not tell: it is worked out from what the system says now.
    """
    import resource  # noqa: PLC0415 - only for whoever is refused

    sizes = [path.stat().st_size for path in files if path.exists()]
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and max(sizes, default=0) + SAMPLE_BYTES > limit:
        return errno.EFBIG
    try:
        check_room(files[0].parent)
    except OSError as error:
        if error.errno in REFUSALS:
            return error.errno
    return errno.EIO
