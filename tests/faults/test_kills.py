"""Kill -9 of workers and supervisors, at random and at chosen system calls."""

from __future__ import annotations

import pytest

from jobpool_cli.model import PoolState, TaskState
from tests.faults.harness import Faults, slow_square
from tests.helpers import marked


@pytest.mark.scenario(2)
def test_after_kill_9_of_the_supervisor_its_workers_go_and_resume_runs_only_what_is_unfinished(faults: Faults) -> None:
    """Scenario 2: kill -9 of the supervisor; ``status`` says interrupted; nothing that was shown runs again."""
    pool = faults.map(slow_square(0.004), 1500)
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > 200)
    faults.kill_supervisor(pool)
    faults.until(lambda: not marked(pool), 1.0, "the workers are gone within a second")
    shown = faults.look(pool)
    assert pool.snapshot().state is PoolState.INTERRUPTED
    assert "killed" in pool.snapshot().reason
    ran_before = faults.ran()
    faults.finish(pool)
    assert not set(faults.ran() - ran_before) & shown
    faults.check(pool)
