"""Pools with real processes, and what befalls them; ``check_invariants`` after each."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobpool_cli.errors import ConflictError, InputError, MachineError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import PoolOptions, PoolState, TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.submit import remove
from jobpool_cli.supervisor.launch import launch
from tests.helpers import (
    Bench,
    check_invariants,
    kill_supervisor,
    marked,
    results_of,
    succeeded,
    supervisors,
    until,
)

pytestmark = pytest.mark.timeout(100)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def square(x: int) -> int:
    return x * x


# --- the supervisor dies


def test_after_kill_9_of_the_supervisor_resume_runs_only_what_is_unfinished(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _audit()\n    time.sleep(0.004)\n    return x * x\n", 1500)
    until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > 200)
    kill_supervisor(pool)
    until(lambda: not marked(pool), 1.0, "the workers are gone within a second")
    status = pool.snapshot()
    shown = succeeded(pool)
    assert status.state is PoolState.INTERRUPTED
    assert "killed" in status.reason
    assert len(shown) == status.counts[TaskState.SUCCESS] >= 200
    ran_before = bench.audit()

    pool.resume()
    assert pool.wait(60).counts[TaskState.SUCCESS] == 1500
    ran_after = bench.audit() - ran_before
    assert not {task for task, _ in ran_after} & shown
    check_invariants(pool, square, shown=shown)


def test_supervisor_and_workers_killed_together_leave_a_pool_that_resumes(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _audit()\n    time.sleep(0.002)\n    return x * x\n", 600)
    for goal in (50, 200, 350):
        until(lambda goal=goal: pool.snapshot().counts[TaskState.SUCCESS] >= goal)  # type: ignore[misc]
        for pid in [*supervisors(pool.paths.root), *marked(pool)]:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not pool.is_live())
        shown = succeeded(pool)
        assert pool.resume().state in {PoolState.RUNNING, PoolState.DONE}
    pool.wait(60)
    check_invariants(pool, square, shown=shown)


def test_a_supervisor_told_to_end_says_so_and_loses_nothing(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    time.sleep(0.01)\n    return x * x\n", 400)
    until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > 20)
    os.kill(supervisors(pool.paths.root)[0], signal.SIGTERM)
    until(lambda: not pool.is_live())
    assert pool.snapshot().state is PoolState.INTERRUPTED
    assert "SIGTERM" in pool.snapshot().reason
    shown = succeeded(pool)
    check_invariants(pool, square, shown=shown)
    pool.resume()
    pool.wait(60)
    check_invariants(pool, square, shown=shown)


def test_a_second_supervisor_is_refused(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _wait_for('go')\n    return x\n", 2)
    with pytest.raises(ConflictError, match="running already"):
        pool.resume()
    bench.release("go")
    pool.wait(30)
    check_invariants(pool)


def test_a_paused_pool_whose_supervisor_was_killed_resumes(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    time.sleep(0.01)\n    return x * x\n", 100)
    pool.pause()
    kill_supervisor(pool)
    assert pool.snapshot().state is PoolState.INTERRUPTED
    pool.resume()
    pool.wait(30)
    check_invariants(pool, square)


# Plays the supervisor up to its last commit, and dies before it seals.
UNSEALED = """
import os
from jobpool_cli.supervisor import __main__, loop
loop.Supervisor._seal_rest = lambda self: os.kill(os.getpid(), 9)
__main__.main()
"""


def test_a_pool_killed_before_it_sealed_is_interrupted_and_resume_only_seals(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _audit()\n    _wait_for('go')\n    return x * x\n", 20)
    until(lambda: len(bench.audit()) == 2)
    kill_supervisor(pool)
    bench.release("go")
    with open(os.devnull, "wb") as report:
        subprocess.run(
            [sys.executable, "-c", UNSEALED, str(pool.paths.root), f"--report={report.fileno()}"],
            pass_fds=(report.fileno(),), check=False, timeout=60,
        )  # fmt: skip
    until(lambda: not pool.is_live())
    status = pool.snapshot()
    assert (status.state, status.counts[TaskState.SUCCESS]) == (PoolState.INTERRUPTED, 20)
    assert "results are not sealed yet" in status.reason
    assert not list(pool.paths.results.glob("segment-*"))
    with pytest.raises(ConflictError, match="not sealed"):
        pool.wait(10)
    ran = bench.audit()
    pool.resume()
    assert pool.wait(30).state is PoolState.DONE
    assert list(pool.paths.results.glob("segment-*"))
    assert bench.audit() == ran
    # The two that the killed supervisor's workers had begun ran again, and as another attempt.
    assert max(ran.values()) == 1
    assert sum(attempt == 2 for _, attempt in ran) == 2
    check_invariants(pool, square)


# --- a worker dies


def test_kill_9_of_a_worker_blames_one_task_and_reruns_it(bench: Bench) -> None:
    body = "def f(x: int):\n    _audit()\n    _wait_for('go') if x >= 100 else None\n    return x * x\n"
    pool = bench.map(body, 200)
    until(lambda: len(pool.running_tasks()) == 2)
    until(lambda: min(each.task for each in pool.running_tasks()) >= 100)
    victim = pool.running_tasks()[0]
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: len(pool.failures(history=True)) == 1)
    bench.release("go")
    status = pool.wait(60)
    assert status.counts[TaskState.SUCCESS] == 200
    (failure,) = pool.failures(history=True)
    assert (failure.task, failure.attempt, failure.type) == (victim.task, victim.attempt, "WorkerCrashed")
    assert "signal 9 (SIGKILL)" in failure.message
    assert not failure.current
    audit = bench.audit()
    assert audit[victim.task, 1] == audit[victim.task, 2] == 1
    assert max(audit.values()) == 1
    check_invariants(pool, square)


def test_workers_killed_again_and_again_harm_no_task(bench: Bench) -> None:
    pool = bench.map(
        "def f(x: int):\n    _audit()\n    time.sleep(0.001)\n    return x * x\n",
        2500,
        options=PoolOptions(workers=2, max_crashes=1000),
    )
    kills = 0
    while pool.snapshot().state is PoolState.RUNNING:
        running = pool.running_tasks()
        if running:
            try:
                os.kill(running[-1].pid, signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                pass
        looked = time.monotonic()
        until(lambda looked=looked: time.monotonic() - looked > 0.25)  # type: ignore[misc]
    assert kills > 2
    assert pool.wait(30).counts[TaskState.SUCCESS] == 2500
    # No attempt was run twice, whatever was lost.
    assert max(bench.audit().values()) == 1
    check_invariants(pool, square)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("os._exit(0)", "exited with code 0"),
        ("os._exit(3)", "exited with code 3"),
        ("ctypes.string_at(0)", "signal 11 (SIGSEGV)"),
        ("os.abort()", "signal 6 (SIGABRT)"),
        ("os.closerange(3, 4096); time.sleep(30)", "died during the task"),
    ],
)
def test_a_task_that_kills_its_worker_fails_after_three_crashes_and_no_other_does(
    bench: Bench, deed: str, said: str
) -> None:
    pool = bench.map(f"def f(x: int):\n    _audit()\n    if x == 57:\n        {deed}\n    return x * x\n", 100)
    status = pool.wait(60)
    assert status.counts[TaskState.SUCCESS] == 99
    (failure,) = pool.failures()
    assert (failure.task, failure.attempt, failure.type) == (57, 3, "WorkerCrashed")
    assert said in failure.message
    assert [each.attempt for each in pool.failures(history=True)] == [1, 2, 3]
    audit = bench.audit()
    assert [audit[57, attempt] for attempt in (1, 2, 3, 4)] == [1, 1, 1, 0]
    assert max(audit.values()) == 1
    if "SIGSEGV" in said and failure.worker is not None:
        assert b"Segmentation fault" in pool.paths.worker_log(failure.worker).read_bytes()
    check_invariants(pool, square)


# --- limits


def test_a_task_past_its_time_is_stopped_also_if_it_ignores_sigterm(bench: Bench) -> None:
    body = """
def f(x: int):
    _audit()
    if x == 3:
        time.sleep(60)
    if x == 5:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        time.sleep(60)
    return x * x
"""
    began = time.monotonic()
    pool = bench.map(body, 40, options=PoolOptions(workers=2, timeout=0.5, grace=0.3))
    status = pool.wait(60)
    assert time.monotonic() - began < 20
    assert status.counts[TaskState.TIMEOUT] == 2
    assert status.counts[TaskState.SUCCESS] == 38
    failures = pool.failures()
    assert [(each.task, each.type, each.state) for each in failures] == [
        (3, "TaskTimeout", TaskState.TIMEOUT),
        (5, "TaskTimeout", TaskState.TIMEOUT),
    ]
    assert all(each.duration is not None and 0.5 <= each.duration < 5 for each in failures)
    assert "0.5 s" in failures[0].message
    assert max(bench.audit().values()) == 1
    check_invariants(pool, square)


def test_a_worker_that_is_stopped_is_timed_out_and_replaced(bench: Bench) -> None:
    pool = bench.map(
        "def f(x: int):\n    _audit()\n    _wait_for('go') if x == 0 else None\n    return x * x\n",
        20,
        options=PoolOptions(workers=1, timeout=1.0, grace=0.2),
    )
    until(bench.pids)
    os.kill(bench.pids()[0], signal.SIGSTOP)
    status = pool.wait(30)
    assert (status.counts[TaskState.TIMEOUT], status.counts[TaskState.SUCCESS]) == (1, 19)
    check_invariants(pool, square)


def test_a_task_that_swallows_its_time_limit_does_not_pass_the_blame_on(bench: Bench) -> None:
    body = """
def f(x: int):
    _audit()
    if x == 0:
        try:
            time.sleep(60)
        except BaseException:
            pass
    elif x < 20:
        time.sleep(0.05)
    return x * x
"""
    pool = bench.map(body, 60, options=PoolOptions(workers=1, timeout=0.5, grace=0.5))
    pool.wait(60)
    assert not [each for each in pool.failures(history=True) if each.task]
    check_invariants(pool, square)


def test_a_task_over_the_memory_limit_is_stopped_and_the_others_are_not(bench: Bench) -> None:
    body = """
def f(x: int):
    _audit()
    if x == 4:
        hog = []
        while True:
            hog.append(bytearray(os.urandom(1 << 20) * 20))
            time.sleep(0.01)
    return x * x
"""
    pool = bench.map(body, 20, options=PoolOptions(workers=2, memory_limit=700 << 20))
    status = pool.wait(60)
    assert (status.counts[TaskState.ERROR], status.counts[TaskState.SUCCESS]) == (1, 19)
    (failure,) = pool.failures()
    assert (failure.task, failure.type) == (4, "MemoryLimitExceeded")
    assert pool.snapshot().reason == ""
    check_invariants(pool, square)


# --- what commands ask


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
    status = pool.wait(30)
    assert status.counts[TaskState.SUCCESS] == 4
    assert status.counts[TaskState.CANCELLED] == 7996
    check_invariants(pool, square)
    shown = succeeded(pool)
    assert {task for task, _ in bench.audit()} == shown, "what ran to its end is a success, what is cancelled never ran"
    assert pool.retry(cancelled=True) == {"retried": 0, "cancelled": 7996}
    assert pool.wait(60).counts[TaskState.SUCCESS] == 8000
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
    pool.wait(30)
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
    assert pool.wait(60).counts[TaskState.SUCCESS] == 400
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
    assert pool.wait(60).counts[TaskState.SUCCESS] == 300
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
    assert pool.wait(30).counts[TaskState.SUCCESS] == 6
    check_invariants(pool, square)


def test_a_pool_that_ends_while_it_is_paused_is_not_paused_when_tasks_are_retried(bench: Bench) -> None:
    body = "def f(x: int):\n    _wait_for('go')\n    return 1 // (jobpool_cli.current_task().attempt - 1)\n"
    pool = bench.map(body, 1)
    until(pool.running_tasks)
    pool.pause()
    bench.release("go")
    assert pool.wait(30).failed == 1
    assert pool.retry()["retried"] == 1
    assert pool.wait(30).counts[TaskState.SUCCESS] == 1
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
    status = pool.wait(30)
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
    status = pool.wait(30)
    assert (status.counts[TaskState.SUCCESS], status.counts[TaskState.ERROR]) == (9, 1)
    (failure,) = pool.failures()
    assert (failure.task, failure.attempt, failure.message) == (1, 3, "attempt 3")
    assert [(each.task, each.attempt, each.current) for each in pool.failures(history=True)] == [
        (1, 1, False), (1, 2, False), (1, 3, True), (2, 1, False), (2, 2, False),
    ]  # fmt: skip
    check_invariants(pool, square)


def test_mended_code_runs_what_failed_and_its_siblings_are_found(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _audit()\n    return 1 // x * 0 + x * x\n", 5)
    assert pool.wait(30).counts[TaskState.ERROR] == 1
    (bench.folder / "late_sibling.py").write_text("ANSWER = 0\n")
    mended = bench.write(
        "def f(x: int):\n    _audit()\n    from late_sibling import ANSWER\n    return ANSWER\n", "mended.py"
    )
    assert pool.retry(udf=mended)["retried"] == 1
    status = pool.wait(30)
    assert status.counts[TaskState.SUCCESS] == 5
    assert status.udf_versions == {1: 4, 2: 1}
    check_invariants(pool, square)


def test_mended_code_changes_nothing_where_no_task_is_taken_up(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _wait_for('go') if x else None\n    return x * x\n", 4)
    mended = bench.write("def f(x: int):\n    return -1\n", "mended.py")
    assert pool.retry(udf=mended) == {"retried": 0, "cancelled": 0}
    bench.release("go")
    status = pool.wait(30)
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
    assert pool.wait(30).udf_versions == {1: 2, 2: 2}
    check_invariants(pool, square)


def test_mended_code_helps_an_interrupted_pool_whose_code_does_not_load_any_more(bench: Bench) -> None:
    body = "assert not os.path.exists(os.path.join(FOLDER, 'broken'))\n"
    body += "def f(x: int):\n    _wait_for('go') if x else 1 // 0\n    return x * x\n"
    pool = bench.map(body, 4)
    until(lambda: pool.snapshot().failed == 1)
    kill_supervisor(pool)
    bench.release("broken")
    assert pool.retry(udf=bench.write("def f(x: int):\n    return x * x\n", "mended.py"))["retried"] == 1
    assert pool.wait(30).udf_versions == {2: 4}
    check_invariants(pool, square)


# --- rm


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

    monkeypatch.setattr("jobpool_cli.submit.os.rename", rename)
    remove(pool.paths.root)
    assert len(tried) == 1
    assert not pool.paths.root.exists()


def test_a_pool_that_somebody_resumed_before_map_could_start_it_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quicker(paths: PoolPaths) -> None:
        launch(paths)
        launch(paths)

    monkeypatch.setattr("jobpool_cli.submit.launch", quicker)
    pool = bench.map("def f(x: int):\n    return x * x\n", 4)
    assert pool.wait(30).counts[TaskState.SUCCESS] == 4
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
    outer.wait(30)
    check_invariants(outer)
    (root,) = results_of(outer).values()
    inner_pool = JobPool(Path(str(root)))
    assert inner_pool.snapshot().state is PoolState.RUNNING
    bench.release("go")
    inner_pool.wait(30)
    check_invariants(inner_pool)


# --- hostile functions


def test_a_task_cannot_end_its_worker_by_an_exception(bench: Bench) -> None:
    body = """
class Own(BaseException): pass
class Odd(Exception):
    def __str__(self): raise RuntimeError("no")
def f(x: int):
    _audit()
    if x == 10: sys.exit(0)
    if x == 20: raise KeyboardInterrupt
    if x == 30: raise GeneratorExit
    if x == 40: raise Own("mine")
    if x == 50: raise Odd
    if x == 60: raise type("\\udcff", (Exception,), {})("\\udcff\\0")
    if x == 70: exec(compile("1/0", "\\udcff.py", "exec"))
    return x * x
"""
    pool = bench.map(body, 100)
    status = pool.wait(30)
    assert (status.counts[TaskState.SUCCESS], status.counts[TaskState.ERROR]) == (93, 7)
    found = {each.task: each for each in pool.failures()}
    assert found[10].type == "SystemExit"
    assert found[20].type == "KeyboardInterrupt"
    assert found[30].type == "GeneratorExit"
    assert found[40].message == "mine"
    assert "RuntimeError" in found[50].message
    assert found[70].type == "ZeroDivisionError"
    assert all(each.attempt == 1 for each in found.values())
    assert len({pid for pid in bench.pids() if pid}) <= 2, "no worker was replaced"
    check_invariants(pool, square)


def test_what_a_task_does_to_its_streams_and_surroundings_does_not_reach_the_next(bench: Bench) -> None:
    body = """
import io
def f(x: int):
    _audit()
    if x == 2:
        os.close(1); os.close(2)
    if x == 4:
        sys.stdout = sys.stderr = io.StringIO()
    if x == 6:
        sys.stdout.close()
    if x == 8:
        os.chdir("/"); os.umask(0); sys.path.clear(); signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(0.001)
    if x == 10:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        time.sleep(0.001)
    if x % 2:
        print(f"<{x}>")
        os.write(2, f"[{x}]".encode())
        mask = os.umask(0o77); os.umask(mask)
        return [os.getcwd() == HERE, mask == MASK, len(sys.path) > 0]
    return None
HERE = os.getcwd()
MASK = os.umask(0o77); os.umask(MASK)
"""
    pool = bench.map(body, 24, options=PoolOptions(workers=1))
    assert pool.wait(30).counts[TaskState.SUCCESS] == 24
    (log,) = pool.paths.logs.iterdir()
    text = log.read_text()
    assert [x for x in range(1, 24, 2) if f"<{x}>\n[{x}]" not in text] == []
    check_invariants(pool, lambda x: [True, True, True] if x % 2 else None)


def test_a_fork_that_returns_makes_no_second_outcome(bench: Bench) -> None:
    body = "def f(x: int):\n    if x % 5 == 0:\n        os.fork()\n    _audit()\n    return x * x\n"
    pool = bench.map(body, 50)
    assert pool.wait(30).counts[TaskState.SUCCESS] == 50
    check_invariants(pool, square)


def test_a_thread_that_is_left_behind_does_not_hold_the_pool_up(bench: Bench) -> None:
    body = """
import threading
def _chatter():
    while True:
        print("still here"); time.sleep(0.01)
def f(x: int):
    threading.Thread(target=_chatter).start()
    return x * x
"""
    pool = bench.map(body, 4)
    assert pool.wait(30).counts[TaskState.SUCCESS] == 4
    check_invariants(pool, square)


def test_a_result_that_cannot_be_stored_fails_its_task_alone(bench: Bench) -> None:
    body = """
def f(x: int):
    _audit()
    if x == 7:
        return (each for each in range(3))
    return x * x
"""
    pool = bench.map(body, 50)
    status = pool.wait(30)
    assert (status.counts[TaskState.SUCCESS], status.counts[TaskState.ERROR]) == (49, 1)
    (failure,) = pool.failures()
    assert (failure.task, failure.type) == (7, "ResultNotStorable")
    assert "generator" in failure.message
    assert max(bench.audit().values()) == 1
    check_invariants(pool, square)


def test_junk_in_the_channels_replaces_the_worker_and_blames_nobody_for_long(bench: Bench) -> None:
    body = """
def f(x: int):
    _audit()
    if x == 30 and jobpool_cli.current_task().attempt == 1:
        for fd in range(3, 64):
            try: os.write(fd, b"junk" * 10)
            except OSError: pass
        time.sleep(5)
    return x * x
"""
    pool = bench.map(body, 60)
    assert pool.wait(30).counts[TaskState.SUCCESS] == 60
    check_invariants(pool, square)


# --- loading

IN_WORKER = "if 'jobpool_cli.worker' in sys.orig_argv:\n"


def test_code_that_does_not_load_in_a_worker_leaves_no_pool_and_no_process(bench: Bench) -> None:
    body = IN_WORKER + "    import nothing_of_that_name\ndef f(x: int):\n    return x\n"
    with pytest.raises(InputError, match="nothing_of_that_name"):
        bench.map(body, 10)
    pools = bench.home / "pools"
    until(lambda: not supervisors(pools / "pool"), what="the supervisor has ended")
    assert not [each for each in pools.iterdir() if not each.name.startswith(".")]


def test_a_supervisor_that_does_not_start_is_told_of_with_the_end_of_its_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(MachineError, match=r"(?s)ended before it was ready:.*init_fs_encoding"):
        bench.map("def f(x: int):\n    return x\n", 1)


def test_more_workers_than_files_may_be_open_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobpool_cli.submit.descriptor_limit", lambda: 100)
    with pytest.raises(MachineError, match="10 worker processes need 104 open files, and the limit is 100"):
        bench.map("def f(x: int):\n    return x\n", 1, options=PoolOptions(workers=10))


def test_workers_have_the_limit_of_open_files_that_map_had(bench: Bench) -> None:
    pool = bench.map("import resource\ndef f(x: int):\n    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]\n", 1)
    pool.wait(30)
    check_invariants(pool, lambda _: resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def test_a_worker_that_gets_sigterm_while_it_loads_the_code_is_replaced(bench: Bench) -> None:
    body = (
        IN_WORKER
        + """
    if not os.path.exists(os.path.join(FOLDER, "killed")):
        open(os.path.join(FOLDER, "killed"), "w").close()
        os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)
def f(x: int):
    return x * x
"""
    )
    pool = bench.map(body, 4, options=PoolOptions(workers=1))
    assert pool.wait(30).counts[TaskState.SUCCESS] == 4
    check_invariants(pool, square)


def test_code_that_kills_its_worker_at_import_stops_the_pool(bench: Bench) -> None:
    body = IN_WORKER + "    os._exit(9)\ndef f(x: int):\n    return x\n"
    with pytest.raises(InputError, match="died before they were ready"):
        bench.map(body, 10)
    until(lambda: not supervisors(bench.home / "pools" / "pool"), what="the supervisor has ended")


def test_an_empty_table_is_a_pool_that_is_done(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    return x\n", 0)
    assert pool.snapshot().state is PoolState.DONE
    assert not pool.is_live()
    check_invariants(pool)


def test_the_originals_may_go_after_map(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _wait_for('go')\n    return x * x\n", 6)
    for path in bench.folder.glob("pool*"):
        path.unlink()
    kill_supervisor(pool)
    bench.release("go")
    pool.resume()
    assert pool.wait(30).counts[TaskState.SUCCESS] == 6
    check_invariants(pool, square)


def test_a_pool_outlives_the_process_that_made_it(bench: Bench) -> None:
    udf = bench.write("def f(x: int):\n    _wait_for('go')\n    return x * x\n")
    (bench.folder / "in.csv").write_text("x\n0\n1\n2\n")
    code = (
        "import sys; from pathlib import Path; from jobpool_cli.model import PoolOptions;"
        "from jobpool_cli.submit import check, submit;"
        "checked = check(sys.argv[1], sys.argv[2], constants={}, options=PoolOptions());"
        "print(submit(checked, Path(sys.argv[3]), 'p').root)"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, udf, str(bench.folder / "in.csv"), str(bench.home)],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    pool = JobPool(Path(made.stdout.strip()))
    assert pool.snapshot().state is PoolState.RUNNING
    bench.release("go")
    pool.wait(30)
    check_invariants(pool, square)
