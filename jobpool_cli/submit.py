"""`map`: check everything that can be checked, build the pool under a temporary name, rename it into place, start it.

Nothing is left behind by an error or a kill: before the rename there is no pool, after it there is a whole one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from jobpool_cli.engines.processes import descriptor_limit, needed_descriptors
from jobpool_cli.errors import ConflictError, MachineError, refused
from jobpool_cli.layout import TEMPORARY_PREFIX, PoolPaths, check_name, pools_folder
from jobpool_cli.model import PoolOptions
from jobpool_cli.removal import remove, remove_abandoned, unswept
from jobpool_cli.store import durable, ownership, requests
from jobpool_cli.store.arguments.binding import BoundArguments, bind, write_arguments
from jobpool_cli.store.arguments.inputs import read_arguments
from jobpool_cli.store.arguments.raw import RawArguments
from jobpool_cli.store.arguments.recheck import check_stored
from jobpool_cli.store.arguments.signature import Signature
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.ranges import gaps
from jobpool_cli.store.slots import create_slots
from jobpool_cli.store.snapshot import Snapshot
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.state.writer import create_database
from jobpool_cli.supervisor.launch import Standby, launch
from jobpool_cli.supervisor.lock import PoolLock, is_held
from jobpool_cli.worker.function import locate_udf

ABANDON_SECONDS = 10.0


class Udf(Protocol):
    """A function that was found, or given, and can be stored."""

    @property
    def name(self) -> str:
        """The function's name."""

    @property
    def entry(self) -> str:
        """Where it comes from, for people."""

    @property
    def function(self) -> Callable[..., Any]:
        """What a worker will call."""

    def take(self, folder: Path, version: int) -> Snapshot:
        """Write a snapshot of its code into a folder, as that version of its pool's code.

        Raises:
            InputError: a file of the code cannot be read.
            MachineError: the snapshot cannot be written.
        """


@dataclass(frozen=True)
class Submission:
    """Everything that `map` needs, checked: the UDF loads, the arguments bind and convert."""

    udf: Udf
    arguments: BoundArguments
    source: str
    options: PoolOptions

    @property
    def entry(self) -> str:
        """Where the function comes from, for people: ``file.py:function``, ``notebook:function``."""
        return self.udf.entry


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
        MachineError: the machine does not allow so many workers.
    """
    _check_machine(options)
    located = locate_udf(udf)
    raw = read_arguments(source, format=input_format, stdin=stdin)
    bound = bind(Signature.of(located.function), raw, constants)
    return Submission(located, bound, raw.source, options)


def check_call(
    function: Callable[..., Any],
    arguments: RawArguments,
    *,
    constants: Mapping[str, object],
    options: PoolOptions,
) -> Submission:
    """Check a function object and its arguments without changing anything.

    Args:
        function: perhaps wrapped by ``@udf``; its code is taken along now.
        arguments: one task a row.
        constants: Python values that are the same for every task.
        options: how the pool shall run.

    Raises:
        InputError: the function cannot be run or sent to another process, or does not take these arguments.
        MachineError: the machine does not allow so many workers.
    """
    _check_machine(options)
    code = _python_udf(function)
    bound = bind(Signature.of(code.function), arguments, constants, textual_constants=False)
    return Submission(code, bound, arguments.source, options)


def _python_udf(function: Callable[..., Any]) -> Udf:
    from jobpool_cli.worker.travelling import python_udf  # noqa: PLC0415 - cloudpickle, which files do without

    return python_udf(function)


def _check_machine(options: PoolOptions) -> None:
    if needed_descriptors(options.processes) > descriptor_limit():
        raise MachineError(
            f"{options.processes} worker processes need {needed_descriptors(options.processes)} open files,"
            f" and the limit is {descriptor_limit()}",
            "raise it (ulimit -Hn, or LimitNOFILE of the service), or take fewer workers",
        )
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise MachineError("the current folder has been deleted", "go to one that exists: tasks run in it") from error


def submit(submission: Submission, home: Path, name: str | None = None, *, standby: Standby | None = None) -> PoolPaths:
    """Make a pool of a checked submission and start its supervisor.

    Args:
        submission: from ``check``.
        home: jobpool's data folder.
        name: the pool's name; by default the function's name with a number.
        standby: a supervisor that was started ahead.

    Raises:
        ConflictError: there is a pool of that name.
        InputError: the UDF does not load in a worker; no pool is left.
        MachineError: the disk or the machine refuses.
    """
    if name is not None:
        check_name(name)
    pools = pools_folder(home)
    identity = standby.pool_id if standby is not None else str(uuid.uuid4())
    held: list[PoolLock] = []
    try:
        ownership.check_links(pools)
        durable.make_way(pools)
        ownership.check_place(pools)
        remove_abandoned(pools)
        paths = _build(submission, pools, name, identity, held)
    except OSError as error:
        what = f"the pool cannot be written ({error.filename or pools})"
        raise refused(error, what, "choose another place: --home, home=, JOBPOOL_HOME") from error
    except KeyboardInterrupt:
        # It may have come when the pool was in its place already, or while its lock was given back.
        _release(held)
        for lock in pools.glob("*/lock"):
            with contextlib.suppress(OSError):
                if lock.read_text() == identity:
                    _abandon(PoolPaths(lock.parent))
        raise
    if submission.arguments.n_rows:
        try:
            launch(paths, standby)
        except ConflictError:
            # Somebody saw the new pool and was quicker to resume it: it runs.
            pass
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
    remove(paths.root, force=True)


def _build(submission: Submission, pools: Path, name: str | None, identity: str, held: list[PoolLock]) -> PoolPaths:
    """Make the pool under a temporary name, and give it its own; its lock is in ``held`` meanwhile."""
    temporary = pools / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}"
    paths = PoolPaths(temporary)
    try:
        with unswept(pools):
            durable.make_folder(temporary)
            held.append(PoolLock(paths.lock))
        held[0].inscribe(identity)
        for folder in (paths.udf, paths.results, paths.logs, paths.requests):
            durable.make_folder(folder)
        submission.udf.take(paths.udf_version(1), 1)
        write_arguments(submission.arguments, paths.args)
        create_database(paths.state_db)
        create_slots(paths.slots)
        return _name_and_place(submission, paths, pools, name, identity)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        _release(held)


def _release(held: Sequence[PoolLock]) -> None:
    for lock in held:
        lock.release()


def _name_and_place(
    submission: Submission, paths: PoolPaths, pools: Path, name: str | None, identity: str
) -> PoolPaths:
    """Write pool.json, which holds the name, and rename the folder to it; a made-up name that is taken is made anew."""
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
            if os.path.lexists(target):
                raise FileExistsError
            os.rename(paths.root, target)
        except OSError:
            if not os.path.lexists(target):
                raise
            if name is None:
                continue
            if target.is_symlink():
                raise ownership.not_a_folder(target) from None
            raise ConflictError(
                f"there is a pool named {chosen} already",
                f"choose another name, or delete that pool: jobpool rm {chosen}, or JobPool.open({chosen!r}).remove()",
            ) from None
        durable.sync_folder(pools)
        return PoolPaths(target)


def _made_up_name(function: str, pools: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9]+", "-", function).strip("-")[:60].lower() or "pool"
    pattern = re.compile(re.escape(stem) + r"-(\d+)")
    numbers = [int(found[1]) for each in os.listdir(pools) if (found := pattern.fullmatch(each))]
    return f"{stem}-{max(numbers, default=0) + 1}"


def mend(
    udf: str | Callable[..., Any], paths: PoolPaths, n_jobs: int, tasks: Sequence[int] | None, *, cancelled: bool
) -> int:
    """Snapshot mended code beside the pool's earlier code and return its version.

    Args:
        udf: ``file.py`` or ``file.py:name``, or a function object.
        paths: the pool.
        n_jobs: how many tasks it has.
        tasks: the finished tasks that shall run it; all failed ones by default.
        cancelled: without ``tasks``: all cancelled ones, too.

    Raises:
        InputError: the code does not load, or does not take the pool's arguments; nothing was changed.
    """
    code = locate_udf(udf) if isinstance(udf, str) else _python_udf(udf)
    check_stored(paths.args, Signature.of(code.function), _will_run(paths, n_jobs, tasks, cancelled=cancelled))
    temporary = durable.temporary_beside(paths.udf / "udf")
    try:
        while True:
            found = [re.fullmatch(r"v(\d+)", each) for each in os.listdir(paths.udf)]
            version = 1 + max(int(each[1]) for each in found if each)
            shutil.rmtree(temporary, ignore_errors=True)
            code.take(temporary, version)
            # Of two that mend at once, the second finds a folder that is not empty and takes the next number.
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                try:
                    durable.publish(temporary, paths.udf_version(version))
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:
                        raise
                else:
                    return version
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _will_run(paths: PoolPaths, n_jobs: int, tasks: Sequence[int] | None, *, cancelled: bool) -> list[int]:
    """Return the tasks that a retry takes up, and those that are pending anyway: all of them run the mended code."""
    with StateReader(paths.state_db) as reader, reader.snapshot():
        settled = reader.success_ranges()
        if tasks is not None or not cancelled:
            settled += reader.cancelled_ranges()
        if tasks is not None:
            settled += [(task, task + 1) for task in reader.failed_tasks()]
    pending = [task for low, high in gaps(settled, n_jobs) for task in range(low, high)]
    return pending if tasks is None else sorted({*pending, *tasks})
