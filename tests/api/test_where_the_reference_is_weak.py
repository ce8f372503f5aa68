"""What the class that this one re-creates does badly: the process ends, workers die, cancel, retry, odd results."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from jobpool_cli import (
    JobPool,
    ResultNotStorable,
    TaskCancelled,
    TaskTimeout,
    WorkerCrashed,
    current_task,
    udf,
)
from jobpool_cli.errors import ConflictError
from tests.conftest import ROOT


def test_a_pool_goes_on_when_the_python_process_ends_and_opens_from_another(
    tmp_path: Path, gate: Path, own_home: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "from jobpool_cli import udf\n"
        "@udf\n"
        "def late(x: int) -> int:\n"
        f"    while not os.path.exists({str(gate)!r}):\n"
        "        time.sleep(0.005)\n"
        "    return x + 1\n"
        "late.map([1, 2, 3], name='orphan')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, script], check=True, env=environment, timeout=60)
    pool = JobPool.open("orphan")
    assert not pool.done()
    gate.touch()
    assert pool.results() == [2, 3, 4]
    assert own_home in pool.paths.root.parents


@pytest.mark.parametrize("death", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_worker_that_dies_costs_its_task_alone(death: str) -> None:
    def deadly(x: int) -> int:
        if x == 3:
            exec(death, {"os": os, "signal": signal})  # noqa: S102 - one of the two texts above
        return x

    pool = udf(deadly).map(range(8), max_workers=2)
    found = pool.results(return_exceptions=True)
    assert [each for each in found if isinstance(each, int)] == [0, 1, 2, 4, 5, 6, 7]
    assert isinstance(found[3], WorkerCrashed)
    with pytest.raises(WorkerCrashed):
        pool.results()


def test_everything_can_be_read_after_a_cancel_and_what_was_cancelled_can_be_taken_up_again(
    wait_at_gate: Callable[[int], int], gate: Path, until: Callable[..., None]
) -> None:
    pool = udf(wait_at_gate).map(range(50), max_workers=1)
    until(pool.running)
    pool.cancel()
    gate.touch()
    pool.wait()
    counts = pool.status()
    assert counts["success"] + counts["cancelled"] == 50
    assert counts["cancelled"] > 0
    finished = int(counts["success"])
    assert pool.cancelled() == {task: task for task in range(finished, 50)}
    assert pool.success() == {task: task for task in range(finished)}
    assert [log is None for log in pool.logs()] == [task in pool.cancelled() for task in range(50)]
    assert pool.collect(ignore_exceptions=True)["result"].tolist() == list(range(finished))
    everything = pool.results(return_exceptions=True)
    assert [isinstance(each, TaskCancelled) for each in everything] == [task >= finished for task in range(50)]
    with pytest.raises(TaskCancelled):
        pool.results()
    with pytest.raises(TaskCancelled):
        pool.collect()

    assert pool.retry(cancelled=True)["cancelled"] == 50 - finished
    assert pool.results() == list(range(50))


def test_retry_really_runs_failed_tasks_again_and_keeps_the_log_of_the_first_attempt(tmp_path: Path) -> None:
    audit, mended = tmp_path / "audit", tmp_path / "mended"

    def flaky(x: int) -> int:
        task = current_task()
        assert task is not None
        with audit.open("a") as file:
            file.write(f"{task.task} {task.attempt}\n")
        print(f"attempt {task.attempt}")  # noqa: T201
        if x % 2 and not mended.exists():
            raise ValueError(x)
        return x

    pool = udf(flaky).map(range(6))
    with pytest.raises(ValueError, match="1"):
        pool.results()
    assert sorted(pool.errors()) == [1, 3, 5]
    first = pool.total_time()
    mended.touch()
    assert pool.retry() == {"retried": 3, "cancelled": 0}
    assert pool.results() == list(range(6))
    ran = [tuple(map(int, line.split())) for line in audit.read_text().splitlines()]
    assert sorted(ran) == sorted([(task, 1) for task in range(6)] + [(task, 2) for task in (1, 3, 5)])
    assert pool[1].attempts == 2
    assert pool[1].logs == "attempt 2\n"
    (log,) = pool.task_logs([1], attempt=1)
    assert b"ValueError: 1" in b"".join(log.chunks())
    assert pool.total_time() >= first
    assert pool.total_time(since_retry=True) < pool.total_time()


def test_a_result_that_cannot_be_stored_is_its_own_task_s_error_and_breaks_nothing() -> None:
    def odd(x: int) -> object:
        return threading.Lock() if x == 1 else x

    pool = udf(odd).map(range(3))
    found = pool.results(return_exceptions=True)
    assert found[0] == 0
    assert found[2] == 2
    assert isinstance(found[1], ResultNotStorable)
    assert "lock" in str(found[1]).lower()


def test_a_task_that_runs_past_its_time_is_stopped_and_the_others_are_not() -> None:
    pool = udf(lambda x: time.sleep(60 if x == 1 else 0)).map(range(3), timeout=0.3)
    found = pool.results(return_exceptions=True)
    assert found[0] is None
    assert found[2] is None
    assert isinstance(found[1], TaskTimeout)
    assert isinstance(found[1], TimeoutError)
    assert pool.status()["timeout"] == 1


def test_arguments_named_status_result_time_or_logs_are_not_lost() -> None:
    def function(status: str, result: int, logs: str = "", task: int = 0) -> int:
        print(status + logs)  # noqa: T201
        return result + task

    pool = udf(function).map([{"status": "fine", "result": 1, "logs": "a"}, {"status": "bad", "result": 2, "task": 5}])
    pool.wait()
    with pytest.warns(UserWarning, match="arg_status|arg_result|arg_logs"):
        frame = pool.logs_df()
    assert frame["arg_status"].tolist() == ["fine", "bad"]
    assert frame["arg_result"].tolist() == [1, 2]
    assert frame["status"].tolist() == ["success", "success"]
    assert frame["result"].tolist() == [1, 7]
    assert frame["logs"].tolist() == ["finea\n", "bad\n"]
    collected = pool.collect()
    assert collected.index.names[:2] == ["status", "result"]
    assert collected["result"].tolist() == [1, 7]
    assert isinstance(collected, pd.DataFrame)


def test_waiting_for_an_interrupted_pool_is_refused_rather_than_endless(wait_at_gate: Callable[[int], int]) -> None:
    pool = udf(wait_at_gate).map(range(3), max_workers=1)
    pool.shutdown(wait=False)
    for wait in (pool.wait, pool.results, pool.collect):
        with pytest.raises(ConflictError, match="interrupted"):
            wait()
    # What there is can still be read.
    assert pool.results_now() == {}
    assert pool.pending() == {0: 0, 1: 1, 2: 2}
