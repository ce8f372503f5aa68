"""What can be wrong with a state database, in words for a person: damage, another version, the disk, a lock."""

from __future__ import annotations

import errno
import functools
import sqlite3
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from jobpool_cli.errors import DamagedPoolError, DiskError, JobPoolError, MachineError, OtherFormatError
from jobpool_cli.layout import APPLICATION_ID, FORMAT_VERSION
from jobpool_cli.store import durable

BUSY_TIMEOUT_SECONDS = 10.0
# SQLite's own choice where none is made.
PAGE_BYTES = 4096
# How many ranges of tasks a message names.
SHOWN_RANGES = 6
# What SQLite says of a file that is not what it wrote.
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_FORMAT)

# Codes of SQLite for what the disk did not take. What could not be synced is an I/O error, whatever is true by now.
SYNCS = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})
WRITES = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_WRITE})

P = ParamSpec("P")
T = TypeVar("T")


def advice(path: Path) -> str:
    """Say what can be done about a damaged state database."""
    return (
        f"nothing was changed; see what can be mended: jobpool doctor {path.parent.name}"
        " (results/*.parquet can be read without it)"
    )


def explain(error: sqlite3.Error, path: Path) -> JobPoolError:
    """Say what an error of SQLite means for a person: damage, the disk, or a lock."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary in DAMAGE or code in (None, sqlite3.SQLITE_IOERR_SHORT_READ):
        return DamagedPoolError(f"{path} is damaged: {error}", advice(path))
    refused = _refusal(code, path)
    if refused:
        return DiskError(refused, f"{path} cannot be written")
    if primary == sqlite3.SQLITE_BUSY:
        return MachineError(f"{path} stayed locked for {BUSY_TIMEOUT_SECONDS:.0f} s", "see what holds it: fuser -v")
    if primary == sqlite3.SQLITE_ERROR:
        return DamagedPoolError(f"{path} does not have the tables of a pool: {error}", advice(path))
    return MachineError(f"{path} cannot be used: {error} ({getattr(error, 'sqlite_errorname', 'unknown')})")


def _refusal(code: int, path: Path) -> int:
    """Return the system's number for why the disk refused something; 0 if it did not, or nobody can tell."""
    if code == sqlite3.SQLITE_FULL:
        return errno.ENOSPC
    if code in SYNCS:
        return errno.EIO
    if code in WRITES:
        return durable.why_refused([path.with_name(path.name + end) for end in ("", "-wal", "-shm")])
    return 0


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that is not a pool's, or is of another version.

    Raises:
        OtherFormatError: names both versions.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise OtherFormatError(
            f"{path} is no pool's database: application id {application:#x} (format version {version}), not"
            f" {APPLICATION_ID:#x} (format version {FORMAT_VERSION})",
            advice(path),
        )
    if version != FORMAT_VERSION:
        raise OtherFormatError(
            f"{path} has format version {version}; this jobpool knows version {FORMAT_VERSION}",
            "use the jobpool that made it, or a newer one" if version > FORMAT_VERSION else advice(path),
        )


def shown_ranges(ranges: Sequence[tuple[int, int]]) -> str:
    """Name tasks for a person, the first few ranges of them."""
    many = sum(high - low for low, high in ranges)
    parts = [f"{low}" if high == low + 1 else f"{low} to {high - 1}" for low, high in ranges[:SHOWN_RANGES]]
    more = ", ..." if len(ranges) > SHOWN_RANGES else ""
    return f"task {parts[0]}" if many == 1 else f"tasks {', '.join(parts)}{more} ({many:,} in all)"


def check_file(path: Path) -> None:
    """Make sure that there is a file before SQLite opens it: of a pipe it would wait for a writer.

    Raises:
        DamagedPoolError: there is none.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise DamagedPoolError(
            f"{path} is missing",
            f"restore it from a copy; what can be mended without it: jobpool doctor {path.parent.name}",
        ) from None
    except OSError as error:
        raise MachineError(f"{path} cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise DamagedPoolError(f"{path} is damaged: it is no file", advice(path))
    if not found.st_size:
        raise DamagedPoolError(f"{path} is damaged: it is empty", advice(path))
    if found.st_size % PAGE_BYTES and not has_log(path):
        # SQLite would not mind, and leave the part of a page at the end to those who need it.
        raise DamagedPoolError(f"{path} is damaged: it was cut", advice(path))


def has_log(path: Path) -> bool:
    """Return whether something was committed that is not in the database file yet."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def decoding(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method say what it means when a value is not one that the writer wrote: SQLite has no checksums."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            path: Path = args[0].path  # type: ignore[attr-defined]
            raise DamagedPoolError(
                f"{path} is damaged: it holds what jobpool never wrote: {error}", advice(path)
            ) from error

    return guarded
