"""What a worker measures and mends around tasks, seen in pools that really run."""

from __future__ import annotations

from typing import Any

import pytest

from jobpool_cli.model import PoolOptions, TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.store.outcomes.segments import read_outcomes
from jobpool_cli.store.state.reader import StateReader
from tests.helpers import Bench, check_invariants, results_of, until

pytestmark = pytest.mark.timeout(100)

ONE_WORKER = PoolOptions(workers=1)


def outcomes(pool: JobPool[Any]) -> list[dict[str, Any]]:
    columns = ["task", "duration_ns", "cpu_ns", "worker", "log_start", "log_end"]
    with StateReader(pool.paths.state_db) as reader:
        rows = [row for table in read_outcomes(pool.paths, reader, columns) for row in table.to_pylist()]
    return sorted(rows, key=lambda row: row["task"])


def log_of(pool: JobPool[Any], row: dict[str, Any]) -> bytes:
    (path,) = [
        each for each in pool.paths.logs.iterdir() if int("".join(filter(str.isdigit, each.stem))) == row["worker"]
    ]
    return path.read_bytes()[row["log_start"] : row["log_end"]]


def test_the_cpu_time_of_short_tasks_is_never_put_on_the_long_task_after_them(bench: Bench) -> None:
    body = "def f(x: int):\n    if x % 2000 == 1999:\n        time.sleep(0.002)\n    return x\n"
    pool = bench.map(body, 40_000, options=ONE_WORKER)
    pool.follow(60)
    measured = [row for row in outcomes(pool) if row["cpu_ns"] is not None and row["duration_ns"] > 1_900_000]
    # Against the wall time, not the clock on the wall: a loaded machine stretches both.
    assert all(row["cpu_ns"] < 2 * row["duration_ns"] for row in measured)


def test_long_tasks_one_after_another_have_their_cpu_time(bench: Bench) -> None:
    body = "def f(x: int):\n    end = time.thread_time() + 0.004\n    while time.thread_time() < end: pass\n"
    pool = bench.map(body, 50, options=ONE_WORKER)
    pool.follow(60)
    measured = [(row["cpu_ns"], row["duration_ns"]) for row in outcomes(pool) if row["cpu_ns"] is not None]
    assert len(measured) > 10
    assert all(3_900_000 < cpu < 2 * wall for cpu, wall in measured)


def test_a_task_that_turns_descriptor_1_elsewhere_spoils_no_other_task_s_log(bench: Bench) -> None:
    body = (
        "OTHER = os.open(os.path.join(FOLDER, 'other'), os.O_WRONLY | os.O_CREAT)\nos.write(OTHER, b'x' * 1000)\n"
        "def f(x: int):\n    print('task', x)\n    if x % 10 == 3:\n        os.dup2(OTHER, 1)\n"
        "    if x % 10 == 4:\n        os.write(1, b'descriptor\\n')\n"
    )
    pool = bench.map(body, 60, options=ONE_WORKER)
    pool.follow(60)
    for row in outcomes(pool):
        expected = f"task {row['task']}\n" + ("descriptor\n" if row["task"] % 10 == 4 else "")
        assert log_of(pool, row) == expected.encode()


def test_a_task_that_fails_with_its_streams_closed_takes_no_other_with_it(bench: Bench) -> None:
    body = (
        "def f(x: int):\n    if x % 10 == 3:\n        sys.stdout.close()\n        sys.stderr = None\n"
        "        os.close(1)\n        raise ValueError(x)\n    print('task', x)\n    return x\n"
    )
    pool = bench.map(body, 60, options=ONE_WORKER)
    status = pool.follow(60)
    assert (status.counts[TaskState.SUCCESS], status.counts[TaskState.ERROR]) == (54, 6)
    assert {failure.type for failure in pool.failures()} == {"ValueError"}
    assert all(log_of(pool, row) == f"task {row['task']}\n".encode() for row in outcomes(pool))
    check_invariants(pool, lambda x: x)


def test_a_batch_whose_arguments_cannot_be_read_tells_so_once_in_the_log(bench: Bench) -> None:
    # Two row groups: the worker holds the first one when the second is cut off.
    pool = bench.map("def f(x: int):\n    _wait_for('go')\n    return x\n", 69_000, options=ONE_WORKER)
    until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 1)
    with pool.paths.args.open("r+b") as file:
        file.truncate(4)
    bench.release("go")
    status = pool.follow(60)
    assert status.finished == 69_000
    assert status.failed > 3000
    assert {failure.type for failure in pool.failures()} == {"DamagedPoolError"}
    logged = b"".join(each.read_bytes() for each in pool.paths.logs.iterdir())
    assert 1 <= logged.count(b"cannot be read") < 50


def test_code_that_a_running_worker_loads_keeps_its_place_on_the_path(bench: Bench) -> None:
    second = bench.folder / "second"
    second.mkdir()
    body = (
        "def f(x: int):\n    if x == 0 and {fails}:\n        raise ValueError(x)\n    if x == 1 and {fails}:\n"
        "        _wait_for('go')\n    time.sleep(0.001)\n"
        "    return [each for each in sys.path if each in (FOLDER, FOLDER + '/second')]\n"
    )
    pool = bench.map(body.format(fails=True), 40, options=ONE_WORKER)
    until(lambda: pool.snapshot().counts[TaskState.ERROR] == 1)
    pool.retry(udf=bench.write(body.format(fails=False), "second/pool_job.py"))
    bench.release("go")
    pool.follow(60)
    results = results_of(pool)
    assert results[1] == [str(bench.folder)]
    assert results[39] == [str(second)]
