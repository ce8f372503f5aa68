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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobpool_cli.doctor.findings import Finding, ok, warn
from jobpool_cli.errors import refused
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.aside import set_aside
from jobpool_cli.store.footers import footer_crc
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.outcomes.table import table_of
from jobpool_cli.store.ranges import Range, contains, merged, without
from jobpool_cli.store.state.problems import shown_ranges
from jobpool_cli.store.state.writer import StateWriter, create_database

LOG = ("-wal", "-shm")
PAGE_BYTES = 4096
# In a database's header: how many pages it has.
PAGES_AT = 28
REBUILT = "state.db was damaged, and rebuilt by jobpool doctor"
FAILED = ("error", "timeout", "crash")
FACTS = ["task", "attempt", "udf", "started", "duration_ns"]

# What the system may say of a file that is damaged or gone; anything else says something of the machine.
DAMAGED = (None, errno.ENOENT, errno.EINVAL, errno.EIO)

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
        if ranges[0][0] < 0 or ranges[-1][1] > self.n_jobs or without(ranges, self.done) != list(ranges):
            return None
        self.done = merged([*self.done, *ranges])
        for udf in table["udf"].to_pylist():
            self.by_udf[udf] = self.by_udf.get(udf, 0) + 1
        self.attempts |= {
            task: attempt for task, attempt in zip(tasks, table["attempt"].to_pylist(), strict=True) if attempt > 1
        }
        ends = zip(table["started"].cast("int64").to_pylist(), table["duration_ns"].to_pylist(), strict=True)
        self.last_finished = max(self.last_finished or 0, *(start + took // 1000 for start, took in ends))
        return ranges


def rebuild(paths: PoolPaths, manifest: Manifest) -> Iterator[Finding]:
    """Put a new state database into the place of a damaged one; the caller holds the pool's lock."""
    source = _source(paths)
    rows = _readable_rows(source, paths) if source is not None else {}
    known = _Whole(manifest.n_jobs)
    yield from _take_segments(paths, known)
    for blob in rows.get("inbox", []):
        with contextlib.suppress(KeyError, TypeError, ValueError, pa.ArrowException):
            if zlib.crc32(blob["outcomes"]) == blob["crc"]:
                ranges = known.add(table_of(blob["outcomes"]))
                if ranges is not None:
                    known.blobs.append({**blob, "ranges": ranges})
    temporary = durable.temporary_beside(paths.state_db)
    try:
        _write(temporary, paths, known, rows)
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
                # All columns are read, so that every page has been looked at.
                groups = (file.read_row_group(number) for number in range(file.num_row_groups))
                facts = pa.concat_tables([group.select(FACTS) for group in groups])
            ranges = known.add(facts)
            why = "its tasks are in another file, or not of this pool"
            footer = footer_crc(path)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            if isinstance(error, MemoryError) or getattr(error, "errno", None) not in DAMAGED:
                raise
            ranges, why = None, str(error).splitlines()[0]
        if ranges is None:
            kept = set_aside(paths, path)
            yield warn(
                f"results/{path.name}",
                f"it could not be used ({why}), and was moved to {kept.relative_to(paths.root) if kept else 'aside'}",
                "what was in it is pending: jobpool resume",
            )
        else:
            rows = sum(high - low for low, high in ranges)
            known.segments.append((path.name, ranges, rows, path.stat().st_size, footer))


# --- what is left of the database


def _readable_rows(source: Path, paths: PoolPaths) -> dict[str, list[Row]]:
    """Return the rows that can be read, by table."""
    place = paths.root / f".tmp-{os.urandom(6).hex()}-salvage"
    durable.make_folder(place)
    try:
        copy = place / "state.db"
        for suffix in ("", "-wal"):
            try:
                shutil.copyfile(f"{source}{suffix}", f"{copy}{suffix}")
            except FileNotFoundError:
                continue
            except OSError as error:
                # A part of a copy would be taken for all that is left.
                raise refused(error, f"a copy of {source}{suffix}") from error
        rows = _rows_of(copy)
        if "counters" not in rows:
            # The first page says where all tables lie, and is the same in every pool.
            _give_first_page(copy, place)
            rows = _rows_of(copy)
        return rows
    finally:
        shutil.rmtree(place, ignore_errors=True)


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
        with contextlib.suppress(sqlite3.Error):
            by_id: dict[int, Row] = {}
            # From both ends, as far as the damage.
            for order in ("ASC", "DESC"):
                with contextlib.closing(sqlite3.connect(path)) as connection, contextlib.suppress(sqlite3.Error):
                    connection.row_factory = sqlite3.Row
                    connection.text_factory = lambda data: data.decode("utf-8", "replace")
                    connection.execute("PRAGMA trusted_schema = OFF")
                    # Names of ours.
                    for row in connection.execute(f"SELECT rowid AS number, * FROM {table} ORDER BY rowid {order}"):  # noqa: S608
                        by_id.setdefault(row["number"], dict(row))
            if by_id:
                found[table] = [by_id[number] for number in sorted(by_id)]
    return found


# --- the new one


def _write(path: Path, paths: PoolPaths, known: _Whole, rows: dict[str, list[Row]]) -> None:
    create_database(path)
    texts = {row["id"]: row["text"] for row in rows.get("tracebacks", [])}
    failures = [row for row in rows.get("failures", []) if _is_failure(row, known.n_jobs)]
    done = known.done
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
        if type(row["task"]) is type(row["attempt"]) is int and 0 <= row["task"] < known.n_jobs:
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
        writer.set_paused(paused=row["paused"] == 1)
        if row["udf"] in versions:
            udf = row["udf"]
    writer.mark_code(udf)


def _is_failure(row: Row, n_jobs: int) -> bool:
    numbers = (row["task"], row["attempt"], row["udf"])
    return (
        all(type(each) is int for each in numbers)
        and 0 <= row["task"] < n_jobs
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
