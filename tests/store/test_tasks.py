from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import pyarrow as pa
import pytest

from jobpool_cli.model import RunningTask, TaskState
from jobpool_cli.store.tasks import COLUMNS, spans_of, task_table, with_constants

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def running(task: int, attempt: int = 1) -> RunningTask:
    return RunningTask(task, attempt, worker=9, pid=1, started=EPOCH + timedelta(hours=1), elapsed=1.5, log_start=0)


def rows(books: Any, n_jobs: int, *, now: tuple[RunningTask, ...] = (), **which: Any) -> dict[int, dict[str, Any]]:
    with books.reader() as reader:
        table = task_table(books.paths, reader, n_jobs, now, **which)
    assert tuple(table.schema.names) == COLUMNS
    return {row["task"]: row for row in table.to_pylist()}


@pytest.fixture
def every_state(books: Any) -> Any:
    books.succeed([0, 1], ["a", "b"], cpu_ns={1: 500_000_000})
    books.seal()
    books.succeed([6], [1.5], attempt=2, worker=3)
    books.fail(2, message="bad\nvalue")
    books.fail(3, state="timeout", message="")
    books.fail(6, current=False)
    books.fail(7, current=False)
    with books.writer.transaction():
        books.writer.cancel(((4, 5),))
        books.writer.set_attempts([(6, 2, 2), (7, 2, 2)])
    return books


def test_every_task_has_one_row_and_one_state(every_state: Any) -> None:
    found = rows(every_state, 10, now=(running(5), running(7, 2)))
    assert {task: row["state"] for task, row in found.items()} == {
        0: "success",
        1: "success",
        2: "error",
        3: "timeout",
        4: "cancelled",
        5: "running",
        6: "success",
        7: "running",
        8: "pending",
        9: "pending",
    }


def test_a_row_holds_the_facts_of_the_attempt_that_counts(every_state: Any) -> None:
    found = rows(every_state, 10, now=(running(5),))
    assert found[1] == {
        "task": 1,
        "state": "success",
        "attempt": 1,
        "started": EPOCH + timedelta(seconds=1),
        "duration": 1e-6,
        "cpu": 0.5,
        "worker": 1,
        "udf": 1,
        "error": None,
    }
    assert (found[0]["cpu"], found[6]["attempt"], found[6]["worker"], found[6]["error"]) == (None, 2, 3, None)
    assert (found[2]["error"], found[2]["duration"]) == ("ValueError: bad\nvalue", 2.0)
    assert found[3]["error"] == "ValueError"
    assert (found[5]["duration"], found[5]["worker"], found[5]["udf"]) == (1.5, 9, None)
    assert (found[7]["state"], found[7]["attempt"], found[7]["started"]) == ("pending", 2, None)
    assert {found[8][name] for name in COLUMNS[2:]} == {None}


def test_what_was_seen_running_and_has_ended_since_shows_its_end(every_state: Any) -> None:
    found = rows(every_state, 10, now=(running(0), running(2), running(6, 2)))
    assert [found[task]["state"] for task in (0, 2, 6)] == ["success", "error", "success"]
    assert found[0]["worker"] == 1


def test_chosen_tasks_have_the_same_rows_as_among_all(every_state: Any) -> None:
    everything = rows(every_state, 10, now=(running(5),))
    chosen = rows(every_state, 10, now=(running(5),), tasks=[9, 0, 2, 5, 4, 0, 6])
    assert chosen == {task: everything[task] for task in (0, 2, 4, 5, 6, 9)}
    assert list(chosen) == sorted(chosen)
    assert rows(every_state, 10, tasks=[]) == {}


@pytest.mark.parametrize(
    "states", [["error"], ["error", "timeout"], ["success", "cancelled"], ["pending"], list(TaskState)]
)
def test_chosen_states_have_the_same_rows_as_among_all(every_state: Any, states: list[str]) -> None:
    everything = rows(every_state, 10, now=(running(5),))
    chosen = rows(every_state, 10, now=(running(5),), states=[TaskState(state) for state in states])
    assert chosen == {task: row for task, row in everything.items() if row["state"] in states}


@pytest.mark.parametrize("first_look", [1, 4, 100])
@pytest.mark.parametrize("limit", [0, 1, 3, 10, 99])
@pytest.mark.parametrize("states", [None, ["success"], ["pending", "error"], ["timeout"], list(TaskState)])
def test_a_limit_leaves_the_first_rows(
    every_state: Any, states: list[str] | None, limit: int, first_look: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobpool_cli.store.tasks.FIRST_LOOK", first_look)
    which: dict[str, Any] = {"states": None if states is None else [TaskState(state) for state in states]}
    everything = rows(every_state, 10, now=(running(5),), **which)
    limited = rows(every_state, 10, now=(running(5),), limit=limit, **which)
    assert list(limited.items()) == list(everything.items())[:limit]
    chosen = rows(every_state, 10, now=(running(5),), limit=limit, tasks=[9, 6, 2], **which)
    assert list(chosen.values()) == [everything[task] for task in (2, 6, 9) if task in everything][:limit]


def test_the_first_rows_of_a_pool_are_read_without_the_rest(books: Any) -> None:
    books.succeed([0, 1, 2], [0, 0, 0])
    books.seal()
    books.succeed([500_000], [0])
    books.seal()
    last = max(books.paths.results.iterdir())
    last.write_bytes(b"damaged")
    assert [row["state"] for row in rows(books, 1_000_000, limit=3).values()] == ["success"] * 3
    assert list(rows(books, 1_000_000, limit=2, states=[TaskState.PENDING])) == [3, 4]


def test_a_pool_without_tasks_has_an_empty_table(books: Any) -> None:
    assert rows(books, 0) == {}
    assert rows(books, 0, limit=5) == {}


def test_a_million_tasks_take_about_a_second(books: Any) -> None:
    for low in range(0, 1_000_000, 100_000):
        books.succeed(range(low, low + 100_000), range(100_000))
    books.seal()
    with books.reader() as reader:
        before = perf_counter()
        table = task_table(books.paths, reader, 1_000_000, ())
        took = perf_counter() - before
    assert table.num_rows == 1_000_000
    assert took < 5, f"{took:.1f} s"  # a quarter of a second alone on two cores; the machine may be busy


def test_far_tasks_are_read_in_a_few_pieces() -> None:
    assert spans_of([5, 3, 1_000_000, 4]) == [(3, 6), (1_000_000, 1_000_001)]
    assert spans_of([]) == []
    assert spans_of(range(0, 100_000_000, 1_000_000)) == [(0, 99_000_001)]


def test_constants_stand_beside_the_arguments_of_every_task() -> None:
    numbers, arguments = with_constants(pa.table({"x": [1, 2]}), {"unit": "km", "odd": object}, [4, 7])
    assert numbers.to_pylist() == [{"task": 4}, {"task": 7}]
    assert arguments.to_pylist() == [
        {"x": 1, "unit": "km", "odd": "<class 'object'>"},
        {"x": 2, "unit": "km", "odd": "<class 'object'>"},
    ]
    _, arguments = with_constants(pa.table({}), {"n": 5}, range(3))
    assert arguments.to_pylist() == [{"n": 5}] * 3
