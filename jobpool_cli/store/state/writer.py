"""The state database, write side: only the supervisor (and `map`, before there is one) has one of these.

All changes happen inside ``transaction()``; the supervisor groups what arrives within some tens of milliseconds into
one. With ``synchronous=FULL`` a transaction that returned is on the disk: what `status` shows has survived.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jobpool_cli.layout import APPLICATION_ID, FORMAT_VERSION
from jobpool_cli.model import TaskState
from jobpool_cli.store import durable
from jobpool_cli.store.ranges import Ranges, contains, merged, without
from jobpool_cli.store.state.problems import BUSY_TIMEOUT_SECONDS, check_format, explain

# A pool has few places at which it fails, or else a traceback per task, of which none comes again.
MAX_KNOWN_TRACEBACKS = 100
# What the write-ahead log takes in normal times: SQLite folds it into the file at a thousand pages.
LOG_BYTES = 4 << 20


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
        # Synced once, when it is whole.
        connection.execute("PRAGMA synchronous = OFF")
        # Only a new file takes this; the freed pages of the inbox are given back at the end of a run.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # From the first moment on: the change to it would leave a rollback journal where it is cut short, and with
        # that no reader can open the file.
        connection.execute("PRAGMA journal_mode = WAL")
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

    def __init__(self, path: Path, *, patience: float = BUSY_TIMEOUT_SECONDS) -> None:
        """Open the database for writing and make sure that what is committed reaches the disk.

        Args:
            path: the database.
            patience: seconds that it waits for readers where it must.
        """
        self._path = path
        self._traceback_ids: dict[str, int] = {}
        try:
            self._connection = sqlite3.connect(path, timeout=patience, isolation_level=None)
            check_format(self._connection, path)
            # While a reader is stopped inside its read, the log grows; once it has gone on, the next round of the log
            # cuts the file to this size.
            limit = f"journal_size_limit = {LOG_BYTES}"
            for pragma in ("trusted_schema = OFF", "journal_mode = WAL", "synchronous = FULL", limit):
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
                # An error of the disk may have ended it already, or keep it from being ended in an orderly way.
                if self._connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                self._traceback_ids.clear()
                raise
        except sqlite3.Error as error:
            raise explain(error, self._path) from error

    def _run(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._connection.execute(sql, parameters)

    def close(self) -> None:
        """Give free pages back, fold the write-ahead log into the file, close; all is committed without that."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")
        self._connection.close()

    # --- outcomes

    def add_successes(self, ranges: Ranges, rows: int, kind: str, outcomes: bytes, udf: int) -> None:
        """Record the successes of a batch in the inbox."""
        self._run(
            "INSERT INTO inbox (first, last, rows, ranges, kind, outcomes, crc) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*_bounds(ranges), rows, json.dumps(ranges), kind, outcomes, zlib.crc32(outcomes)),
        )
        self._run("UPDATE counters SET unsealed = unsealed + ?", (rows,))
        self._count_successes(rows, udf)

    def add_segment_of_batch(
        self, file: str, ranges: Ranges, rows: int, size: int, udf: int, footer: int | None = None
    ) -> None:
        """Record successes that a worker wrote as a segment itself; ``footer`` is the checksum of its footer."""
        self._add_segment(file, ranges, rows, size, footer)
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

    def take_up_successes(
        self, segments: Sequence[str], blobs: Sequence[int], by_udf: dict[int, int]
    ) -> list[tuple[int, int]]:
        """Forget successes whose results are damaged; return each task with its next attempt, ascending.

        Args:
            segments: files of the results that are lost.
            blobs: ids in the inbox of those.
            by_udf: for each version of the code, how many results are left.
        """
        lost = [self._run("SELECT ranges, rows FROM segments WHERE file = ?", (each,)).fetchone() for each in segments]
        unsealed = [self._run("SELECT ranges, rows FROM inbox WHERE id = ?", (each,)).fetchone() for each in blobs]
        self._connection.executemany("DELETE FROM segments WHERE file = ?", [(each,) for each in segments])
        self._connection.executemany("DELETE FROM inbox WHERE id = ?", [(each,) for each in blobs])
        ranges = merged(each for text, _ in lost + unsealed for each in json.loads(text))
        self._run(
            "UPDATE counters SET success = success - ?, unsealed = unsealed - ?",
            (sum(rows for _, rows in lost + unsealed), sum(rows for _, rows in unsealed)),
        )
        self._run("DELETE FROM successes_by_udf")
        self._connection.executemany("INSERT INTO successes_by_udf VALUES (?, ?)", by_udf.items())
        known = dict(self._run("SELECT task, attempt FROM attempts").fetchall())
        again = [(task, known.get(task, 1) + 1) for low, high in ranges for task in range(low, high)]
        self.set_attempts((task, attempt, attempt) for task, attempt in again)
        return again

    def mark_retry(self, microseconds: int, udf: int | None) -> None:
        """Remember when a retry took tasks up, and the code that pending tasks run from now on."""
        self._run("UPDATE counters SET retried_at = ?", (microseconds,))
        if udf is not None:
            self._run("UPDATE counters SET udf = ?", (udf,))

    def mark_code(self, udf: int) -> None:
        """Set the code that pending tasks run from now on."""
        self._run("UPDATE counters SET udf = ?", (udf,))

    # --- mending

    def recount(self, by_udf: dict[int, int]) -> None:
        """Set the counters by the rows; ``by_udf``: how many results each version of the code has."""
        self._run(
            "UPDATE counters SET"
            " unsealed = (SELECT coalesce(sum(rows), 0) FROM inbox),"
            " success = (SELECT coalesce(sum(rows), 0) FROM inbox) + (SELECT coalesce(sum(rows), 0) FROM segments),"
            " error = (SELECT count(*) FROM failures WHERE current = 1 AND state <> 'timeout'),"
            " timeout = (SELECT count(*) FROM failures WHERE current = 1 AND state = 'timeout'),"
            " cancelled = (SELECT coalesce(sum(high - low), 0) FROM cancelled)"
        )
        self._run("DELETE FROM successes_by_udf")
        self._connection.executemany("INSERT INTO successes_by_udf VALUES (?, ?)", by_udf.items())

    def fill(
        self,
        *,
        segments: Sequence[tuple[str, Ranges, int, int, int]],
        blobs: Sequence[dict[str, Any]],
        failures: Sequence[dict[str, Any]],
        tracebacks: dict[int, str],
        attempts: Sequence[tuple[int, int, int]],
        cancelled: Ranges,
        requests: Sequence[tuple[Any, ...]],
    ) -> None:
        """Fill an empty database with the rows that were rescued from a damaged one; ``recount`` sets its counters."""
        for segment in segments:
            self._add_segment(*segment)
        for blob in blobs:
            rows = sum(high - low for low, high in blob["ranges"])
            self.add_successes(blob["ranges"], rows, blob["kind"], blob["outcomes"], 0)
        self._connection.executemany("INSERT INTO tracebacks VALUES (?, ?)", tracebacks.items())
        names = [row[1] for row in self._run("PRAGMA table_info(failures)")]
        self._connection.executemany(
            f"INSERT INTO failures VALUES ({', '.join('?' * len(names))})",  # noqa: S608
            [[row[name] for name in names] for row in failures],
        )
        self.set_attempts(attempts)
        self._connection.executemany("INSERT INTO cancelled VALUES (?, ?)", cancelled)
        self._connection.executemany("INSERT INTO requests VALUES (?, ?, ?, ?)", requests)

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

    def replace_by_segment(self, ids: Sequence[int], file: str, size: int, footer: int | None = None) -> None:
        """Move blobs of the inbox to a segment that holds them; ``footer`` is the checksum of its footer."""
        rows, ranges = 0, []
        for each in ids:
            count, text = self._run("SELECT rows, ranges FROM inbox WHERE id = ?", (each,)).fetchone()
            rows += count
            ranges += json.loads(text)
        self._add_segment(file, tuple(merged(ranges)), rows, size, footer)
        self._connection.executemany("DELETE FROM inbox WHERE id = ?", [(each,) for each in ids])
        self._run("UPDATE counters SET unsealed = unsealed - ?", (rows,))

    def _add_segment(self, file: str, ranges: Ranges, rows: int, size: int, footer: int | None) -> None:
        self._run(
            "INSERT INTO segments (file, first, last, rows, ranges, bytes, footer) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (file, *_bounds(ranges), rows, json.dumps(ranges), size, footer),
        )


def _bounds(ranges: Ranges) -> tuple[int, int]:
    return min(low for low, _ in ranges), max(high for _, high in ranges) - 1
