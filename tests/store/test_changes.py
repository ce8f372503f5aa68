from __future__ import annotations

import sqlite3
from pathlib import Path

from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import Changes, TaskState
from jobpool_cli.store import changes
from jobpool_cli.store.changes import Watch
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.state.writer import create_database


def test_a_look_at_a_pool_in_which_nothing_ended_tells_nothing(tmp_path: Path) -> None:
    paths = PoolPaths(tmp_path)
    create_database(paths.state_db)
    watch = Watch(paths)
    assert watch.look() == watch.look() == Changes()


def test_failures_are_told_once_and_again_after_a_retry(tmp_path: Path) -> None:
    paths = PoolPaths(tmp_path)
    create_database(paths.state_db)
    watch = Watch(paths)
    fail(paths, 7, 1)
    (ended,) = watch.look().listed
    assert (ended.task, ended.attempt, ended.state, ended.error) == (7, 1, TaskState.ERROR, "ValueError: no")
    assert watch.look() == Changes()
    fail(paths, 7, 2)
    (ended,) = watch.look().listed
    assert (ended.task, ended.attempt) == (7, 2)


def test_of_many_failures_the_first_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    paths = PoolPaths(tmp_path)
    create_database(paths.state_db)
    for task in range(25):
        fail(paths, task, 1)
    found = Watch(paths).look()
    assert [ended.task for ended in found.listed] == list(range(changes.LISTED_FAILURES))
    assert found.others == {TaskState.ERROR: 15}
    with StateReader(paths.state_db) as reader:
        assert reader.failures_since(24, 5)[0] == (1, 0)


def test_attempts_after_which_the_task_runs_again_are_told_apart(tmp_path: Path) -> None:
    paths = PoolPaths(tmp_path)
    create_database(paths.state_db)
    for task in range(changes.LISTED_FAILURES + 2):
        fail(paths, task, 1)
        fail(paths, task, 2)
    found = Watch(paths).look()
    assert [ended.again for ended in found.listed] == [True, False] * changes.LISTED_FAILURES
    assert (found.others, found.others_again) == ({TaskState.ERROR: 2}, 2)


def fail(paths: PoolPaths, task: int, attempt: int) -> None:
    connection = sqlite3.connect(paths.state_db)
    connection.execute("UPDATE failures SET current = 0 WHERE task = ?", (task,))
    connection.execute(
        "INSERT INTO failures (task, attempt, state, current, type, message, started, duration, udf)"
        " VALUES (?, ?, 'error', 1, 'ValueError', 'no', 1000000, 2000, 1)",
        (task, attempt),
    )
    connection.commit()
    connection.close()
