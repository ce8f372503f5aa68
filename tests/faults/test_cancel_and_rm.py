"""Steering while much is queued, and deleting while it runs."""

from __future__ import annotations

import json
import time

import pytest

from jobpool_cli.model import PoolState, TaskState
from tests.faults import injection
from tests.faults.harness import Faults
from tests.faults.ledger import scaled
from tests.helpers import marked, supervisors

HELD = "def f(x: int) -> int:\n    _audit()\n    _wait_for('go')\n    return x * x\n"


@pytest.mark.scenario(28)
def test_cancel_gives_up_what_is_queued_and_lets_what_runs_end(faults: Faults) -> None:
    """Scenario 28: cancel with 10,000 queued: pending ones are cancelled, running ones finish, exit 0, at once."""
    n = scaled(10_000, 1_000_000)
    pool = faults.map(HELD, n)
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    running = {each.task for each in pool.running_tasks()}
    faults.injected()
    began = time.monotonic()
    told = faults.jobpool("cancel", "pool")
    assert time.monotonic() - began < 3
    assert f"cancelled {n - 2:,} tasks of pool; 2 tasks in hand will still end" in told.stdout + told.stderr
    shown = json.loads(faults.jobpool("status", "pool", "--json").stdout)
    assert shown["counts"]["cancelled"] == n - 2
    assert shown["counts"]["running"] == 2
    faults.release("go")
    faults.ended(pool)
    counts = pool.snapshot().counts
    assert (counts[TaskState.SUCCESS], counts[TaskState.CANCELLED]) == (2, n - 2)
    assert set(faults.ran()) == running == faults.look(pool)
    assert json.loads(faults.jobpool("cancel", "pool").stdout or "0") == 0
    faults.check(pool)


@pytest.mark.scenario(28)
def test_cancel_amid_tasks_that_end_by_the_thousand_counts_each_once(faults: Faults) -> None:
    """Scenario 28: the same while batches are under way: what ran is kept, what had not begun is cancelled."""
    n = scaled(200_000, 2_000_000)
    pool = faults.map("def f(x: int) -> int:\n    return x * x\n", n)
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > 100)
    shown = faults.look(pool)
    faults.injected()
    faults.jobpool("cancel", "pool", "--wait")
    counts = pool.snapshot().counts
    assert counts[TaskState.SUCCESS] >= len(shown)
    assert counts[TaskState.SUCCESS] + counts[TaskState.CANCELLED] == n
    faults.check(pool, audit=None)


@pytest.mark.scenario(29)
def test_a_running_pool_is_deleted_by_force_alone_and_then_with_its_processes(faults: Faults) -> None:
    """Scenario 29: rm of a running pool exits 4 and changes nothing; rm --force ends processes, folder and all."""
    pool = faults.map(HELD, 100)
    other = faults.map(HELD, 2, name="other")
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    before = sorted(path.relative_to(pool.paths.root) for path in pool.paths.root.rglob("*"))
    for words in (["pool"], ["pool", "--yes"], ["other", "pool", "--yes"]):
        told = faults.jobpool("rm", *words, code=4)
        assert "jobpool rm --force" in told.stderr
    assert sorted(path.relative_to(pool.paths.root) for path in pool.paths.root.rglob("*")) == before
    assert pool.snapshot().state is PoolState.RUNNING
    assert other.snapshot().state is PoolState.RUNNING

    processes = [*supervisors(pool.paths.root), *marked(pool)]
    assert len(processes) >= 3
    faults.injected()
    faults.jobpool("rm", "pool", "--force")
    faults.until(lambda: not any(map(injection.alive, processes)), 1, "the processes are gone when rm returns")
    assert [path.name for path in pool.paths.root.parent.iterdir()] == ["other"]
    faults.jobpool("status", "pool", code=3)
    faults.release("go")
    faults.check(other)


@pytest.mark.scenario(29)
def test_force_deletes_a_pool_whose_supervisor_and_workers_are_stopped(faults: Faults) -> None:
    """Scenario 29: rm --force of a pool whose processes are all held by SIGSTOP."""
    pool = faults.map(HELD, 10)
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    processes = [*supervisors(pool.paths.root), *marked(pool)]
    faults.injected(len(processes))
    with injection.stopped(*processes):
        faults.jobpool("rm", "pool", "--force")
        faults.until(lambda: not any(map(injection.alive, processes)), 5)
    assert not pool.paths.root.exists()
