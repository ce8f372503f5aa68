"""`map`: check everything that can be checked, build the pool under a temporary name, rename it into place, start it.

Nothing is left behind by an error or a kill: before the rename there is no pool, after it there is a whole one.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from jobpool_cli.errors import ConflictError, MachineError
from jobpool_cli.layout import TEMPORARY_PREFIX, PoolPaths, check_name, pools_folder
from jobpool_cli.model import PoolOptions
from jobpool_cli.store import durable, requests
from jobpool_cli.store.arguments.binding import BoundArguments, bind, check_stored, write_arguments
from jobpool_cli.store.arguments.inputs import read_arguments
from jobpool_cli.store.arguments.signature import Signature
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.slots import create_slots
from jobpool_cli.store.snapshot import take_snapshot
from jobpool_cli.store.state.writer import create_database
from jobpool_cli.supervisor.launch import launch
from jobpool_cli.supervisor.lock import PoolLock, is_held
from jobpool_cli.worker.function import LocatedUdf, locate_udf

# A folder without a lock is being made this very moment, unless it is older than this.
FRESH_SECONDS = 60.0
ABANDON_SECONDS = 10.0


@dataclass(frozen=True)
class Submission:
    """Everything that `map` needs, checked: the UDF loads, the arguments bind and convert."""

    udf: LocatedUdf
    arguments: BoundArguments
    source: str
    options: PoolOptions

    @property
    def entry(self) -> str:
        """The entry point for people: ``file.py:function``."""
        return f"{self.udf.path}:{self.udf.name}"


def check(
    udf: str,
    source: str,
    *,
    constants: Mapping[str, str],
    options: PoolOptions,
    input_format: str | None = None,
    stdin: BinaryIO | None = None,
) -> Submission:
    """Check a UDF and its arguments without changing anything.

    Raises:
        InputError: says what does not fit, where, and what to do.
    """
    located = locate_udf(udf)
    raw = read_arguments(source, format=input_format, stdin=stdin)
    bound = bind(Signature.of(located.function), raw, constants)
    return Submission(located, bound, raw.source, options)


def submit(submission: Submission, home: Path, name: str | None = None) -> PoolPaths:
    """Make a pool of a checked submission and start its supervisor.

    Args:
        submission: from ``check``.
        home: jobpool's data folder.
        name: the pool's name; by default the function's name with a number.

    Raises:
        ConflictError: there is a pool of that name.
        InputError: the UDF does not load in a worker; no pool is left.
        MachineError: the disk or the machine refuses.
    """
    if name is not None:
        check_name(name)
    pools = pools_folder(home)
    try:
        os.makedirs(pools, mode=0o700, exist_ok=True)
        _remove_abandoned(pools)
        paths = _build(submission, pools, name)
    except OSError as error:
        raise MachineError(
            f"the pool cannot be written: {error.strerror or error} ({error.filename or pools})",
            "free some space, or choose another place with --home",
        ) from error
    if submission.arguments.n_rows:
        try:
            launch(paths)
        except BaseException:
            # Also when a person loses patience with an import that does not end: nothing is left running.
            _abandon(paths)
            raise
    return paths


def _abandon(paths: PoolPaths) -> None:
    """Stop the supervisor of a pool that nobody has been told of, and delete the pool."""
    if is_held(paths.lock):
        requests.post(paths.requests, "shutdown", {"kill": True})
        deadline = time.monotonic() + ABANDON_SECONDS
        while is_held(paths.lock) and time.monotonic() < deadline:
            time.sleep(0.01)
    remove(paths.root)


def _build(submission: Submission, pools: Path, name: str | None) -> PoolPaths:
    temporary = pools / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}"
    durable.make_folder(temporary)
    paths = PoolPaths(temporary)
    lock = PoolLock(paths.lock)
    try:
        for folder in (paths.udf, paths.results, paths.logs, paths.requests):
            durable.make_folder(folder)
        take_snapshot(submission.udf.path, submission.udf.name, paths.udf_version(1), 1)
        write_arguments(submission.arguments, paths.args)
        create_database(paths.state_db)
        create_slots(paths.slots)
        return _name_and_place(submission, paths, pools, name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        lock.release()


def _name_and_place(submission: Submission, paths: PoolPaths, pools: Path, name: str | None) -> PoolPaths:
    """Write pool.json, which holds the name, and rename the folder to it; a made-up name that is taken is made anew."""
    identity = str(uuid.uuid4())
    while True:
        chosen = name or _made_up_name(submission.udf.name, pools)
        paths.pool_json.unlink(missing_ok=True)
        Manifest(
            id=identity,
            name=chosen,
            created=datetime.now(UTC),
            n_jobs=submission.arguments.n_rows,
            udf=submission.entry,
            folder=os.getcwd(),
            source=submission.source,
            options=submission.options,
        ).write(paths.pool_json)
        for folder in (paths.udf, paths.root):
            durable.sync_folder(folder)
        target = pools / chosen
        try:
            # A rename onto an empty folder would succeed, and that folder is not ours.
            if target.exists():
                raise FileExistsError
            os.rename(paths.root, target)
        except OSError as error:
            if not target.exists():
                raise
            if name is None:
                continue
            raise ConflictError(
                f"there is a pool named {chosen} already", f"choose another --name, or: jobpool rm {chosen}"
            ) from error
        durable.sync_folder(pools)
        return PoolPaths(target)


def _made_up_name(function: str, pools: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9]+", "-", function).strip("-")[:60].lower() or "pool"
    pattern = re.compile(re.escape(stem) + r"-(\d+)")
    numbers = [int(found[1]) for each in os.listdir(pools) if (found := pattern.fullmatch(each))]
    return f"{stem}-{max(numbers, default=0) + 1}"


def _remove_abandoned(pools: Path) -> None:
    """Delete what killed `map` and `rm` commands left half made or half removed."""
    for entry in os.scandir(pools):
        if entry.name.startswith(TEMPORARY_PREFIX) and entry.is_dir(follow_symlinks=False):
            paths = PoolPaths(Path(entry.path))
            with contextlib.suppress(OSError):
                fresh = not paths.lock.exists() and time.time() - entry.stat().st_mtime < FRESH_SECONDS
                if not fresh and not is_held(paths.lock):
                    shutil.rmtree(entry.path, ignore_errors=True)


def mend(udf: str, paths: PoolPaths, tasks: Sequence[int]) -> int:
    """Snapshot mended code beside the pool's earlier code and return its version.

    Args:
        udf: ``file.py`` or ``file.py:name``.
        paths: the pool.
        tasks: the tasks that shall run it: their stored arguments must fit its parameters.

    Raises:
        InputError: the code does not load, or does not take the pool's arguments; nothing was changed.
    """
    located = locate_udf(udf)
    check_stored(paths.args, Signature.of(located.function), tasks)
    version = 1 + max(int(folder.name[1:]) for folder in paths.udf.glob("v*"))
    take_snapshot(located.path, located.name, paths.udf_version(version), version)
    durable.sync_folder(paths.udf)
    return version


def remove(root: Path) -> None:
    """Take a pool out of sight in one step, then delete it; a kill in between leaves what the next `map` sweeps up."""
    doomed = root.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{root.name}")
    os.rename(root, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def finish_removal(pools: Path, name: str) -> bool:
    """Delete what a killed `rm` of that pool left; True if there was anything."""
    found = False
    for doomed in pools.glob(f"{TEMPORARY_PREFIX}*-{name}"):
        found = True
        shutil.rmtree(doomed, ignore_errors=True)
    return found
