"""The state database, write side: only the supervisor (and `map`, before there is one) has one of these.

All changes happen inside ``transaction()``; the supervisor groups what arrives within some tens of milliseconds into
one. With ``synchronous=FULL`` a transaction that returned is on the disk: what `status` shows has survived.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jobpool_cli.layout import APPLICATION_ID, FORMAT_VERSION
from jobpool_cli.model import TaskState
from jobpool_cli.store import durable
from jobpool_cli.store.ranges import Ranges, contains, merged, without
from jobpool_cli.store.state.reader import BUSY_TIMEOUT_SECONDS, check_format, explain

# A pool has few places at which it fails, or else a traceback per task, of which none comes again.
MAX_KNOWN_TRACEBACKS = 100


@dataclass(frozen=True)
class FailureRecord:
    """One attempt that did not succeed, as it is written.

    Attributes:
        state: ``error``, ``timeout`` or ``crash`` (the task will run again).
        frames: the traceback's text without its last line (type and message), None if there is none.
        where: file, line and function of the deepest frame in the user's code.
        exception: the pickled exception.
        started: microseconds since the epoch.
        duration: nanoseconds.
        log: byte range in the worker's log.
    """

    task: int
    attempt: int
    state: str
    type: str
    message: str
    udf: int
    frames: str | None = None
    where: tuple[str, int, str] | None = None
    exception: bytes | None = None
    started: int | None = None
    duration: int | None = None
    worker: int | None = None
    log: tuple[int, int] | None = None


def create_database(path: Path) -> None:
    """Make an empty state database, private and complete."""
    os.close(durable.open_new(path))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # Only a new file takes these two; the freed pages of the inbox are given back at the end of a run.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        schema = resources.files("jobpool_cli.store.state").joinpath("schema.sql").read_text(encoding="utf-8")
        connection.executescript(f"BEGIN; {schema} COMMIT;")
    except sqlite3.Error as error:
        raise explain(error, path) from error
    finally:
        connection.close()
    durable.sync_file(path)


class StateWriter:
    """Changes to a pool's state. One exists per pool at any time: the holder of the pool's lock makes it."""

    def __init__(self, path: Path) -> None:
        """Open the database for writing and make sure that what is committed reaches the disk."""
        self._path = path
        self._traceback_ids: dict[str, int] = {}
        try:
            self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
            check_format(self._connection, path)
            for pragma in ("trusted_schema = OFF", "journal_mode = WAL", "synchronous = FULL"):
                self._connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            raise explain(error, path) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what happens inside, durably, or nothing of it."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self._traceback_ids.clear()
                raise
        except sqlite3.Error as error:
            raise explain(error, self._path) from error

    def _run(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._connection.execute(sql, parameters)

    def close(self) -> None:
        """Give free pages back, fold the write-ahead log into the file, close."""
        try:
            self._connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")
        finally:
            self._connection.close()

    # --- outcomes

    def add_successes(self, ranges: Ranges, rows: int, kind: str, outcomes: bytes, udf: int) -> None:
        """Record the successes of a batch in the inbox."""
        self._run(
            "INSERT INTO inbox (first, last, rows, ranges, kind, outcomes) VALUES (?, ?, ?, ?, ?, ?)",
            (*_bounds(ranges), rows, json.dumps(ranges), kind, outcomes),
        )
        self._run("UPDATE counters SET unsealed = unsealed + ?", (rows,))
        self._count_successes(rows, udf)

    def add_segment_of_batch(self, file: str, ranges: Ranges, rows: int, size: int, udf: int) -> None:
        """Record successes that a worker wrote as a segment itself."""
        self._add_segment(file, ranges, rows, size)
        self._count_successes(rows, udf)

    def _count_successes(self, rows: int, udf: int) -> None:
        self._run("UPDATE counters SET success = success + ?", (rows,))
        self._run(
            "INSERT INTO successes_by_udf VALUES (?, ?) ON CONFLICT (udf) DO UPDATE SET rows = rows + excluded.rows",
            (udf, rows),
        )

    def add_failures(self, failures: Iterable[FailureRecord], *, current: bool) -> None:
        """Record failed attempts; ``current`` ones are their task's state from now on and are counted."""
        added = list(failures)
        self._connection.executemany(
            "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    each.task,
                    each.attempt,
                    each.state,
                    current,
                    each.type,
                    each.message,
                    *(each.where or (None, None, None)),
                    self._traceback(each.frames),
                    each.exception,
                    each.started,
                    each.duration,
                    each.worker,
                    *(each.log or (None, None)),
                    each.udf,
                )
                for each in added
            ],
        )
        if current:
            timeouts = sum(1 for each in added if each.state == "timeout")
            self._run("UPDATE counters SET timeout = timeout + ?, error = error + ?", (timeouts, len(added) - timeouts))

    def _traceback(self, text: str | None) -> int | None:
        if text is None:
            return None
        known = self._traceback_ids.get(text)
        if known is None:
            self._run("INSERT INTO tracebacks (text) VALUES (?) ON CONFLICT (text) DO NOTHING", (text,))
            (known,) = self._run("SELECT id FROM tracebacks WHERE text = ?", (text,)).fetchone()
            if len(self._traceback_ids) >= MAX_KNOWN_TRACEBACKS:
                self._traceback_ids.clear()
            self._traceback_ids[text] = int(known)
        return int(known)

    def set_attempts(self, attempts: Iterable[tuple[int, int, int]]) -> None:
        """Record (task, attempt, since) of tasks that go on to a further attempt."""
        self._connection.executemany(
            "INSERT INTO attempts VALUES (?, ?, ?)"
            " ON CONFLICT (task) DO UPDATE SET attempt = excluded.attempt, since = excluded.since",
            attempts,
        )

    def finished_at(self, microseconds: int) -> None:
        """Move the end of the last finished attempt forward."""
        self._run(
            "UPDATE counters SET last_finished = max(coalesce(last_finished, 0), ?)",
            (microseconds,),
        )

    # --- requests and their effects

    def cancel(self, ranges: Ranges) -> None:
        """Record pending tasks as cancelled."""
        self._connection.executemany("INSERT INTO cancelled VALUES (?, ?)", ranges)
        self._run("UPDATE counters SET cancelled = cancelled + ?", (sum(high - low for low, high in ranges),))

    def take_up_failures(self, tasks: Sequence[int] | None) -> list[tuple[int, int]]:
        """Make failed tasks (of these, or all) pending again; return each with its next attempt, ascending."""
        rows = self._run("SELECT task, attempt, state FROM failures WHERE current = 1 ORDER BY task").fetchall()
        wanted = set(tasks) if tasks is not None else None
        taken = [(task, attempt + 1, state) for task, attempt, state in rows if wanted is None or task in wanted]
        self._connection.executemany(
            "UPDATE failures SET current = 0 WHERE task = ? AND current = 1", [(task,) for task, _, _ in taken]
        )
        for state in (TaskState.ERROR, TaskState.TIMEOUT):
            lost = sum(1 for each in taken if each[2] == state)
            self._run(f"UPDATE counters SET {state} = {state} - ?", (lost,))  # noqa: S608 - a name of ours
        self.set_attempts((task, attempt, attempt) for task, attempt, _ in taken)
        return [(task, attempt) for task, attempt, _ in taken]

    def take_up_cancelled(self, tasks: Sequence[int] | None) -> tuple[Ranges, list[tuple[int, int]]]:
        """Make cancelled tasks (of these, or all) pending again.

        Returns:
            ranges of those that never ran, and (task, next attempt) of those that did.
        """
        ranges = self._run("SELECT low, high FROM cancelled ORDER BY low").fetchall()
        kept, wanted = [], ranges
        if tasks is not None:
            wanted = [(task, task + 1) for task in sorted(set(tasks)) if contains(ranges, task)]
            kept = without(ranges, wanted)
        self._run("DELETE FROM cancelled")
        self._connection.executemany("INSERT INTO cancelled VALUES (?, ?)", kept)
        self._run("UPDATE counters SET cancelled = cancelled - ?", (sum(high - low for low, high in wanted),))
        later = [
            (task, attempt + 1)
            for low, high in wanted
            for task, attempt in self._run(
                "SELECT task, attempt FROM attempts WHERE task >= ? AND task < ?", (low, high)
            )
        ]
        self.set_attempts((task, attempt, attempt) for task, attempt in later)
        return tuple(without(wanted, [(task, task + 1) for task, _ in later])), later

    def mark_retry(self, microseconds: int, udf: int | None) -> None:
        """Remember when a retry took tasks up, and the code that pending tasks run from now on."""
        self._run("UPDATE counters SET retried_at = ?", (microseconds,))
        if udf is not None:
            self._run("UPDATE counters SET udf = ?", (udf,))

    def set_paused(self, *, paused: bool) -> None:
        """Remember whether tasks are handed out."""
        self._run("UPDATE counters SET paused = ?", (paused,))

    def set_stop_reason(self, reason: str) -> None:
        """Remember why the supervisor stops before the end; empty while one runs."""
        self._run("UPDATE counters SET stop_reason = ?", (reason,))

    def add_answer(self, request: str, microseconds: int, action: str, answer: dict[str, Any]) -> None:
        """Record what came of a request."""
        self._run(
            "INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?)", (request, microseconds, action, json.dumps(answer))
        )

    # --- sealing

    def inbox_sizes(self) -> list[tuple[int, str, int]]:
        """Return (id, kind, bytes) of each blob in the inbox, by first task."""
        return self._run("SELECT id, kind, length(outcomes) FROM inbox ORDER BY first").fetchall()

    def replace_by_segment(self, ids: Sequence[int], file: str, size: int) -> None:
        """Move blobs of the inbox to a segment that holds them."""
        rows, ranges = 0, []
        for each in ids:
            count, text = self._run("SELECT rows, ranges FROM inbox WHERE id = ?", (each,)).fetchone()
            rows += count
            ranges += json.loads(text)
        self._add_segment(file, tuple(merged(ranges)), rows, size)
        self._connection.executemany("DELETE FROM inbox WHERE id = ?", [(each,) for each in ids])
        self._run("UPDATE counters SET unsealed = unsealed - ?", (rows,))

    def _add_segment(self, file: str, ranges: Ranges, rows: int, size: int) -> None:
        self._run(
            "INSERT INTO segments (file, first, last, rows, ranges, bytes) VALUES (?, ?, ?, ?, ?, ?)",
            (file, *_bounds(ranges), rows, json.dumps(ranges), size),
        )


def _bounds(ranges: Ranges) -> tuple[int, int]:
    return min(low for low, _ in ranges), max(high for _, high in ranges) - 1
