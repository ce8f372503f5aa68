"""What commands ask of a pool that runs, rests or ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from jobpool_cli.errors import ConflictError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import PoolOptions, PoolState, TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.removal import remove
from jobpool_cli.supervisor.launch import launch
from tests.helpers import (
    Bench,
    check_invariants,
    kill_supervisor,
    marked,
    results_of,
    square,
    succeeded,
    supervisors,
    until,
)

pytestmark = pytest.mark.timeout(100)


def test_cancel_stops_what_is_pending_lets_running_tasks_end_and_retry_takes_it_up(bench: Bench) -> None:
    body = "def f(x: int):\n    _audit()\n    _wait_for('go') if x >= 2 else None\n    return x * x\n"
    pool = bench.map(body, 8000)
    until(lambda: len(pool.running_tasks()) == 2 and min(each.task for each in pool.running_tasks()) >= 2)
    answer = pool.cancel()
    assert answer["cancelled"] >= 7996
    assert 2 <= answer["running"] <= 4
    assert pool.snapshot().counts[TaskState.CANCELLED] == answer["cancelled"]
    assert pool.snapshot().state is PoolState.RUNNING
    bench.release("go")
    status = pool.follow(30)
    assert status.counts[TaskState.SUCCESS] == 4
    assert status.counts[TaskState.CANCELLED] == 7996
    check_invariants(pool, square)
    shown = succeeded(pool)
    assert {task for task, _ in bench.audit()} == shown, "what ran to its end is a success, what is cancelled never ran"
    assert pool.retry(cancelled=True) == {"retried": 0, "cancelled": 7996}
    assert pool.follow(60).counts[TaskState.SUCCESS] == 8000
    assert max(bench.audit().values()) == 1
    assert {attempt for _, attempt in bench.audit()} == {1}
    check_invariants(pool, square, shown=shown)


def test_cancel_running_ends_the_task_and_what_it_started_and_a_retry_is_a_further_attempt(bench: Bench) -> None:
    body = """
def f(x: int):
    _audit()
    if x == 1 and jobpool_cli.current_task().attempt == 1:
        child = subprocess.Popen(["sleep", "999"], start_new_session=True)
        open(os.path.join(FOLDER, "child"), "w").write(str(child.pid))
        time.sleep(99)
    return x * x
"""
    pool = bench.map(body, 4)
    until(lambda: (bench.folder / "child").exists() and pool.snapshot().finished == 3)
    child = int((bench.folder / "child").read_text() or 0)
    assert child in marked(pool)
    pool.cancel(running=True, wait=True, timeout=30)
    until(lambda: not marked(pool), 5.0, "the child that made itself a session is gone")
    assert pool.snapshot().counts[TaskState.CANCELLED] == 1
    check_invariants(pool, square)
    assert pool.retry([1]) == {"retried": 0, "cancelled": 1}
    pool.follow(30)
    assert bench.audit()[1, 2] == 1
    check_invariants(pool, square)


def test_pause_holds_the_pool_until_resume(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _audit()\n    time.sleep(0.005)\n    return x * x\n", 400)
    until(lambda: pool.snapshot().finished > 30)
    pool.pause()
    until(lambda: not pool.running_tasks())
    status = pool.snapshot()
    assert status.state is PoolState.PAUSED
    ran = len(bench.audit())
    later = time.monotonic() + 0.3
    until(lambda: time.monotonic() > later)
    assert len(bench.audit()) == ran < 400
    pool.resume()
    assert pool.follow(60).counts[TaskState.SUCCESS] == 400
    assert max(bench.audit().values()) == 1
    check_invariants(pool, square)


def test_shutdown_leaves_the_rest_pending_and_resume_runs_it(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _audit()\n    time.sleep(0.005)\n    return x * x\n", 300)
    until(lambda: pool.snapshot().finished > 30)
    pool.shutdown()
    assert pool.snapshot().state is PoolState.INTERRUPTED
    assert pool.snapshot().reason == "shut down"
    check_invariants(pool, square)
    pool.resume()
    assert pool.follow(60).counts[TaskState.SUCCESS] == 300
    assert max(bench.audit().values()) == 1
    check_invariants(pool, square)


def test_resume_calls_a_shutdown_off(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _wait_for('go')\n    return x * x\n", 6)
    until(lambda: len(pool.running_tasks()) == 2)
    refused: list[ConflictError] = []

    def shut_down() -> None:
        try:
            pool.shutdown(timeout=30)
        except ConflictError as error:
            refused.append(error)

    thread = threading.Thread(target=shut_down)
    thread.start()
    until(lambda: pool.snapshot().reason == "it is being shut down")
    assert pool.resume().state is PoolState.RUNNING
    thread.join(30)
    assert "resumed" in refused[0].message
    bench.release("go")
    assert pool.follow(30).counts[TaskState.SUCCESS] == 6
    check_invariants(pool, square)


def test_a_pool_that_ends_while_it_is_paused_is_not_paused_when_tasks_are_retried(bench: Bench) -> None:
    body = "def f(x: int):\n    _wait_for('go')\n    return 1 // (jobpool_cli.current_task().attempt - 1)\n"
    pool = bench.map(body, 1)
    until(pool.running_tasks)
    pool.pause()
    bench.release("go")
    assert pool.follow(30).failed == 1
    assert pool.retry()["retried"] == 1
    assert pool.follow(30).counts[TaskState.SUCCESS] == 1
    check_invariants(pool)


def test_failed_tasks_are_retried_while_others_run(bench: Bench) -> None:
    body = """
def f(x: int):
    _audit()
    if x < 2:
        _wait_for("go")
    if x % 10 == 5 and jobpool_cli.current_task().attempt == 1:
        raise ValueError(f"no {x}")
    return x * x
"""
    # The first two workers get a waiting task each; the third does all the rest.
    pool = bench.map(body, 62, options=PoolOptions(workers=3))
    until(lambda: pool.snapshot().failed == 6, what="all that shall fail failed")
    assert pool.retry() == {"retried": 6, "cancelled": 0}
    until(lambda: pool.snapshot().counts[TaskState.SUCCESS] == 60, what="the retried ones succeed meanwhile")
    assert pool.snapshot().counts[TaskState.RUNNING] == 2
    bench.release("go")
    status = pool.follow(30)
    assert status.counts[TaskState.SUCCESS] == 62
    audit = bench.audit()
    assert [audit[task, 2] for task in range(5, 65, 10)] == [1] * 6
    assert [(each.task, each.current) for each in pool.failures(history=True)] == [(x, False) for x in range(5, 65, 10)]
    assert status.retry_time is not None
    check_invariants(pool, square)


def test_retries_are_given_to_failures_by_themselves(bench: Bench) -> None:
    body = """
def f(x: int):
    _audit()
    attempt = jobpool_cli.current_task().attempt
    if x == 1 or (x == 2 and attempt < 3):
        raise RuntimeError(f"attempt {attempt}")
    return x * x
"""
    pool = bench.map(body, 10, options=PoolOptions(workers=2, retries=2))
    status = pool.follow(30)
    assert (status.counts[TaskState.SUCCESS], status.counts[TaskState.ERROR]) == (9, 1)
    (failure,) = pool.failures()
    assert (failure.task, failure.attempt, failure.message) == (1, 3, "attempt 3")
    assert [(each.task, each.attempt, each.current) for each in pool.failures(history=True)] == [
        (1, 1, False), (1, 2, False), (1, 3, True), (2, 1, False), (2, 2, False),
    ]  # fmt: skip
    check_invariants(pool, square)


def test_mended_code_runs_what_failed_and_its_siblings_are_found(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _audit()\n    return 1 // x * 0 + x * x\n", 5)
    assert pool.follow(30).counts[TaskState.ERROR] == 1
    (bench.folder / "late_sibling.py").write_text("ANSWER = 0\n")
    mended = bench.write(
        "def f(x: int):\n    _audit()\n    from late_sibling import ANSWER\n    return ANSWER\n", "mended.py"
    )
    assert pool.retry(udf=mended)["retried"] == 1
    status = pool.follow(30)
    assert status.counts[TaskState.SUCCESS] == 5
    assert status.udf_versions == {1: 4, 2: 1}
    check_invariants(pool, square)


def test_mended_code_changes_nothing_where_no_task_is_taken_up(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _wait_for('go') if x else None\n    return x * x\n", 4)
    mended = bench.write("def f(x: int):\n    return -1\n", "mended.py")
    assert pool.retry(udf=mended) == {"retried": 0, "cancelled": 0}
    bench.release("go")
    status = pool.follow(30)
    assert status.udf_versions == {1: 4}
    assert status.retry_time is None
    assert [each.name for each in pool.paths.udf.iterdir()] == ["v1"]
    check_invariants(pool, square)


def test_mended_code_must_take_the_pending_tasks_too_and_runs_them(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _wait_for('go') if x else 1 // 0\n    return x * x\n", 4)
    until(lambda: pool.snapshot().failed == 1 and len(pool.running_tasks()) == 2)
    (pool.paths.udf / "v7.bak").mkdir()
    answer = pool.retry(udf=bench.write("def f(x: int):\n    return x * x\n", "mended.py"))
    assert answer == {"retried": 1, "cancelled": 0, "pending": 1}
    bench.release("go")
    assert pool.follow(30).udf_versions == {1: 2, 2: 2}
    check_invariants(pool, square)


def test_a_batch_that_a_worker_has_read_and_not_begun_does_not_run_with_old_code(bench: Bench) -> None:
    body = "def f(x: int):\n    time.sleep(0.01)\n    return 1 // 0 if x < 2 else x * x\n"
    pool = bench.map(body, 400, options=PoolOptions(workers=1))
    until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > 20)
    pool.pause()
    until(lambda: not pool.running_tasks())
    # In the worker, whose first batch waits for it to be imported; not where `retry` looks at it.
    slow = "if 'jobpool_cli.worker.loop' in sys.modules:\n    open(os.path.join(FOLDER, 'importing'), 'w').close()\n"
    slow += "    _wait_for('import')\ndef f(x: int):\n    _audit('old')\n    return x * x\n"
    pool.retry([0], udf=bench.write(slow, "slow.py"))
    pool.resume()
    until((bench.folder / "importing").exists)
    pool.retry(udf=bench.write("def f(x: int):\n    return x * x\n", "mended.py"))
    bench.release("import")
    pool.follow(60)
    assert bench.audit("old").total() <= 1
    check_invariants(pool, square)


def test_mended_code_helps_an_interrupted_pool_whose_code_does_not_load_any_more(bench: Bench) -> None:
    body = "assert not os.path.exists(os.path.join(FOLDER, 'broken'))\n"
    body += "def f(x: int):\n    _wait_for('go') if x else 1 // 0\n    return x * x\n"
    pool = bench.map(body, 4)
    until(lambda: pool.snapshot().failed == 1)
    kill_supervisor(pool)
    bench.release("broken")
    assert pool.retry(udf=bench.write("def f(x: int):\n    return x * x\n", "mended.py"))["retried"] == 1
    assert pool.follow(30).udf_versions == {2: 4}
    check_invariants(pool, square)


def test_rm_by_force_ends_a_supervisor_that_is_stopped_though_pool_json_is_damaged(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _wait_for('go')\n", 4)
    root = pool.paths.root
    (pid,) = supervisors(root)
    os.kill(pid, signal.SIGSTOP)
    pool.paths.pool_json.write_text("{")
    with pytest.raises(ConflictError, match="being worked on"):
        remove(root)
    remove(root, force=True)
    until(lambda: not supervisors(root) and not marked(pool))
    assert not root.exists()


def test_a_pool_that_is_being_removed_cannot_be_resumed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = bench.map("def f(x: int):\n    _wait_for('go')\n", 4)
    kill_supervisor(pool)
    tried = []

    def rename(source: Path, target: Path) -> None:
        with pytest.raises(ConflictError):
            launch(pool.paths)
        tried.append(target)
        os.replace(source, target)

    monkeypatch.setattr("jobpool_cli.removal.os.rename", rename)
    remove(pool.paths.root)
    assert len(tried) == 1
    assert not pool.paths.root.exists()


def test_a_pool_that_somebody_resumed_before_map_could_start_it_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quicker(paths: PoolPaths, _standby: None) -> None:
        launch(paths)
        launch(paths)

    monkeypatch.setattr("jobpool_cli.submit.launch", quicker)
    pool = bench.map("def f(x: int):\n    return x * x\n", 4)
    assert pool.follow(30).counts[TaskState.SUCCESS] == 4
    check_invariants(pool, square)


def test_a_pool_started_by_a_task_outlives_that_task_s_pool(bench: Bench) -> None:
    inner = bench.write("def g(x: int):\n    _wait_for('go')\n    return x\n", "inner.py")
    (bench.folder / "inner.csv").write_text("x\n1\n2\n")
    body = f"""
def f(x: int):
    from pathlib import Path
    from jobpool_cli.model import PoolOptions
    from jobpool_cli.submit import check, submit
    checked = check({inner!r}, {str(bench.folder / "inner.csv")!r}, constants={{}}, options=PoolOptions())
    return str(submit(checked, Path({str(bench.home)!r}), "inner").root)
"""
    outer = bench.map(body, 1)
    outer.follow(30)
    check_invariants(outer)
    (root,) = results_of(outer).values()
    inner_pool: JobPool[object] = JobPool(Path(str(root)))
    assert inner_pool.snapshot().state is PoolState.RUNNING
    bench.release("go")
    inner_pool.wait(30)
    check_invariants(inner_pool)
