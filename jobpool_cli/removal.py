"""Deleting pools: in one step for everybody who looks, whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from jobpool_cli.engines.processes import kill_marked
from jobpool_cli.errors import ConflictError, JobPoolError
from jobpool_cli.layout import TEMPORARY_PREFIX, PoolPaths
from jobpool_cli.model import PoolState
from jobpool_cli.store import durable, ownership
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.state.look import look
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.supervisor.lock import PoolLock, holders, is_held

# Where the folder of all pools cannot be locked: a pool younger than this may be being made this very moment.
FRESH_SECONDS = 60.0
LOCK_TRIES = 50
# A killed supervisor's lock is free as soon as the kernel has buried it.
KILL_SECONDS = 10.0


def remove(root: Path, *, force: bool = False) -> None:
    """Take a pool out of sight in one step, then delete it; a kill in between leaves what the next `map` sweeps up.

    Its lock is held meanwhile, so that nobody begins to work on it.

    Args:
        root: the pool's folder; what is in it may be damaged.
        force: kill whoever works on the pool.

    Raises:
        ConflictError: it is being worked on.
        MachineError: it is another user's.
    """
    if root.is_symlink():
        raise ownership.not_a_folder(root)
    ownership.check_owner(root)
    lock = _lock_to_remove(root, force=force)
    try:
        for identity in _identities(root):
            kill_marked(identity, root / "logs")
        doomed = root.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{root.name}")
        os.rename(root, doomed)
        # Otherwise a power cut might bring a pool back of which half is deleted.
        durable.sync_folder(root.parent)
        shutil.rmtree(doomed, ignore_errors=True)
    finally:
        lock.release()


def _lock_to_remove(root: Path, *, force: bool) -> PoolLock:
    deadline = time.monotonic() + KILL_SECONDS
    while True:
        try:
            return PoolLock(root / "lock")
        except ConflictError as error:
            if not force and time.monotonic() < deadline and not is_worked_on(root):
                continue
            if not force:
                raise ConflictError(
                    f"{root.name} is being worked on",
                    f"wait for it, or stop and delete it: jobpool rm --force {root.name}, or pool.remove(force=True)",
                ) from error
            if time.monotonic() >= deadline:
                raise
        for _, pidfd in holders(root / "lock"):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        time.sleep(0.01)


def is_worked_on(root: Path) -> bool:
    """Whether somebody works on a pool; a supervisor that has done all of it is about to end, and waited for."""
    deadline = time.monotonic() + KILL_SECONDS
    while is_held(PoolPaths(root).lock):
        if time.monotonic() >= deadline or not _is_done(root):
            return is_held(PoolPaths(root).lock)
        time.sleep(0.01)
    return False


def _is_done(root: Path) -> bool:
    paths = PoolPaths(root)
    with contextlib.suppress(JobPoolError, OSError), StateReader(paths.state_db) as reader:
        return look(paths, Manifest.read(paths.pool_json), reader, live=True).state is PoolState.DONE
    return False


def _identities(root: Path) -> set[str]:
    """Return the pool's id, from wherever it still can be read."""
    found: set[str] = set()
    with contextlib.suppress(JobPoolError):
        found.add(Manifest.read(root / "pool.json").id)
    with contextlib.suppress(OSError, ValueError):
        # Nothing but a whole id: part of one would be the mark of others, too.
        found.add(str(uuid.UUID((root / "lock").read_text(encoding="ascii"))))
    return found


def finish_removal(pools: Path, name: str) -> bool:
    """Delete what a killed `rm` of that pool left; True if there was anything."""
    found = False
    for doomed in pools.glob(f"{TEMPORARY_PREFIX}*-{name}"):
        found = True
        shutil.rmtree(doomed, ignore_errors=True)
    return found


def remove_abandoned(pools: Path) -> None:
    """Delete what killed `map` and `rm` commands left half made or half removed."""
    for folder in _abandoned(pools):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def unswept(pools: Path) -> Iterator[None]:
    """Keep a new folder, which has no lock yet, from being taken for one that was left behind."""
    with _folder_lock(pools, fcntl.LOCK_SH):
        yield


def _abandoned(pools: Path) -> list[Path]:
    """Return the folders under temporary names that nobody works on."""
    found = []
    # While this lock is held, nobody is between making a folder and locking it.
    with _folder_lock(pools, fcntl.LOCK_EX) as is_alone:
        for entry in os.scandir(pools):
            if entry.name.startswith(TEMPORARY_PREFIX) and entry.is_dir(follow_symlinks=False):
                path = Path(entry.path)
                with contextlib.suppress(OSError):
                    fresh = not is_alone and time.time() - entry.stat().st_mtime < FRESH_SECONDS
                    if not fresh and not is_held(PoolPaths(path).lock):
                        found.append(path)
    return found


@contextlib.contextmanager
def _folder_lock(folder: Path, kind: int) -> Iterator[bool]:
    """Hold a lock on a folder; yields False where it cannot be had: it is never worth a wait without end."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield any(_try_lock(fd, kind) for _ in range(LOCK_TRIES))
    finally:
        os.close(fd)


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError:
        # Another command has it, for less than a millisecond; or the file system knows no such locks.
        time.sleep(0.001)
        return False
    return True
