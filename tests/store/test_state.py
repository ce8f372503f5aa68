from __future__ import annotations

import sqlite3
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobpool_cli.errors import DamagedPoolError, DiskError, MachineError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import TaskState, Where
from jobpool_cli.store.state.problems import explain
from jobpool_cli.store.state.reader import StateReader, to_datetime, to_microseconds
from jobpool_cli.store.state.writer import FailureRecord, StateWriter, create_database
from tests.helpers import recount

N = 40


class Books:
    """A state database, and questions to it."""

    def __init__(self, folder: Path) -> None:
        """Make an empty one."""
        self.paths = PoolPaths(folder)
        create_database(self.paths.state_db)
        self.writer = StateWriter(self.paths.state_db)
        self.reader = StateReader(self.paths.state_db)

    def succeed(self, *ranges: tuple[int, int], kind: str = "int64", blob: bytes = b"blob", udf: int = 1) -> None:
        with self.writer.transaction():
            self.writer.add_successes(ranges, sum(high - low for low, high in ranges), kind, blob, udf)

    def fail(
        self, *tasks: int, attempt: int = 1, state: str = "error", current: bool = True, frames: str = "f"
    ) -> None:
        with self.writer.transaction():
            self.writer.add_failures(
                [FailureRecord(task, attempt, state, "ValueError", f"no {task}", 1, frames=frames) for task in tasks],
                current=current,
            )

    def cancel(self, *ranges: tuple[int, int]) -> None:
        with self.writer.transaction():
            self.writer.cancel(ranges)

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


def test_a_new_database_is_private_and_empty(books: Books) -> None:
    assert stat.S_IMODE(books.paths.state_db.stat().st_mode) == 0o600
    counters = books.reader.counters()
    assert (counters.finished, counters.last_finished, counters.paused, counters.udf) == (0, None, False, 1)
    assert books.reader.segments() == []
    assert books.reader.failures() == []
    assert books.reader.answer("none") is None


def test_a_committed_change_is_durable_and_in_the_write_ahead_log(books: Books) -> None:
    connection = books.writer._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)


def test_a_transaction_that_fails_leaves_nothing(books: Books) -> None:
    def fail() -> None:
        with books.writer.transaction():
            books.writer.add_successes(((0, 5),), 5, "", b"", 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert books.reader.counters().success == 0
    assert books.reader.inbox_rows() == 0
    books.succeed((0, 5))
    assert books.reader.counters().success == 5


def test_the_reader_sees_one_state_within_a_snapshot(books: Books) -> None:
    with books.reader.snapshot():
        assert books.reader.counters().success == 0
        books.succeed((0, 5))
        assert books.reader.counters().success == 0
        assert books.reader.success_ranges() == []
    assert books.reader.counters().success == 5


def test_blobs_move_to_a_segment_and_take_their_ranges_along(books: Books) -> None:
    books.succeed((0, 3), (5, 6), blob=b"a")
    books.succeed((3, 5), blob=b"b")
    books.succeed((10, 12), blob=b"c", kind="string")
    sizes = books.writer.inbox_sizes()
    assert [(kind, size) for _, kind, size in sizes] == [("int64", 1), ("int64", 1), ("string", 1)]
    ids = [each for each, kind, _ in sizes if kind == "int64"]
    assert books.reader.blobs(ids) == [b"a", b"b"]
    with books.writer.transaction():
        books.writer.replace_by_segment(ids, "segment-000001.parquet", 99)
    (segment,) = books.reader.segments()
    assert (segment.first, segment.last, segment.rows, segment.ranges, segment.bytes) == (0, 5, 6, ((0, 6),), 99)
    assert books.reader.inbox_blobs() == [b"c"]
    assert books.reader.inbox_rows() == 2
    assert sorted(books.reader.success_ranges()) == [(0, 6), (10, 12)]
    recount(books.paths)


def test_the_inbox_gives_the_blobs_that_touch_a_range(books: Books) -> None:
    for low in range(0, 30, 10):
        books.succeed((low, low + 10), blob=bytes([low]))
    assert books.reader.inbox_blobs((9, 11)) == [b"\x00", b"\x0a"]
    assert books.reader.inbox_blobs((10, 20)) == [b"\x0a"]
    assert books.reader.inbox_blobs((30, 40)) == []


def test_a_failure_is_read_as_it_was_written(books: Books) -> None:
    record = FailureRecord(
        task=3, attempt=2, state="timeout", type="mod.Odd", message="ü\0'", udf=2, frames="Traceback:\n",
        where=("/x/f.py", 7, "f.<locals>.g"), exception=b"\x00pickle", started=1_700_000_000_000_001,
        duration=1_500_000_000, worker=9, log=(5, 80),
    )  # fmt: skip
    with books.writer.transaction():
        books.writer.add_failures([record], current=True)
    (failure,) = books.reader.failures()
    assert (failure.task, failure.attempt, failure.state, failure.type) == (3, 2, TaskState.TIMEOUT, "mod.Odd")
    assert (failure.message, failure.where) == ("ü\0'", Where("/x/f.py", 7, "f.<locals>.g"))
    assert failure.traceback == "Traceback:\nmod.Odd: ü\0'"
    assert failure.started == datetime(2023, 11, 14, 22, 13, 20, 1, UTC)
    assert (failure.duration, failure.worker, failure.log, failure.udf, failure.current) == (1.5, 9, (5, 80), 2, True)
    assert books.reader.exception_pickles() == {3: b"\x00pickle"}
    assert books.reader.exception_pickles([4]) == {}
    assert books.reader.counters().timeout == 1


def test_like_failures_share_one_traceback(books: Books) -> None:
    books.fail(*range(1000), frames="the same")
    books.fail(1000, frames="another")
    (count,) = books.writer._run("SELECT count(*) FROM tracebacks").fetchone()
    assert count == 2
    (group,) = books.reader.failure_groups()
    assert (group.size, group.example, group.message) == (1001, 0, "no 0")


def test_attempts_that_ran_again_are_history_and_do_not_count(books: Books) -> None:
    books.fail(1, attempt=1, current=False)
    books.fail(1, attempt=2, state="crash", current=False)
    books.fail(1, attempt=3)
    assert [each.attempt for each in books.reader.failures()] == [3]
    assert [each.attempt for each in books.reader.failures(history=True)] == [1, 2, 3]
    assert [each.attempt for each in books.reader.failures([1], history=True)] == [1, 2, 3]
    assert books.reader.failures([2]) == []
    assert books.reader.failed_tasks() == [1]
    assert books.reader.counters().error == 1
    recount(books.paths)


def test_taking_up_failures_gives_each_its_next_attempt(books: Books) -> None:
    books.fail(2, 7, state="error")
    books.fail(5, attempt=4, state="timeout")
    with books.writer.transaction():
        assert books.writer.take_up_failures([5, 7, 99]) == [(5, 5), (7, 2)]
    assert books.reader.failed_tasks() == [2]
    assert books.reader.attempts() == {5: (5, 5), 7: (2, 2)}
    assert len(books.reader.failures(history=True)) == 3
    recount(books.paths)
    with books.writer.transaction():
        assert books.writer.take_up_failures(None) == [(2, 2)]
        assert books.writer.take_up_failures(None) == []
    assert books.reader.counters().finished == 0
    recount(books.paths)


def test_taking_up_cancelled_tasks_tells_those_that_ran_before_from_those_that_did_not(books: Books) -> None:
    books.cancel((0, 10), (20, 30))
    with books.writer.transaction():
        books.writer.set_attempts([(4, 2, 1), (25, 3, 3), (15, 9, 9)])
        assert books.writer.take_up_cancelled([3, 4, 4, 15, 20, 25, 29]) == (
            ((3, 4), (20, 21), (29, 30)),
            [(4, 3), (25, 4)],
        )
    assert books.reader.cancelled_ranges() == [(0, 3), (5, 10), (21, 25), (26, 29)]
    assert books.reader.counters().cancelled == 15
    assert books.reader.attempts() == {4: (3, 3), 15: (9, 9), 25: (4, 4)}
    recount(books.paths)
    with books.writer.transaction():
        assert books.writer.take_up_cancelled(None) == (((0, 3), (5, 10), (21, 25), (26, 29)), [])
    assert books.reader.counters().cancelled == 0
    recount(books.paths)


@pytest.mark.timeout(20)
def test_taking_up_scattered_cancelled_tasks_is_quick(books: Books) -> None:
    many = 50_000
    books.cancel(*((2 * task, 2 * task + 1) for task in range(many)))
    with books.writer.transaction():
        books.writer.set_attempts((2 * task, 2, 1) for task in range(0, many, 2))
        fresh, later = books.writer.take_up_cancelled(list(range(2 * many)))
    assert len(fresh) == len(later) == many // 2


def test_counts_by_code_version_hold_the_successes(books: Books) -> None:
    books.succeed((0, 3))
    books.succeed((3, 5), udf=2)
    books.succeed((5, 6), udf=2)
    books.fail(8)
    assert books.reader.udf_versions() == {1: 3, 2: 3}


def test_the_last_end_never_moves_back(books: Books) -> None:
    with books.writer.transaction():
        for moment in (5, 9, 7):
            books.writer.finished_at(moment)
    assert books.reader.counters().last_finished == 9


def test_a_request_keeps_its_first_answer(books: Books) -> None:
    with books.writer.transaction():
        books.writer.add_answer("a", 1, "cancel", {"cancelled": 3})
        books.writer.add_answer("a", 2, "cancel", {"cancelled": 0})
    assert books.reader.answer("a") == {"cancelled": 3}


def test_pause_retry_and_reason_are_remembered(books: Books) -> None:
    with books.writer.transaction():
        books.writer.set_paused(paused=True)
        books.writer.mark_retry(77, 3)
        books.writer.mark_retry(78, None)
        books.writer.set_stop_reason("why")
    counters = books.reader.counters()
    assert (counters.paused, counters.retried_at, counters.udf, counters.stop_reason) == (True, 78, 3, "why")


def test_closing_gives_the_space_of_the_inbox_back(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.succeed((0, 1), blob=bytes(5_000_000))
    with books.writer.transaction():
        books.writer.replace_by_segment([1], "segment-000001.parquet", 1)
    books.close()
    assert books.paths.state_db.stat().st_size < 300_000
    assert not books.paths.state_db.with_name("state.db-wal").exists()


def test_what_is_no_pool_s_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    missing, text, foreign = tmp_path / "missing.db", tmp_path / "text.db", tmp_path / "foreign.db"
    with pytest.raises(DamagedPoolError, match="missing"):
        StateReader(missing)
    assert not missing.exists()
    text.write_text("no database at all, but long enough to have a header" * 10)
    with pytest.raises(DamagedPoolError, match="damaged"):
        StateReader(text)
    sqlite3.connect(foreign).execute("CREATE TABLE t (x)").connection.close()
    before = foreign.read_bytes()
    for kind in (StateReader, StateWriter):
        with pytest.raises(DamagedPoolError, match="no pool's database"):
            kind(foreign)
    assert foreign.read_bytes() == before


def test_a_newer_format_is_refused_with_both_versions_named(tmp_path: Path) -> None:
    create_database(tmp_path / "state.db")
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(DamagedPoolError, match=r"format version 7; this jobpool knows version 1") as caught:
        StateReader(tmp_path / "state.db")
    assert "newer" in caught.value.hint


def test_a_truncated_database_is_called_damaged_and_nothing_worse(tmp_path: Path) -> None:
    books = Books(tmp_path)
    for low in range(0, 3000, 3):
        books.succeed((low, low + 3), blob=bytes(300))
    books.close()
    whole = books.paths.state_db.read_bytes()
    books.paths.state_db.write_bytes(whole[: len(whole) // 2])

    def read() -> None:
        with StateReader(books.paths.state_db) as reader:
            reader.counters()
            reader.success_ranges()

    with pytest.raises(DamagedPoolError):
        read()


def test_errors_of_the_machine_are_not_called_damage(tmp_path: Path) -> None:
    def error(code: int) -> sqlite3.Error:
        made = sqlite3.OperationalError("words of SQLite")
        made.sqlite_errorcode = code
        made.sqlite_errorname = "SQLITE_X"
        return made

    assert type(explain(error(sqlite3.SQLITE_BUSY), tmp_path)) is MachineError
    for code, words in ((sqlite3.SQLITE_FULL, "disk full"), (sqlite3.SQLITE_IOERR_FSYNC, "I/O error")):
        explained = explain(error(code), tmp_path)
        assert isinstance(explained, DiskError)
        assert words in explained.message
    assert type(explain(error(sqlite3.SQLITE_CORRUPT_VTAB), tmp_path)) is DamagedPoolError


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_keep_their_microseconds(moment: datetime) -> None:
    assert to_datetime(to_microseconds(moment)) == moment


def _tasks(ranges: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> list[int]:
    return [task for low, high in ranges for task in range(low, high)]


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["succeed", "fail", "time out", "cancel", "retry", "retry cancelled", "seal"]),
        st.sets(st.integers(0, N - 1), min_size=1, max_size=8),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions=ACTIONS)
def test_counters_equal_a_recount_after_any_history(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, set[int]]]
) -> None:
    books = Books(tmp_path_factory.mktemp("books"))
    pending = set(range(N))
    attempts = dict.fromkeys(range(N), 1)
    for step, (action, some) in enumerate(actions):
        ready = sorted(pending & some)
        if action == "succeed" and ready:
            books.succeed(*((task, task + 1) for task in ready))
        elif action in {"fail", "time out"}:
            for task in ready:
                books.fail(task, attempt=attempts[task], state="error" if action == "fail" else "timeout")
        elif action == "cancel":
            books.cancel(*((task, task + 1) for task in ready))
        elif action == "retry":
            with books.writer.transaction():
                taken = books.writer.take_up_failures(sorted(some))
            attempts.update(taken)
            pending |= {task for task, _ in taken}
        elif action == "retry cancelled":
            with books.writer.transaction():
                fresh, later = books.writer.take_up_cancelled(sorted(some))
            attempts.update(later)
            assert all(attempts[task] == 1 for task in _tasks(fresh))
            pending |= {*_tasks(fresh), *(task for task, _ in later)}
        elif action == "seal" and (ids := [each for each, _, _ in books.writer.inbox_sizes()]):
            with books.writer.transaction():
                books.writer.replace_by_segment(ids, f"segment-{step}.parquet", 1)
        if action in {"succeed", "fail", "time out", "cancel"}:
            pending -= set(ready)
        states = recount(books.paths)
        every = [task for tasks in states.values() for task in tasks]
        assert sorted(every) == sorted(set(range(N)) - pending)
    books.close()
