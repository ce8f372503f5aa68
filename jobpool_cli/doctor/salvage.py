"""A state database made anew: successes from the files of results, which prove them, the rest from what is readable.

The damaged file is only read, as a copy, and kept in the folder ``aside``. A task of which nothing is known is pending.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobpool_cli.doctor.findings import Finding, ok, warn
from jobpool_cli.errors import DiskError, MachineError, refused
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.aside import set_aside
from jobpool_cli.store.footers import footer_crc
from jobpool_cli.store.manifest import MOST, Manifest
from jobpool_cli.store.outcomes.table import table_of
from jobpool_cli.store.ranges import Range, contains, merged, without
from jobpool_cli.store.state.problems import PAGE_BYTES, explain, shown_ranges
from jobpool_cli.store.state.writer import StateWriter, create_database

LOG = ("-wal", "-shm")
# In a database's header: how many pages it has.
PAGES_AT = 28
REBUILT = "state.db was damaged, and rebuilt by jobpool doctor"
FAILED = ("error", "timeout", "crash")
FACTS = ["task", "attempt", "udf", "started", "duration_ns"]
# What reading a file may end with because of what is in it, or where it lies; anything else is the machine's.
DAMAGED = frozenset({None, errno.ENOENT, errno.EINVAL, errno.EIO})

Row = dict[str, Any]


@dataclass
class _Whole:
    """What is known for sure, or as sure as the damaged file lets it be."""

    n_jobs: int
    segments: list[tuple[str, tuple[Range, ...], int, int, int]] = field(default_factory=list)
    blobs: list[Row] = field(default_factory=list)
    done: list[Range] = field(default_factory=list)
    by_udf: dict[int, int] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    last_finished: int | None = None

    def add(self, table: pa.Table) -> tuple[Range, ...] | None:
        """Take in the successes of a file or blob; their ranges, None if they are not the pool's or known already."""
        tasks = table["task"].to_pylist()
        ranges = tuple(merged((task, task + 1) for task in tasks))
        if not tasks or sum(high - low for low, high in ranges) != len(tasks):
            return None
        if ranges[0][0] < 0 or ranges[-1][1] > self.n_jobs or without(ranges, merged(self.done)) != list(ranges):
            return None
        # All of it before any is taken in: a value may be missing.
        udfs = Counter(int(udf) for udf in table["udf"].to_pylist())
        again = {
            task: attempt for task, attempt in zip(tasks, table["attempt"].to_pylist(), strict=True) if attempt > 1
        }
        ends = zip(table["started"].cast("int64").to_pylist(), table["duration_ns"].to_pylist(), strict=True)
        last = max(start + took // 1000 for start, took in ends)
        self.done += ranges
        for udf, many in udfs.items():
            self.by_udf[udf] = self.by_udf.get(udf, 0) + many
        self.attempts |= again
        self.last_finished = max(self.last_finished or 0, last)
        return ranges


def rebuild(paths: PoolPaths, manifest: Manifest) -> Iterator[Finding]:
    """Put a new state database into the place of a damaged one; the caller holds the pool's lock."""
    source = _source(paths)
    rows = _readable_rows(source, paths) if source is not None else {}
    known = _Whole(manifest.n_jobs)
    yield from _take_segments(paths, known)
    for blob in rows.get("inbox", []):
        with contextlib.suppress(KeyError, TypeError, ValueError, pa.ArrowException):
            if zlib.crc32(blob["outcomes"]) == blob["crc"] and isinstance(blob["kind"], str):
                ranges = known.add(table_of(blob["outcomes"]))
                if ranges is not None:
                    known.blobs.append({**blob, "ranges": ranges})
    temporary = durable.temporary_beside(paths.state_db)
    try:
        dropped = _write(temporary, paths, known, rows)
        if os.path.lexists(paths.state_db):
            _keep(paths)
        for suffix in LOG:
            Path(f"{paths.state_db}{suffix}").unlink(missing_ok=True)
        durable.publish(temporary, paths.state_db)
    finally:
        for suffix in ("", *LOG):
            Path(f"{temporary}{suffix}").unlink(missing_ok=True)
    what = "a copy in aside tells" if source is not None and paths.aside in source.parents else "the damaged file tells"
    yield from _told(paths, known, rows, what)
    if dropped:
        yield warn("state.db", f"rows that held what jobpool never wrote, and were dropped: {dropped:,}")


def _source(paths: PoolPaths) -> Path | None:
    """Return the damaged database; where a killed repair has moved it, from there."""
    if paths.state_db.is_file():
        return paths.state_db
    kept = [path for path in paths.aside.glob("state.db*/state.db") if path.is_file()]
    return max(kept, key=lambda path: path.stat().st_mtime, default=None)


def _keep(paths: PoolPaths) -> None:
    """Move the damaged database into a folder of its own in ``aside``; itself first: nobody opens half of it."""
    folder = paths.root / f"{paths.state_db.name}-{os.urandom(3).hex()}"
    with contextlib.suppress(FileExistsError):
        durable.make_folder(paths.aside)
    place = paths.aside / folder.name
    durable.make_folder(place)
    for suffix in ("", *LOG):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{paths.state_db}{suffix}", place / f"{paths.state_db.name}{suffix}")
    for each in (place, paths.aside, paths.root):
        durable.sync_folder(each)


# --- the files of results


def _take_segments(paths: PoolPaths, known: _Whole) -> Iterator[Finding]:
    for path in sorted(paths.results.glob("segment-*.parquet")):
        try:
            os.close(durable.open_old(path))
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                # All columns are read, so that every page has been looked at; few are kept.
                groups = [file.read_row_group(number).select(FACTS) for number in range(file.num_row_groups)]
            footer = footer_crc(path)
            ranges = known.add(pa.concat_tables(groups))
            why = "its tasks are in another file, or not of this pool"
        except MemoryError:  # Arrow's own is one of its exceptions, too
            raise
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno not in DAMAGED:
                raise MachineError(f"{path} cannot be read: {error.strerror or error}") from error
            ranges, why = None, (str(error).splitlines() or [type(error).__name__])[0]
        if ranges is None:
            kept = set_aside(paths, path)
            yield warn(
                f"results/{path.name}",
                f"it could not be used ({why}), and "
                + (f"was moved to {kept.relative_to(paths.root)}" if kept is not None else "is gone"),
                "what was in it is pending: jobpool resume",
            )
        else:
            rows = sum(high - low for low, high in ranges)
            known.segments.append((path.name, ranges, rows, path.stat().st_size, footer))


# --- what is left of the database


def _readable_rows(source: Path, paths: PoolPaths) -> dict[str, list[Row]]:
    """Return the rows that can be read, by table."""
    place = paths.root / f".tmp-{os.urandom(6).hex()}-salvage"
    copy = place / "state.db"
    try:
        durable.make_folder(place)
        shutil.copyfile(source, copy)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(f"{source}-wal", f"{copy}-wal")
        rows = _rows_of(copy)
        if "counters" not in rows:
            # The first page says where all tables lie, and is the same in every pool.
            _give_first_page(copy, place)
            rows = _rows_of(copy)
    except OSError as error:
        raise refused(error, f"{source} cannot be copied, and nothing is mended without what it tells") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return rows


def _give_first_page(copy: Path, place: Path) -> None:
    fresh = place / "fresh.db"
    create_database(fresh)
    data = bytearray(copy.read_bytes())
    data += bytes(-len(data) % PAGE_BYTES)
    data[:PAGE_BYTES] = fresh.read_bytes()[:PAGE_BYTES]
    data[PAGES_AT : PAGES_AT + 4] = (len(data) // PAGE_BYTES).to_bytes(4, "big")
    copy.write_bytes(data)
    Path(f"{copy}-wal").unlink(missing_ok=True)


def _rows_of(path: Path) -> dict[str, list[Row]]:
    tables = ("counters", "inbox", "failures", "tracebacks", "attempts", "cancelled", "requests")
    found: dict[str, list[Row]] = {}
    for table in tables:
        with _as_far_as_readable(path):
            by_id: dict[int, Row] = {}
            # From both ends, as far as the damage.
            for order in ("ASC", "DESC"):
                with contextlib.closing(sqlite3.connect(path)) as connection, _as_far_as_readable(path):
                    connection.row_factory = sqlite3.Row
                    connection.text_factory = lambda data: data.decode("utf-8", "replace")
                    connection.execute("PRAGMA trusted_schema = OFF")
                    # Names of ours.
                    for row in connection.execute(f"SELECT rowid AS number, * FROM {table} ORDER BY rowid {order}"):  # noqa: S608
                        by_id.setdefault(row["number"], dict(row))
            if by_id:
                found[table] = [by_id[number] for number in sorted(by_id)]
    return found


@contextlib.contextmanager
def _as_far_as_readable(path: Path) -> Iterator[None]:
    """Pass over damage, and over nothing that the disk refuses."""
    try:
        yield
    except sqlite3.Error as error:
        told = explain(error, path)
        if isinstance(told, DiskError):
            raise told from error


# --- the new one


class _Sieve:
    """Tables like a pool's, apart from it: what they do not take, the new database would not either."""

    def __init__(self) -> None:
        """Make them, empty."""
        self.dropped = 0
        # Without a name it is a file of SQLite's own.
        self._connection = sqlite3.connect("")
        schema = resources.files("jobpool_cli.store.state").joinpath("schema.sql").read_text(encoding="utf-8")
        self._connection.executescript(schema)

    def taken(self, table: str, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that a table takes, and count the others."""
        # Names of ours.
        names = [name for _, name, *_ in self._connection.execute(f"PRAGMA table_info({table})")]
        insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})"  # noqa: S608
        found = []
        for row in rows:
            try:
                self._connection.execute(insert, [row[name] for name in names])
            except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, KeyError):
                self.dropped += 1
            else:
                found.append(row)
        return found

    def close(self) -> None:
        """Delete them."""
        self._connection.close()


def _write(path: Path, paths: PoolPaths, known: _Whole, rows: dict[str, list[Row]]) -> int:
    """Write the new database; return how many rows of the old one could not be taken over."""
    try:
        with contextlib.closing(_Sieve()) as sieve:
            rows = {
                table: found if table in {"counters", "inbox"} else sieve.taken(table, found)
                for table, found in rows.items()
            }
    except sqlite3.Error as error:
        raise explain(error, path) from error
    _fill(path, paths, known, rows)
    return sieve.dropped


def _fill(path: Path, paths: PoolPaths, known: _Whole, rows: dict[str, list[Row]]) -> None:
    create_database(path)
    texts = {row["id"]: row["text"] for row in rows.get("tracebacks", [])}
    failures = [row for row in rows.get("failures", []) if _is_failure(row, known.n_jobs)]
    done = merged(known.done)
    failed = {row["task"] for row in failures if row["current"] and not contains(done, row["task"])}
    settled = merged([*done, *((task, task + 1) for task in failed)])
    cancelled = [
        (row["low"], row["high"])
        for row in rows.get("cancelled", [])
        if type(row["low"]) is type(row["high"]) is int and 0 <= row["low"] < row["high"] <= known.n_jobs
    ]
    attempts = {**known.attempts}
    since: dict[int, int] = {}
    for row in rows.get("attempts", []):
        numbers = (row["task"], row["attempt"])
        if all(type(each) is int and 0 <= each < MOST for each in numbers) and row["task"] < known.n_jobs:
            attempts[row["task"]] = max(row["attempt"], attempts.get(row["task"], 1))
            since[row["task"]] = row["since"]
    for row in failures:
        again = row["attempt"] + (0 if row["task"] in failed or contains(done, row["task"]) else 1)
        attempts[row["task"]] = max(again, attempts.get(row["task"], 1))
    writer = StateWriter(path)
    try:
        with writer.transaction():
            writer.fill(
                segments=known.segments,
                blobs=known.blobs,
                failures=[{**row, "current": row["task"] in failed and row["current"]} for row in failures],
                tracebacks=texts,
                attempts=[
                    (task, attempt, since.get(task, attempt)) for task, attempt in attempts.items() if attempt > 1
                ],
                cancelled=tuple(without(merged(cancelled), settled)),
                requests=[
                    (row["id"], row["at"], row["action"], row["answer"])
                    for row in rows.get("requests", [])
                    if _is_json(row["answer"])
                ],
            )
            writer.recount(known.by_udf)
            writer.set_stop_reason(REBUILT)
            if known.last_finished is not None:
                writer.finished_at(known.last_finished)
            _restore_counters(writer, paths, rows.get("counters", []))
    finally:
        writer.close()
    durable.sync_file(path)


def _restore_counters(writer: StateWriter, paths: PoolPaths, counters: list[Row]) -> None:
    """Set what no other table tells."""
    versions = [int(each.name[1:]) for each in paths.udf.glob("v*") if each.name[1:].isdecimal()]
    udf = max(versions, default=1)
    for row in counters:
        writer.set_paused(paused=row.get("paused") == 1)
        if row.get("udf") in versions:
            udf = row["udf"]
    writer.mark_code(udf)


def _is_failure(row: Row, n_jobs: int) -> bool:
    numbers = (row["task"], row["attempt"], row["udf"])
    return (
        all(type(each) is int and 0 <= each < MOST for each in numbers)
        and row["task"] < n_jobs
        and row["state"] in FAILED
        and isinstance(row["type"], str)
        and isinstance(row["message"], str)
    )


def _is_json(text: object) -> bool:
    try:
        json.loads(str(text))
    except ValueError:
        return False
    return True


def _told(paths: PoolPaths, known: _Whole, rows: dict[str, list[Row]], what: str) -> Iterator[Finding]:
    from jobpool_cli.store.state.reader import StateReader  # noqa: PLC0415

    with StateReader(paths.state_db) as reader:
        counters = reader.counters()
        settled = [*known.done, *reader.cancelled_ranges(), *((task, task + 1) for task in reader.failed_tasks())]
    pending = without([(0, known.n_jobs)], merged(settled)) if known.n_jobs else []
    failed = counters.error + counters.timeout
    yield ok(
        "state.db",
        f"rebuilt: {counters.success:,} successes proved by their results; {failed:,} failures and"
        f" {counters.cancelled:,} cancelled tasks as {what} of them (it is kept in aside)",
    )
    lost = [table for table in ("counters", "failures", "cancelled", "attempts") if table not in rows]
    if "counters" in lost:
        yield warn("state.db", "what it said of failed, cancelled and retried tasks could not be read")
    if pending:
        yield warn(
            "state.db",
            f"pending now, since nothing is known of them: {shown_ranges(pending)}",
            f"they run (again) with: jobpool resume {paths.root.name}",
        )
