from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from jobpool_cli.errors import MachineError
from jobpool_cli.model import RunningTask, TaskState
from jobpool_cli.store.logs import (
    STILL_OPEN,
    TaskLog,
    end_of_running,
    find_logs,
    follow_task,
    follow_workers,
)


def running(task: int, attempt: int = 1, worker: int = 1, log_start: int = 0) -> RunningTask:
    return RunningTask(task, attempt, worker, 1, datetime.now(UTC), 1.0, log_start)


def logs(books: Any, *now: RunningTask, **which: Any) -> list[TaskLog]:
    with books.reader() as reader:
        return list(find_logs(books.paths, reader, now, **which))


def text(log: TaskLog) -> bytes:
    return b"".join(log.chunks())


@pytest.fixture
def written(books: Any) -> Any:
    books.paths.worker_log(1).write_bytes(b"zero\none\nsecond line\nold three\n")
    books.paths.worker_log(2).write_bytes(b"new three\nfour")
    books.succeed([0, 1, 2], [0, 0, 0], log=([0, 5, 21], [5, 21, 21]))
    books.seal()
    books.fail(3, current=False, log=(21, 31), worker=1)
    books.fail(3, attempt=2, state="timeout", log=(0, 10), worker=2)
    return books


def test_each_task_has_its_bytes_and_silent_ones_are_left_out(written: Any) -> None:
    found = logs(written)
    assert [(log.task, log.state, log.attempt, text(log)) for log in found] == [
        (0, "success", 1, b"zero\n"),
        (1, "success", 1, b"one\nsecond line\n"),
        (3, "timeout", 2, b"new three\n"),
    ]


def test_a_success_that_wrote_nothing_hides_what_the_failed_attempt_before_it_wrote(written: Any) -> None:
    written.fail(4, current=False, log=(10, 14), worker=2)
    assert [log.task for log in logs(written)] == [0, 1, 3, 4]
    written.succeed([4], [0], attempt=2, log=([31], [31]))
    assert [log.task for log in logs(written)] == [0, 1, 3]


def test_asked_for_by_number_a_silent_task_has_an_empty_log_and_a_pending_one_has_none(written: Any) -> None:
    assert [(log.task, text(log)) for log in logs(written, tasks=[9, 2, 0])] == [(0, b"zero\n"), (2, b"")]


def test_an_earlier_attempt_keeps_its_log(written: Any) -> None:
    assert [text(log) for log in logs(written, tasks=[3], attempt=1)] == [b"old three\n"]
    assert logs(written, tasks=[0], attempt=2) == []


def test_a_running_task_comes_before_what_is_on_record_of_it(written: Any) -> None:
    found = logs(written, running(3, attempt=3, worker=2, log_start=10), tasks=[3])
    assert [(log.state, log.attempt, log.start, log.end) for log in found] == [(TaskState.RUNNING, 3, 10, STILL_OPEN)]
    recorded = logs(written, running(0), tasks=[0])
    assert recorded[0].state is TaskState.SUCCESS


def test_a_running_tasks_log_ends_where_the_file_ends_now(written: Any) -> None:
    now = running(4, worker=2, log_start=10)
    (log,) = logs(written, now, tasks=[4])
    with written.reader() as reader:
        assert text(end_of_running(log, written.paths, reader, lambda: [now])) == b"four"


def test_a_task_that_ends_while_one_looks_has_the_end_of_its_record(written: Any) -> None:
    # The worker is at another task already, whose output follows.
    written.paths.worker_log(2).write_bytes(b"new three\nfour\nfive\n")
    (log,) = logs(written, running(4, worker=2, log_start=10), tasks=[4])
    looks = 0

    def look() -> list[RunningTask]:
        nonlocal looks
        looks += 1
        if looks == 3:
            written.succeed([4], [0], worker=2, log=([10], [15]))
        return [running(5, worker=2, log_start=15)]

    with written.reader() as reader:
        assert text(end_of_running(log, written.paths, reader, look)) == b"four\n"


# --- what is not there


def log_of(path: Path, content: bytes, start: int = 0, end: int | None = None) -> TaskLog:
    path.write_bytes(content)
    return TaskLog(0, 1, TaskState.SUCCESS, 1, path, start, len(content) if end is None else end)


def test_a_range_past_the_end_gives_what_exists(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", b"abcdef", 2, 10).existing()
    assert (text(log), log.missing) == (b"cdef", 4)
    log = log_of(tmp_path / "log", b"abc", 20, 25).existing()
    assert (text(log), log.missing) == (b"", 5)
    log = TaskLog(0, 1, TaskState.ERROR, 1, tmp_path / "gone", 2, 5).existing()
    assert (text(log), log.missing) == (b"", 3)


@pytest.mark.parametrize("zeros", [64, 70_000])
def test_a_tail_of_zeros_is_missing(tmp_path: Path, zeros: int) -> None:
    log = log_of(tmp_path / "log", b"line\n" + bytes(zeros)).existing()
    assert (text(log), log.missing) == (b"line\n", zeros)
    log = log_of(tmp_path / "log", b"line\n" + bytes(zeros), start=5).existing()
    assert (text(log), log.missing) == (b"", zeros)


def test_zeros_that_were_written_stay(tmp_path: Path) -> None:
    for content in (b"a\0b\0", b"\0" * 100 + b"x\n", b"x\0\n", b"\0\0", b""):
        log = log_of(tmp_path / "log", content).existing()
        assert (text(log), log.missing) == (content, 0)


def test_a_log_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "log").symlink_to(tmp_path / "secret")
    log = TaskLog(0, 1, TaskState.SUCCESS, 1, tmp_path / "log", 0, 6)
    with pytest.raises(MachineError, match="cannot be read"):
        text(log)


# --- the last lines


@pytest.mark.parametrize(
    ("content", "count", "expected"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 3, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\n\n\n", 2, b"\n\n"),
        (b"a\nb", 0, b""),
        (b"", 3, b""),
        (b"no end", 1, b"no end"),
    ],
)
def test_the_last_lines_are_the_last_lines(tmp_path: Path, content: bytes, count: int, expected: bytes) -> None:
    assert text(log_of(tmp_path / "log", content).last_lines(count)) == expected
    inside = log_of(tmp_path / "log", b"before\n" + content + b"after\n", 7, 7 + len(content))
    assert text(inside.last_lines(count)) == expected


def test_lines_longer_than_a_piece_are_found(tmp_path: Path) -> None:
    content = b"".join(bytes([65 + number]) * 100_000 + b"\n" for number in range(5))
    assert text(log_of(tmp_path / "log", content).last_lines(2)) == content[-200_002:]


@pytest.mark.parametrize("layout", ["lines at the end", "lines at the start", "few lines at the end"])
def test_the_last_lines_of_a_sparse_log_of_5_gb_are_there_at_once(tmp_path: Path, layout: str) -> None:
    path, size = tmp_path / "log", 5 << 30
    lines = b"".join(b"line %d\n" % number for number in range(100))
    with path.open("wb") as file:
        if layout == "lines at the start":
            file.write(lines)
            file.truncate(size)
        else:
            file.seek(size - len(lines))
            file.write(lines)
    log = TaskLog(0, 1, TaskState.SUCCESS, 1, path, 0, size)
    count = 10 if layout != "few lines at the end" else 1000
    before = perf_counter()
    found = text(log.existing().last_lines(count))
    assert perf_counter() - before < 1
    assert found.lstrip(b"\0") == b"".join(lines.splitlines(keepends=True)[-count:])
    assert len(found) < 100_000


# --- following


def test_following_a_task_gives_all_it_writes_and_ends_with_it(written: Any) -> None:
    path = written.paths.worker_log(2)
    now = [running(4, worker=2, log_start=10)]
    seen: list[bytes] = []
    with written.reader() as reader:
        followed = follow_task(written.paths, reader, 4, lambda: now, lambda: False)
        for step, (_, chunk) in enumerate(followed):
            seen.append(chunk)
            if step < 3:
                with path.open("ab") as file:
                    file.write(b" more %d" % step)
            elif now:
                now.clear()
                with path.open("ab") as file:
                    file.write(b" end\nanother task's\n")
                written.succeed([4], [0], worker=2, log=([10], [path.stat().st_size - 15]))
    assert b"".join(seen) == b"four more 0 more 1 more 2 end\n"


def test_following_begins_with_the_last_lines_if_asked(written: Any) -> None:
    with written.reader() as reader:
        followed = follow_task(written.paths, reader, 1, list, lambda: False, tail=1)
        assert b"".join(chunk for _, chunk in followed) == b"second line\n"


def test_following_goes_on_with_the_next_attempt(written: Any) -> None:
    written.fail(5, state="crash", current=False, log=(14, 14), worker=2)
    path = written.paths.worker_log(3)
    path.write_bytes(b"")
    looks = 0

    def look() -> list[RunningTask]:
        nonlocal looks
        looks += 1
        if looks == 4:
            path.write_bytes(b"second try\n")
            written.succeed([5], [0], attempt=2, worker=3, log=([0], [11]))
        return [running(5, 2, worker=3)] if looks in (2, 3) else []

    with written.reader() as reader:
        followed = follow_task(written.paths, reader, 5, look, lambda: False)
        assert b"".join(chunk for _, chunk in followed) == b"second try\n"


def test_following_a_task_that_nobody_will_run_ends(written: Any) -> None:
    with written.reader() as reader:
        assert list(follow_task(written.paths, reader, 99, list, lambda: True)) == []


def test_what_an_interrupted_task_wrote_last_is_shown(written: Any) -> None:
    path = written.paths.worker_log(2)
    looks = iter([[running(4, worker=2, log_start=10)]] * 2)
    over = iter([False, True, True])
    seen = []
    with written.reader() as reader:
        for _, chunk in follow_task(written.paths, reader, 4, lambda: next(looks, []), lambda: next(over)):
            seen.append(chunk)
            if len(seen) == 1:
                with path.open("ab") as file:
                    file.write(b" last words")
    assert b"".join(seen) == b"four last words"


def test_following_all_workers_names_the_task_that_surely_wrote_it(written: Any) -> None:
    now = [running(4, worker=2, log_start=10)]
    seen = []
    over = iter([False, False, True, True])
    for piece in follow_workers(written.paths, lambda: now, lambda: next(over)):
        seen.append((piece.worker, piece.task, piece.data))
        if len(seen) == 1:
            now[:] = []
            written.paths.worker_log(1).write_bytes(written.paths.worker_log(1).read_bytes() + b"x")
            written.paths.worker_log(7).write_bytes(b"new worker\n")
    assert seen == [(2, 4, b"four"), (1, None, b"x"), (7, None, b"new worker\n")]


def test_reading_a_log_holds_a_piece_of_it_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(10 << 20)
    log = TaskLog(0, 1, TaskState.SUCCESS, 1, path, 0, 10 << 20)
    assert max(map(len, log.chunks())) <= 1 << 20
    assert os.path.getsize(path) == sum(map(len, log.chunks()))
