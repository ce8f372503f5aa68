"""Mending a pool without losing anything: what is replaced is kept in the folder ``aside``."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from jobpool_cli.doctor.findings import Finding, bad, ok
from jobpool_cli.doctor.pool import log_bytes, stray_segments, temporaries, wide_open
from jobpool_cli.engines.processes import kill_marked, marked_processes
from jobpool_cli.errors import DamagedPoolError, JobPoolError, OtherFormatError
from jobpool_cli.layout import FILE_MODE, FOLDER_MODE, PoolPaths
from jobpool_cli.store import durable, ownership
from jobpool_cli.store.aside import set_aside
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.state.checking import problems, recount
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.state.writer import LOG_BYTES, StateWriter
from jobpool_cli.supervisor.lock import PoolLock
from jobpool_cli.supervisor.recovery import MENDING_SECONDS

# How long a reader that holds the write-ahead log is waited for.
FOLDING_SECONDS = 1.0


def repair(paths: PoolPaths) -> Iterator[Finding]:
    """Mend what can be mended, and tell what was done; the pool's lock is held meanwhile.

    Raises:
        ConflictError: a supervisor works on the pool.
        MachineError: it is another user's, or holds a symbolic link.
    """
    ownership.check_owner(paths.root)
    lock = PoolLock(paths.lock)
    try:
        # A link would have what lies elsewhere moved or deleted.
        ownership.check_no_links(paths.root)
        yield from _close_to_others(paths)
        try:
            manifest = Manifest.read(paths.pool_json)
        except DamagedPoolError as error:
            # Without the number of tasks nothing can be told of the state.
            yield bad("pool.json", "it cannot be mended", error.hint)
            return
        yield from _end_processes(manifest, paths)
        yield from _remove_temporaries(paths)
        for folder in (paths.results, paths.logs, paths.requests):
            if not os.path.lexists(folder):
                durable.make_folder(folder)
                yield ok(folder.name, "the folder was missing: made")
        yield from _mend_state(paths, manifest)
    finally:
        lock.release()


def _close_to_others(paths: PoolPaths) -> Iterator[Finding]:
    closed = 0
    for path in wide_open(paths):
        try:
            # By descriptor: whoever may write there could put a link into its place.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                mode = os.fstat(fd).st_mode
                os.fchmod(fd, stat.S_IMODE(mode) & (FOLDER_MODE if stat.S_ISDIR(mode) else FILE_MODE))
                closed += 1
            finally:
                os.close(fd)
        except OSError as error:
            yield bad("permissions", f"{_below(path, paths)} stays open to others: {error.strerror}", "see whose it is")
    if closed:
        yield ok("permissions", f"taken from others: rights to {closed} files and folders")


def _end_processes(manifest: Manifest, paths: PoolPaths) -> Iterator[Finding]:
    running = marked_processes(manifest.id, paths.logs)
    if running:
        kill_marked(manifest.id, paths.logs)
        yield ok("processes", f"ended: {', '.join(map(str, running))}")


def _remove_temporaries(paths: PoolPaths) -> Iterator[Finding]:
    removed = 0
    for path in temporaries(paths):
        with contextlib.suppress(OSError):
            # A young one in udf/ is being made by a `retry --udf` this moment.
            if path.parent == paths.udf and time.time() - path.stat().st_mtime < MENDING_SECONDS:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed += 1
    if removed:
        yield ok("temporaries", f"removed: {removed}")


def _mend_state(paths: PoolPaths, manifest: Manifest) -> Iterator[Finding]:
    from jobpool_cli.doctor.salvage import rebuild  # noqa: PLC0415 - pyarrow

    try:
        with StateReader(paths.state_db) as reader:
            whole = not problems(reader)
            wrong = whole and any(kept != there for kept, there in recount(reader).values())
            known = {segment.file for segment in reader.segments()}
    except OtherFormatError as error:
        # Another program's, or a newer one's: nothing to rebuild.
        yield bad("state.db", error.message, error.hint)
        return
    except DamagedPoolError:
        whole = wrong = False
    if not whole:
        yield from rebuild(paths, manifest)
        return
    for path in stray_segments(paths, known):
        kept = set_aside(paths, path)
        yield ok(f"results/{path.name}", f"the state does not know of it: moved to {_below(kept, paths)}")
    if wrong:
        yield from _recount(paths)
    if log_bytes(paths.state_db) > LOG_BYTES:
        StateWriter(paths.state_db, patience=FOLDING_SECONDS).close()
        if log_bytes(paths.state_db) > LOG_BYTES:
            yield bad("state.db-wal", "a reader still holds the write-ahead log", "end that command, and repair again")
        else:
            yield ok("state.db-wal", "folded into state.db")


def _recount(paths: PoolPaths) -> Iterator[Finding]:
    """Set the counters by the rows."""
    from jobpool_cli.store.outcomes.opening import results_by_udf  # noqa: PLC0415 - pyarrow

    try:
        with StateReader(paths.state_db) as reader:
            by_udf = results_by_udf(paths, reader, (), ())
        writer = StateWriter(paths.state_db)
        try:
            with writer.transaction():
                writer.recount(by_udf)
        finally:
            writer.close()
    except JobPoolError as error:
        yield bad("state.db", f"its counters cannot be mended: {error.message}", error.hint)
    else:
        yield ok("state.db", "its counters were counted anew from its rows")


def _below(path: Path | None, paths: PoolPaths) -> str:
    return str(path.relative_to(paths.root)) if path is not None else "nowhere"
