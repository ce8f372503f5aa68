"""The supervisor or a worker dies at a chosen moment; random kills are in ``tests/faults``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from jobpool_cli.errors import ConflictError
from jobpool_cli.model import PoolState, TaskState
from tests.helpers import (
    Bench,
    check_invariants,
    kill_supervisor,
    square,
    succeeded,
    supervisors,
    until,
)

pytestmark = pytest.mark.timeout(100)


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
