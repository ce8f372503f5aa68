"""One pool, looked at file by file; nothing here changes anything."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from jobpool_cli.doctor.findings import FILE_SYSTEM, Finding, Mark, bad, ok, warn
from jobpool_cli.doctor.places import check_clock, check_place
from jobpool_cli.engines.processes import marked_processes
from jobpool_cli.errors import DamagedPoolError, JobPoolError, MachineError, OtherFormatError
from jobpool_cli.layout import FILE_MODE, FOLDER_MODE, TEMPORARY_PREFIX, PoolPaths
from jobpool_cli.model import PoolState
from jobpool_cli.store import requests
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.snapshot import verify_snapshot
from jobpool_cli.store.state.checking import problems, recount
from jobpool_cli.store.state.look import look
from jobpool_cli.store.state.problems import shown_ranges
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.state.writer import LOG_BYTES
from jobpool_cli.supervisor.lock import is_held


def examine(paths: PoolPaths) -> Iterator[Finding]:
    """Look at everything in a pool's folder."""
    try:
        live = is_held(paths.lock)
    except OSError as error:
        yield bad("lock", f"it cannot be looked at: {error.strerror or error}", "restore it from a copy")
        live = True
    manifest = None
    try:
        manifest = Manifest.read(paths.pool_json)
        yield ok("pool.json", f"{manifest.n_jobs:,} tasks of {manifest.udf}")
        yield from check_clock(manifest.created, "the pool")
    except DamagedPoolError as error:
        yield bad("pool.json", error.message, _advice(error))
    looks = [
        ("permissions", _permissions(paths)),
        (FILE_SYSTEM, check_place(paths.root)),
        ("folders", _folders(paths)),
        ("udf", _code(paths)),
        ("args.parquet", _arguments(paths, manifest)),
        ("state.db", examine_state(paths, manifest, live=live)),
        ("leftovers", _left_over(paths, manifest) if not live else iter(())),
    ]
    for subject, findings in looks:
        try:
            yield from findings
        except OSError as error:
            yield bad(subject, f"{error.filename or paths.root} cannot be looked at: {error.strerror or error}")


def _advice(error: JobPoolError) -> str:
    """What the error advises; it may be to call the doctor."""
    return "" if "jobpool doctor" in error.hint else error.hint


def wide_open(paths: PoolPaths) -> list[Path]:
    """Return the files and folders that give others a right."""
    found = []
    for path in (paths.root, *sorted(paths.root.rglob("*"))):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:  # what is being worked on comes and goes
            continue
        allowed = FOLDER_MODE if stat.S_ISDIR(mode) else FILE_MODE
        if not stat.S_ISLNK(mode) and stat.S_IMODE(mode) & 0o077 & ~allowed:
            found.append(path)
    return found


def _permissions(paths: PoolPaths) -> Iterator[Finding]:
    owner = paths.root.stat().st_uid
    if owner != os.geteuid():
        yield warn("owner", f"the pool belongs to user {owner}, you are {os.geteuid()}: it is not run for you")
    for path in paths.root.rglob("*"):
        if path.is_symlink():
            yield bad(
                str(path.relative_to(paths.root)),
                "it is a symbolic link, and a pool has none",
                f"look at it: ls -l {shlex.quote(str(path))}",
            )
    found = wide_open(paths)
    if found:
        yield warn(
            "permissions",
            f"others have rights to {_name(found[0], paths)}" + (f" and {len(found) - 1} more" if found[1:] else ""),
            f"chmod -R go= {shlex.quote(str(paths.root))}",
            repairs=True,
        )
    else:
        yield ok("permissions", "files and folders are yours alone")


def _folders(paths: PoolPaths) -> Iterator[Finding]:
    for folder in (paths.results, paths.logs, paths.requests):
        if not folder.is_dir():
            yield bad(
                folder.name, "the folder is missing", "restore it from a copy", repairs=not os.path.lexists(folder)
            )


def _code(paths: PoolPaths) -> Iterator[Finding]:
    versions = sorted(path for path in paths.udf.glob("v*") if path.is_dir())
    if not versions:
        yield bad(
            "udf", "the snapshot of the code is missing", "restore it from a copy; results can be read without it"
        )
    for folder in versions:
        try:
            verify_snapshot(folder)
        except (DamagedPoolError, MachineError) as error:
            yield bad(_name(folder, paths), error.message, error.hint)
        else:
            yield ok(_name(folder, paths), "the code is as it was submitted")


def _arguments(paths: PoolPaths, manifest: Manifest | None) -> Iterator[Finding]:
    from jobpool_cli.store.arguments.stored import check_arguments, check_constants  # noqa: PLC0415 - pyarrow

    try:
        rows = check_arguments(paths.args)
        check_constants(paths.args)
    except DamagedPoolError as error:
        yield bad("args.parquet", error.message, _advice(error))
        return
    if manifest is not None and rows != manifest.n_jobs:
        yield bad(
            "args.parquet", f"it has {rows:,} rows, and pool.json tells of {manifest.n_jobs:,} tasks", "restore both"
        )
    else:
        yield ok("args.parquet", f"all {rows:,} rows can be read")


# --- state and results


def examine_state(paths: PoolPaths, manifest: Manifest | None, *, live: bool) -> Iterator[Finding]:
    """Look at the state database, and hold the results against it."""
    try:
        with StateReader(paths.state_db) as reader:
            with reader.snapshot():
                found = list(_database(reader, live=live))
                yield from found
                segments = reader.segments()
                damaged = reader.damaged_blobs()
            # What is not whole would only be told once more.
            if manifest is not None and all(each.mark is not Mark.BAD for each in found):
                yield from _standing(paths, manifest, reader, live=live)
    except JobPoolError as error:
        # Another program's, or a newer one's, is none that could be mended.
        mendable = isinstance(error, DamagedPoolError) and not isinstance(error, OtherFormatError)
        yield bad("state.db", error.message, "" if mendable else error.hint, repairs=mendable)
        return
    if damaged:
        tasks = shown_ranges([each for ranges in damaged.values() for each in ranges])
        yield bad("state.db", f"results that wait in it are damaged: those of {tasks}", _again(paths))
    from jobpool_cli.store.outcomes.opening import check_segment  # noqa: PLC0415 - pyarrow

    whole = 0
    for segment in segments:
        try:
            check_segment(paths, segment)
            whole += segment.rows
        except DamagedPoolError as error:
            yield bad(f"results/{segment.file}", error.message, _again(paths))
    if whole:
        many = f"{len(segments)} files" if len(segments) > 1 else "a file"
        yield ok("results", f"{whole:,} results in {many} can be read")
    if live:
        return
    for path in stray_segments(paths, {segment.file for segment in segments}):
        yield warn(
            _name(path, paths),
            "the state does not know of it; the next start deletes it",
            "to keep it, --repair moves it to the folder aside",
            repairs=True,
        )


def stray_segments(paths: PoolPaths, known: set[str]) -> list[Path]:
    """Return the files of results that the state does not name."""
    return sorted(
        path
        for path in paths.results.glob("*")
        if path.name not in known and not path.name.startswith(TEMPORARY_PREFIX)
    )


def _again(paths: PoolPaths) -> str:
    return f"run these tasks again, and no others: jobpool retry --damaged {paths.root.name}"


def _database(reader: StateReader, *, live: bool) -> Iterator[Finding]:
    found = problems(reader)
    for text in found[:1]:
        yield bad("state.db", f"SQLite finds it damaged: {text}", repairs=True)
    wrong = {name: pair for name, pair in recount(reader).items() if pair[0] != pair[1]} if not found else {}
    for name, (kept, there) in wrong.items():
        yield bad("state.db", f"it counts {kept} tasks as {name}, and has the rows of {there}", repairs=True)
    if not found and not wrong:
        yield ok("state.db", "it is whole, and its counters agree with its rows")
    size = log_bytes(reader.path)
    if not live and size > LOG_BYTES:
        yield warn(
            "state.db-wal",
            f"the write-ahead log was left at {size:,} bytes: a reader held it when the pool ended",
            repairs=True,
        )


def log_bytes(state_db: Path) -> int:
    """Return the size of a database's write-ahead log."""
    try:
        return os.stat(f"{state_db}-wal").st_size
    except OSError:
        return 0


def _standing(paths: PoolPaths, manifest: Manifest, reader: StateReader, *, live: bool) -> Iterator[Finding]:
    status = look(paths, manifest, reader, live=live)
    told = f"{status.finished:,} of {status.n_jobs:,} tasks are finished"
    if status.state is PoolState.INTERRUPTED:
        yield warn(
            "supervisor",
            f"nobody works on it, and {told}: {status.reason or 'the supervisor has ended'}",
            f"go on with: jobpool resume {paths.root.name}",
        )
    elif status.state is PoolState.PAUSED:
        yield warn("supervisor", f"it is paused, and {told}", f"go on with: jobpool resume {paths.root.name}")
    else:
        yield ok("supervisor", f"the pool is {status.state}: {told}")


# --- what a killed process left


def temporaries(paths: PoolPaths) -> list[Path]:
    """Return what was being written when its writer was killed."""
    return [
        path
        for folder in (paths.root, paths.results, paths.requests, paths.udf)
        for path in sorted(folder.glob(f"{TEMPORARY_PREFIX}*"))
    ]


def _left_over(paths: PoolPaths, manifest: Manifest | None) -> Iterator[Finding]:
    found = temporaries(paths)
    if found:
        yield warn(
            _name(found[0], paths),
            "it was never finished" + (f", and {len(found) - 1} more are like it" if found[1:] else ""),
            "the next start removes it",
            repairs=True,
        )
    running = marked_processes(manifest.id, paths.logs) if manifest is not None else []
    if running:
        yield bad(
            "processes",
            f"processes of the pool run on without a supervisor: {', '.join(map(str, running))}",
            "the next start ends them",
            repairs=True,
        )
    waiting = requests.waiting(paths.requests)
    if waiting:
        yield warn(
            "requests",
            f"{len(waiting)} wait for a supervisor to carry them out",
            f"they are carried out by: jobpool resume {paths.root.name}",
        )
    if paths.aside.is_dir():
        kept = sum(1 for path in paths.aside.rglob("*") if path.is_file())
        yield ok("aside", f"{kept} damaged files are kept there; delete the folder when you do not need them")


def _name(path: Path, paths: PoolPaths) -> str:
    return str(path.relative_to(paths.root)) if path != paths.root else path.name
