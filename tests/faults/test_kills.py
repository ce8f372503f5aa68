"""Kill -9 of workers, of the supervisor, and of both at once."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from jobpool_cli.model import PoolState, TaskState
from jobpool_cli.pool import JobPool
from tests.faults import ledger
from tests.faults.harness import Faults, slow_square
from tests.faults.injection import kill
from tests.faults.witness import Witness
from tests.helpers import marked, supervisors


@pytest.mark.scenario(1)
def test_random_workers_killed_again_and_again_cost_no_task_its_result(faults: Faults) -> None:
    """Scenario 1: kill -9 of a random worker every 0.3 s, whatever it does at that moment; the pool ends well."""
    n, shortest = ledger.scaled((300, 0.15), (2_000, 0.3))
    pool = faults.map(slow_square(0.008), n, "--max-crashes", "1000")
    witness = Witness(faults, pool)
    chance = random.Random(1)  # noqa: S311 - chance is no secret
    kills, due, known = 0, time.monotonic(), -1
    while pool.snapshot().state is PoolState.RUNNING:
        # One in four may be on its way up: if none came up, the pool would give up, and rightly.
        workers = marked(pool) if kills % 4 == 0 else [each.pid for each in pool.running_tasks()]
        shown = len(witness.look())
        # Where starting a worker takes longer than the pause, every one would be killed before it has done anything.
        if workers and time.monotonic() >= due and shown > known:
            known = shown
            kill(chance.choice(workers))
            kills += 1
            faults.injected()
            due = time.monotonic() + chance.uniform(shortest, 0.3)
        time.sleep(0.01)
    assert kills > 5
    faults.jobpool("wait", pool.name)
    assert pool.snapshot().counts[TaskState.SUCCESS] == n
    # Whoever died is told of, and what an attempt's number stands for has run once at most.
    assert pool.failures(history=True)
    assert max(faults.audit().values()) == 1
    witness.check()
    faults.check(pool)


@pytest.mark.scenario(2)
def test_after_kill_9_of_the_supervisor_its_workers_go_and_resume_runs_only_what_is_unfinished(faults: Faults) -> None:
    """Scenario 2: kill -9 of the supervisor; ``status`` says interrupted; nothing that was shown runs again."""
    n = ledger.scaled(600, 2000)
    # Each kill comes before the end, however long the one who kills took to look.
    pool = faults.map(slow_square(0.004, n - 20), n)
    witness = Witness(faults, pool)
    for goal in _goals(pool):
        _until_finished(faults, pool, goal)
        faults.kill_supervisor(pool)
        faults.until(lambda: not marked(pool), 1.0, "the workers are gone within a second")
        _resume_interrupted(faults, witness)
    faults.release("rest")
    faults.finish(pool)
    witness.check()
    faults.check(pool)


@pytest.mark.scenario(3)
def test_supervisor_and_workers_killed_together_leave_a_pool_that_resumes(faults: Faults) -> None:
    """Scenario 3: kill -9 of all processes of a pool at once, in any order; as if the supervisor alone had died."""
    n = ledger.scaled(600, 2000)
    # Each kill comes before the end, however long the one who kills took to look.
    pool = faults.map(slow_square(0.004, n - 20), n)
    witness = Witness(faults, pool)
    chance = random.Random(3)  # noqa: S311 - chance is no secret
    for goal in _goals(pool):
        _until_finished(faults, pool, goal)
        doomed = [*supervisors(pool.paths.root), *marked(pool)]
        chance.shuffle(doomed)
        kill(*doomed)
        faults.injected(len(doomed))
        faults.until(lambda: not pool.is_live() and not marked(pool), 1.0, "all are gone within a second")
        _resume_interrupted(faults, witness)
    faults.release("rest")
    faults.finish(pool)
    witness.check()
    faults.check(pool)


def _goals(pool: JobPool[Any]) -> range:
    """Return after how many successes to kill."""
    every = ledger.scaled(250, 50)
    return range(every, pool.n_jobs - every // 2, every)


def _until_finished(faults: Faults, pool: JobPool[Any], goal: int) -> None:
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] >= goal, what=f"{goal} tasks have succeeded")


def _resume_interrupted(faults: Faults, witness: Witness) -> None:
    """See that `status` tells what happened, and go on."""
    said = faults.jobpool("status", "pool").stdout
    assert "interrupted" in said, said
    assert "killed" in said, said
    witness.look()
    faults.jobpool("resume", "pool")
