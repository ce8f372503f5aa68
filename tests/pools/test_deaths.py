"""The supervisor, a worker or both die; ``check_invariants`` after each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from jobpool_cli.errors import ConflictError
from jobpool_cli.model import PoolOptions, PoolState, TaskState
from tests.helpers import (
    Bench,
    check_invariants,
    kill_supervisor,
    marked,
    square,
    succeeded,
    supervisors,
    until,
)

pytestmark = pytest.mark.timeout(100)


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
    assert pool.follow(60).counts[TaskState.SUCCESS] == 1500
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
    pool.follow(60)
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
    pool.follow(60)
    check_invariants(pool, square, shown=shown)


def test_a_second_supervisor_is_refused(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    _wait_for('go')\n    return x\n", 2)
    with pytest.raises(ConflictError, match="running already"):
        pool.resume()
    bench.release("go")
    pool.follow(30)
    check_invariants(pool)


def test_a_paused_pool_whose_supervisor_was_killed_resumes(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    time.sleep(0.01)\n    return x * x\n", 100)
    pool.pause()
    kill_supervisor(pool)
    assert pool.snapshot().state is PoolState.INTERRUPTED
    pool.resume()
    pool.follow(30)
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
            [sys.executable, "-c", UNSEALED, f"--root={pool.paths.root}", f"--report={report.fileno()}"],
            pass_fds=(report.fileno(),), check=False, timeout=60,
        )  # fmt: skip
    until(lambda: not pool.is_live())
    status = pool.snapshot()
    assert (status.state, status.counts[TaskState.SUCCESS]) == (PoolState.INTERRUPTED, 20)
    assert "results are not sealed yet" in status.reason
    assert not list(pool.paths.results.glob("segment-*"))
    with pytest.raises(ConflictError, match="not sealed"):
        pool.follow(10)
    ran = bench.audit()
    pool.resume()
    assert pool.follow(30).state is PoolState.DONE
    assert list(pool.paths.results.glob("segment-*"))
    assert bench.audit() == ran
    # The two that the killed supervisor's workers had begun ran again, and as another attempt.
    assert max(ran.values()) == 1
    assert sum(attempt == 2 for _, attempt in ran) == 2
    check_invariants(pool, square)


def test_kill_9_of_a_worker_blames_one_task_and_reruns_it(bench: Bench) -> None:
    body = "def f(x: int):\n    _audit()\n    _wait_for('go') if x >= 100 else None\n    return x * x\n"
    pool = bench.map(body, 200)
    until(lambda: len(pool.running_tasks()) == 2)
    until(lambda: min(each.task for each in pool.running_tasks()) >= 100)
    victim = pool.running_tasks()[0]
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: len(pool.failures(history=True)) == 1)
    bench.release("go")
    status = pool.follow(60)
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
    assert pool.follow(30).counts[TaskState.SUCCESS] == 2500
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
    status = pool.follow(60)
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
