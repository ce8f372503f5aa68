"""The state database, read side: cheap questions about a pool, answered without pandas or pyarrow.

``store.state.writer`` is the other side; ``schema.sql`` is the contract of the two.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

from jobpool_cli.errors import DamagedPoolError, DiskError
from jobpool_cli.model import Failure, FailureGroup, TaskState, Where
from jobpool_cli.store.ranges import Ranges
from jobpool_cli.store.state.problems import (
    BUSY_TIMEOUT_SECONDS,
    advice,
    check_file,
    check_format,
    decoding,
    explain,
    has_log,
    shown_ranges,
)

# Microseconds and datetimes meet here and nowhere else; integer arithmetic, so that no microsecond is lost.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(microseconds: int) -> datetime:
    """Convert microseconds since the epoch."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError as error:
        raise DamagedPoolError(f"a time in the pool is damaged: {microseconds} microseconds") from error


def to_microseconds(moment: datetime) -> int:
    """Convert to microseconds since the epoch."""
    return (moment - EPOCH) // timedelta(microseconds=1)


class Counters(NamedTuple):
    """The one row of ``counters``; times in microseconds since the epoch."""

    success: int
    error: int
    timeout: int
    cancelled: int
    unsealed: int
    last_finished: int | None
    retried_at: int | None
    udf: int
    stop_reason: str
    paused: bool

    @property
    def finished(self) -> int:
        """Tasks in a finished state."""
        return self.success + self.error + self.timeout + self.cancelled


class Segment(NamedTuple):
    """One file of results/; ``first`` and ``last`` are the lowest and highest task number in it."""

    file: str
    first: int
    last: int
    rows: int
    ranges: Ranges
    bytes: int
    footer: int | None


def parse_ranges(text: str) -> Ranges:
    """Read half-open ranges from their JSON."""
    return tuple((low, high) for low, high in json.loads(text))


def _numbers(rows: list[Any]) -> list[Any]:
    """Return rows that are all numbers; where a page was overwritten, they may be anything."""
    if not all(type(each) is int for row in rows for each in row):
        raise TypeError("a number is none")
    return rows


def _check_ranges(file: str, ranges: Ranges, rows: int) -> None:
    if sum(high - low for low, high in ranges) != rows or any(not 0 <= low < high for low, high in ranges):
        raise ValueError(f"the ranges of {file} are not those of {rows} tasks")


class StateReader:
    """Questions to a pool's state; read-only, short transactions, usable while the supervisor writes.

    Use it as a context manager. Each method sees the last committed state; ``snapshot()`` holds several methods to
    the same one.
    """

    def __init__(self, path: Path) -> None:
        """Open the database.

        Raises:
            DamagedPoolError: it is missing, not a pool's, or unreadable.
        """
        self.path = path
        check_file(path)
        try:
            self._open("mode=ro")
        except DiskError as error:
            if not error.may_pass or has_log(path):
                raise
            # No room for the file that readers share with a writer: nobody writes, then, and all is in this one.
            self._open("mode=ro&immutable=1")

    def _open(self, how: str) -> None:
        path = self.path
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?{how}",
                uri=True,
                timeout=BUSY_TIMEOUT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.execute("PRAGMA trusted_schema = OFF")
            check_format(self._connection, path)
        except sqlite3.Error as error:
            self._close()
            raise explain(error, path) from error
        except UnicodeDecodeError as error:
            self._close()
            raise DamagedPoolError(f"{path} is damaged: {error}", advice(path)) from error
        except DamagedPoolError:
            self._close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(AttributeError):  # it was not opened
            self._connection.close()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Hold all questions asked inside to one committed state."""
        self.query("BEGIN")  # the snapshot is taken by the first question inside
        try:
            yield
        finally:
            self.query("ROLLBACK")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a question; for this module and its neighbours."""
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        except UnicodeDecodeError as error:  # a name in it that SQLite tells of is none
            raise DamagedPoolError(f"{self.path} is damaged: {error}", advice(self.path)) from error

    @decoding
    def counters(self) -> Counters:
        """Return the counters."""
        rows = self.query(
            "SELECT success, error, timeout, cancelled, unsealed, last_finished, retried_at, udf, stop_reason, paused"
            " FROM counters"
        )
        if not rows:
            raise DamagedPoolError(f"{self.path} has lost its counters")
        *others, paused = rows[0]
        values: tuple[Any, ...] = (*others, bool(paused))
        return Counters(*values)

    @decoding
    def udf_versions(self) -> dict[int, int]:
        """Return how many results come from each code version."""
        return dict(self.query("SELECT udf, rows FROM successes_by_udf ORDER BY udf"))

    @decoding
    def segments(self) -> list[Segment]:
        """Return the sealed segments."""
        rows = self.query("SELECT file, first, last, rows, ranges, bytes, footer FROM segments ORDER BY first")
        found = [
            Segment(file, first, last, count, parse_ranges(text), *rest)
            for file, first, last, count, text, *rest in rows
        ]
        for each in found:
            _check_ranges(each.file, each.ranges, each.rows)
        return found

    def check_successes(self) -> None:
        """Make sure that there are as many results as are counted; of a pool that is being worked on, in a snapshot.

        Raises:
            DamagedPoolError: there are not, as where a write-ahead log was lost in the middle of its checkpoint.
        """
        ((counted, there),) = self.query(
            "SELECT success, (SELECT coalesce(sum(rows), 0) FROM segments) + (SELECT coalesce(sum(rows), 0) FROM inbox)"
            " FROM counters"
        ) or [(0, -1)]
        if counted != there:
            raise DamagedPoolError(
                f"{self.path} is damaged: it counts {counted} successes, and has the results of {max(there, 0)}",
                advice(self.path),
            )

    @decoding
    def inbox_blobs(self, tasks: tuple[int, int] | None = None) -> list[bytes]:
        """Return the outcomes that are not sealed yet, those that touch a half-open range of tasks if one is given.

        Raises:
            DamagedPoolError: some are not what was written; names their tasks.
        """
        low, high = tasks or (0, 2**62)
        return self._whole("WHERE last >= ? AND first < ?", (low, high))

    @decoding
    def blobs(self, ids: Sequence[int]) -> list[bytes]:
        """Return blobs of the inbox by their ids; errors are those of ``inbox_blobs``."""
        return [blob for each in ids for blob in self._whole("WHERE id = ?", (each,))]

    def _whole(self, where: str, parameters: Sequence[Any]) -> list[bytes]:
        # `where` is one of the callers' texts, never a value.
        rows = self.query(f"SELECT outcomes, crc, ranges FROM inbox {where} ORDER BY first", parameters)  # noqa: S608
        import zlib  # noqa: PLC0415 - `status` reads no results

        for blob, crc, text in rows:
            if zlib.crc32(blob) != crc:
                raise DamagedPoolError(
                    f"{self.path} is damaged: results that wait in it are not as they were written, those of"
                    f" {shown_ranges(parse_ranges(text))}",
                    f"run these tasks again: jobpool retry --damaged {self.path.parent.name}",
                )
        return [blob for blob, _, _ in rows]

    @decoding
    def damaged_blobs(self) -> dict[int, Ranges]:
        """Return the blobs of the inbox that are not as they were written: the tasks of each by its id."""
        import zlib  # noqa: PLC0415 - as above

        rows = self.query("SELECT id, outcomes, crc, ranges FROM inbox")
        return {number: parse_ranges(text) for number, blob, crc, text in rows if zlib.crc32(blob) != crc}

    def inbox_ids(self) -> list[int]:
        """Return the ids of all blobs of the inbox."""
        return [number for (number,) in self.query("SELECT id FROM inbox")]

    def inbox_rows(self) -> int:
        """Return how many successes are not sealed yet."""
        return int(self.query("SELECT coalesce(sum(rows), 0) FROM inbox")[0][0])

    @decoding
    def success_ranges(self) -> list[tuple[int, int]]:
        """Return the ranges of successful tasks, in no particular order."""
        rows = self.query("SELECT ranges FROM segments UNION ALL SELECT ranges FROM inbox")
        return [each for (text,) in rows for each in parse_ranges(text)]

    @decoding
    def cancelled_ranges(self) -> list[tuple[int, int]]:
        """Return the ranges of cancelled tasks."""
        return _numbers(self.query("SELECT low, high FROM cancelled ORDER BY low"))

    def failed_tasks(self) -> list[int]:
        """Return the tasks in error or timeout, ascending."""
        return [task for (task,) in self.query("SELECT task FROM failures WHERE current = 1 ORDER BY task")]

    def counted(self) -> dict[int, tuple[int, int]]:
        """Return (crashes, failures) that count against the limits of the tasks beyond their first attempt."""
        rows = self.query(
            "SELECT task, sum(type = 'WorkerCrashed'), sum(type <> 'WorkerCrashed')"
            " FROM failures JOIN attempts USING (task) WHERE failures.attempt >= since GROUP BY task"
        )
        return {task: (crashes, failures) for task, crashes, failures in rows}

    @decoding
    def attempts(self) -> dict[int, tuple[int, int]]:
        """Return (present attempt, attempt from which limits count) of the tasks beyond their first, ascending."""
        rows = _numbers(self.query("SELECT task, attempt, since FROM attempts ORDER BY task"))
        return {task: (attempt, since) for task, attempt, since in rows}

    @decoding
    def failures(
        self, tasks: Sequence[int] | None = None, *, history: bool = False, limit: int | None = None
    ) -> list[Failure]:
        """Return failures, by task and attempt.

        Args:
            tasks: only of these.
            history: also of attempts after which the task ran again.
            limit: at most so many.
        """
        if tasks is not None:
            found = []
            for task in tasks:
                found += self._failures("WHERE f.task = ? AND (f.current = 1 OR ?)", (task, history), limit)
            return found
        return self._failures("" if history else "WHERE f.current = 1", (), limit)

    @decoding
    def failures_since(self, mark: int, limit: int) -> tuple[tuple[int, int], int, list[Failure]]:
        """Return what failed since a mark: how many failures still count and how many do not, the next mark, the first.

        Args:
            mark: 0, or what the last call returned.
            limit: at most so many of either kind.
        """
        # Rows are never deleted, so that what is new has a higher rowid.
        ((count, again, last),) = self.query(
            "SELECT count(*) FILTER (WHERE current = 1), count(*) FILTER (WHERE current = 0), max(rowid)"
            " FROM failures WHERE rowid > ?",
            (mark,),
        )
        found: list[Failure] = []
        for current, many in ((1, count), (0, again)):
            if many:
                found += self._failures("WHERE f.rowid > ? AND f.current = ?", (mark, current), limit)
        return (count, again), last or mark, found

    def _failures(self, where: str, parameters: Sequence[Any], limit: int | None) -> list[Failure]:
        # `where` is one of the callers' three texts, never a value.
        sql = (
            "SELECT f.task, f.attempt, f.state, f.type, f.message, f.file, f.line, f.function, t.text, f.started,"  # noqa: S608
            " f.duration, f.worker, f.log_start, f.log_end, f.udf, f.current FROM failures f"
            f" LEFT JOIN tracebacks t ON t.id = f.traceback {where} ORDER BY f.task, f.attempt LIMIT ?"
        )
        rows = self.query(sql, (*parameters, -1 if limit is None else limit))
        return [
            Failure(
                task=row[0],
                attempt=row[1],
                state=TaskState(row[2]) if row[2] != "crash" else TaskState.ERROR,
                type=row[3],
                message=row[4],
                where=Where(row[5], row[6], row[7]) if row[5] is not None else None,
                traceback=f"{row[8]}{row[3]}: {row[4]}" if row[8] is not None else "",
                started=to_datetime(row[9]) if row[9] is not None else None,
                duration=row[10] / 1e9 if row[10] is not None else None,
                worker=row[11],
                log=(row[12], row[13]) if row[12] is not None else None,
                udf=row[14],
                current=bool(row[15]),
            )
            for row in rows
        ]

    def failure_columns(self) -> list[Any]:
        """Return (task, attempt, state, "type: message", started, duration, worker, udf) of the failures that count.

        Plain rows instead of objects: a million failures are a matter of seconds.
        """
        return self.query(
            "SELECT task, attempt, iif(state = 'timeout', 'timeout', 'error'),"
            " type || iif(message = '', '', ': ' || message), started, duration, worker, udf"
            " FROM failures WHERE current = 1 ORDER BY task"
        )

    @decoding
    def failure_logs(self, tasks: tuple[int, int] | None = None) -> list[Any]:
        """Return (task, attempt, state, worker, log_start, log_end, current) of all failed attempts that have a log.

        Args:
            tasks: only those of a half-open range.
        """
        return self.query(
            "SELECT task, attempt, iif(state = 'timeout', 'timeout', 'error'), worker, log_start, log_end, current"
            " FROM failures WHERE task >= ? AND task < ? AND worker IS NOT NULL AND log_start IS NOT NULL"
            " ORDER BY task, attempt",
            tasks or (0, 2**62),
        )

    def exception_pickles(self, tasks: Sequence[int] | None = None) -> dict[int, bytes | None]:
        """Return the pickled exceptions of the failures that count."""
        wanted = set(tasks) if tasks is not None else None
        rows = self.query("SELECT task, exception FROM failures WHERE current = 1")
        return {task: blob for task, blob in rows if wanted is None or task in wanted}

    @decoding
    def failure_groups(self) -> list[FailureGroup]:
        """Return the failures that count, grouped by type and place, most frequent first."""
        # SQLite takes the bare columns from the row that holds the minimum: the example is the group's first task.
        rows = self.query(
            "SELECT type, file, line, function, count(*), min(task), message FROM failures WHERE current = 1"
            " GROUP BY type, file, line, function ORDER BY count(*) DESC, min(task)"
        )
        return [
            FailureGroup(row[0], Where(row[1], row[2], row[3]) if row[1] is not None else None, row[4], row[5], row[6])
            for row in rows
        ]

    def tasks_of_group(self, group: FailureGroup, limit: int | None = None) -> list[int]:
        """Return the tasks of a group of failures, ascending, at most so many."""
        place = (group.where.file, group.where.line, group.where.function) if group.where else (None, None, None)
        rows = self.query(
            "SELECT task FROM failures WHERE current = 1 AND type = ? AND file IS ? AND line IS ? AND function IS ?"
            " ORDER BY task LIMIT ?",
            (group.type, *place, -1 if limit is None else limit),
        )
        return [task for (task,) in rows]

    @decoding
    def answer(self, request: str) -> dict[str, Any] | None:
        """Return what came of a request, None while it has not been carried out."""
        rows = self.query("SELECT answer FROM requests WHERE id = ?", (request,))
        return json.loads(rows[0][0]) if rows else None
