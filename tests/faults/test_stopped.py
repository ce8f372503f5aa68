"""SIGSTOP: a worker under a time limit, and the supervisor itself."""

from __future__ import annotations

import json
import time

import pytest

from jobpool_cli.model import PoolState, TaskState
from jobpool_cli.store.state.look import SILENT_SECONDS
from tests.faults import injection
from tests.faults.harness import Faults
from tests.faults.ledger import scaled
from tests.helpers import supervisors

HELD = "def f(x: int) -> int:\n    _audit()\n    _wait_for('go') if x == 0 else time.sleep(0.005)\n    return x * x\n"


@pytest.mark.scenario(18)
@pytest.mark.parametrize("workers", scaled([2], [1, 2, 6]))
def test_a_worker_that_is_stopped_is_timed_out_and_replaced(faults: Faults, workers: int) -> None:
    """Scenario 18: SIGSTOP a worker under --timeout 2: its task is timed out within 8 s, its neighbours are not."""
    pool = faults.map(HELD, 60, "-j", str(workers), "--timeout", "2")
    faults.until(lambda: any(each.task == 0 for each in pool.running_tasks()))
    (victim,) = (each for each in pool.running_tasks() if each.task == 0)
    faults.injected()
    with injection.stopped(victim.pid):
        faults.until(lambda: pool.snapshot().counts[TaskState.TIMEOUT] == 1, 8, "the task is timed out")
        assert not injection.alive(victim.pid)
        faults.ended(pool, 20)
    assert pool.snapshot().counts[TaskState.SUCCESS] == 59
    (failure,) = pool.failures(history=True)
    assert (failure.task, failure.type, failure.attempt) == (0, "TaskTimeout", 1)
    assert failure.duration is not None
    assert 2 <= failure.duration < 8
    assert set(faults.audit().values()) == {1}
    faults.check(pool)


@pytest.mark.scenario(19)
def test_a_stopped_supervisor_leaves_status_to_read_and_honours_what_was_asked_once_it_goes_on(faults: Faults) -> None:
    """Scenario 19: SIGSTOP the supervisor: status says so; cancel waits no longer than told, and is honoured once."""
    pool = faults.map(HELD, 400, "-j", "1")
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING])
    faults.injected()
    with injection.stopped(*supervisors(pool.paths.root)):
        stopped_at = time.monotonic()
        shown = json.loads(faults.jobpool("status", "pool", "--json").stdout)
        assert (shown["state"], shown["counts"]["pending"] > 300) == ("running", True)
        told = faults.jobpool("cancel", "pool", "--wait", "--timeout", "3", code=124)
        assert "did not answer within 3 s" in told.stderr
        assert "is kept" in told.stderr
        # A supervisor shows now and then that it is at work; the last time may have been a second ago.
        faults.until(lambda: time.monotonic() - stopped_at > SILENT_SECONDS)
        shown = faults.jobpool("status", "pool").stdout
        assert "its supervisor has not answered for" in shown
        assert "running" in shown
        assert faults.jobpool("rm", "pool", "--yes", code=4).stdout == ""
        assert pool.snapshot().counts[TaskState.CANCELLED] == 0
    faults.release("go")
    faults.ended(pool)
    status = pool.snapshot()
    assert status.state is PoolState.DONE
    assert status.reason == ""
    assert status.counts[TaskState.CANCELLED] > 300
    assert status.counts[TaskState.CANCELLED] + status.counts[TaskState.SUCCESS] == 400
    assert not list(pool.paths.requests.iterdir())
    # Once: what is taken up again afterwards is not cancelled by the same request.
    faults.jobpool("retry", "pool", "--cancelled")
    faults.ended(pool)
    assert pool.snapshot().counts[TaskState.SUCCESS] == 400
    faults.check(pool)
