"""What tasks start ends: with the task that is stopped, with the worker that dies, and at the latest with the pool."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli.model import PoolState, TaskState
from jobpool_cli.pool import JobPool
from tests.faults import injection
from tests.faults.harness import Faults
from tests.helpers import supervisors

# Every child leaves its kind and its number, and then sleeps for longer than any test.
START = """
OPEN, SHUT = None, subprocess.DEVNULL
def _start(kind, *, before="", orphan=False, output=OPEN, **how):
    sleep = f"echo {kind} $$ >> {FOLDER}/children; {before} exec sleep 999"
    shell = ["sh", "-c", '(setsid sh -c "$0" &)', sleep]
    process = subprocess.Popen(shell if orphan else ["sh", "-c", sleep], stdout=output, stderr=output, **how)
    if orphan:
        process.wait()
def _start_all():
    clean = {"PATH": os.environ["PATH"]}
    _start("session", start_new_session=True)
    _start("group", process_group=0)
    _start("deaf", before="trap '' TERM HUP INT;")
    _start("orphan", orphan=True, output=SHUT)
    _start("scrubbed", env=clean, start_new_session=True)
    _start("scrubbed-orphan", env=clean, orphan=True)
    _start("bare", env=clean, start_new_session=True, output=SHUT)
    _start("bare-orphan", env=clean, orphan=True, output=SHUT)
"""
KINDS = {"session", "group", "deaf", "orphan", "scrubbed", "scrubbed-orphan", "bare", "bare-orphan"}
# Nothing but the supervisor knows of these: they have no mark, and their output goes nowhere.
BARE = {"bare", "bare-orphan"}


def children(folder: Path) -> dict[str, int]:
    """Return the children by kind, as they told."""
    path = folder / "children"
    lines = path.read_text().splitlines() if path.exists() else []
    return {kind: int(pid) for kind, pid in map(str.split, lines)}


def living(folder: Path) -> set[str]:
    """Return which kinds of children live."""
    return {kind for kind, pid in children(folder).items() if injection.alive(pid)}


@pytest.fixture
def start(faults: Faults) -> Any:
    """Map a function whose task 0 starts children and then does what is asked; what survives is killed at the end."""

    def begin(then: str, *options: str, n: int = 4) -> JobPool[Any]:
        body = f"{START}\ndef f(x: int) -> int:\n    _audit()\n    if x == 0:\n        _start_all()\n        {then}\n"
        pool = faults.map(f"{body}    return x * x\n", n, *options)
        faults.until(lambda: set(children(faults.folder)) == KINDS, what="all children have started")
        assert living(faults.folder) == KINDS
        return pool

    yield begin
    injection.kill(*children(faults.folder).values())


def cancelled(faults: Faults, _: JobPool[Any]) -> None:
    """Cancel the running task."""
    faults.jobpool("cancel", "pool", "--running", "--wait")


def removed(faults: Faults, _: JobPool[Any]) -> None:
    """Delete the running pool."""
    faults.jobpool("rm", "--force", "pool")


def told_to_end(faults: Faults, pool: JobPool[Any]) -> None:
    """End the supervisor as a machine that shuts down does."""
    os.kill(supervisors(pool.paths.root)[0], signal.SIGTERM)
    faults.ended(pool)


def shut_down(faults: Faults, _: JobPool[Any]) -> None:
    """Shut the pool down without waiting for the task."""
    faults.jobpool("shutdown", "--no-wait", "pool")


@pytest.mark.scenario(27)
@pytest.mark.parametrize("deed", [cancelled, removed, told_to_end, shut_down])
def test_whatever_a_stopped_task_started_is_gone_when_its_pool_ends(
    faults: Faults, start: Any, deed: Callable[[Faults, JobPool[Any]], None]
) -> None:
    """Scenario 27: children in sessions of their own, orphans, deaf ones and ones without a mark; the pool is ended."""
    pool = start("time.sleep(600)")
    faults.injected(len(KINDS))
    deed(faults, pool)
    faults.until(lambda: not living(faults.folder), 5, "nothing that the task started is left")
    if deed is not removed:
        faults.check(pool)


@pytest.mark.scenario(27)
def test_a_time_limit_ends_what_the_task_started_while_the_pool_goes_on(faults: Faults, start: Any) -> None:
    """Scenario 27: a time limit stops the task and its children; other tasks still run."""
    # The others are many short ones, so that no limit hits them however long the machine takes.
    then = f"time.sleep(600)\n    elif not os.path.exists({str(faults.folder / 'go')!r}):\n        time.sleep(0.05)"
    pool = start(then, "--timeout", "3", n=2000)
    faults.injected(len(KINDS))
    # Whose orphan it is that has neither a mark nor a log, nobody can tell: it ends with the pool.
    faults.until(lambda: living(faults.folder) <= {"bare-orphan"}, 20, "what the task started is gone")
    faults.until(lambda: pool.snapshot().counts[TaskState.TIMEOUT] == 1)
    assert pool.snapshot().state is PoolState.RUNNING
    faults.release("go")
    faults.ended(pool)
    faults.until(lambda: not living(faults.folder), 5, "the last orphan is gone with the pool")
    assert [failure.task for failure in pool.failures()] == [0]
    faults.check(pool)


@pytest.mark.scenario(27)
@pytest.mark.parametrize("victim", ["worker", "supervisor"])
def test_what_a_killed_worker_or_supervisor_leaves_is_gone_after_it_is_replaced(
    faults: Faults, start: Any, victim: str
) -> None:
    """Scenario 27: kill -9 of the worker, or of the supervisor and resume: what the task had started is gone."""
    pool = start("_wait_for('go') if jobpool_cli.current_task().attempt == 1 else None", "--max-crashes", "9")
    first = children(faults.folder)
    if victim == "worker":
        faults.injected()
        injection.kill(faults.pids()[0])
    else:
        faults.kill_supervisor(pool)
        faults.jobpool("resume", "pool")
    told = {kind: pid for kind, pid in first.items() if kind not in BARE}
    faults.until(lambda: not any(map(injection.alive, told.values())), 5, "what the dead worker started is gone")
    faults.release("go")
    faults.ended(pool)
    faults.until(lambda: not living(faults.folder), 5, "nothing of the second attempt is left either")
    if victim == "worker":
        assert not any(map(injection.alive, first.values())), "the supervisor has adopted the rest"
    injection.kill(*first.values())
    faults.check(pool)


@pytest.mark.scenario(27)
def test_what_outlives_its_task_lives_as_long_as_its_worker_and_not_longer_than_the_pool(
    faults: Faults, start: Any
) -> None:
    """Scenario 27: the task ends by itself: a server that it started may serve the tasks after it, up to the end."""
    pool = start("return 0\n    if x == 3:\n        _wait_for('go')")
    faults.injected(len(KINDS))
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] == 3)
    assert living(faults.folder) == KINDS
    faults.release("go")
    faults.ended(pool)
    faults.until(lambda: not living(faults.folder), 2, "nothing survives the pool")
    faults.check(pool)


@pytest.mark.scenario(27)
def test_dead_orphans_are_buried_while_the_pool_runs(faults: Faults) -> None:
    """Scenario 27: a task starts orphans that end: they do not pile up as zombies of the supervisor."""
    body = """
def f(x: int) -> int:
    _audit()
    for _ in range(20):
        subprocess.run(["sh", "-c", "(true &)"])
    _wait_for("go")
    return x * x
"""
    pool = faults.map(body, 1, "-j", "1")
    faults.until(lambda: len(faults.ran()) == 1)
    faults.injected(20)
    (supervisor,) = supervisors(pool.paths.root)

    def offspring() -> list[str]:
        threads = Path(f"/proc/{supervisor}/task").iterdir()
        return [pid for thread in threads for pid in (thread / "children").read_text().split()]

    faults.until(lambda: len(offspring()) == 1, 8, "there is the worker, and no zombie")
    faults.release("go")
    faults.check(pool)


@pytest.mark.scenario(27)
def test_a_pool_that_a_task_starts_outlives_the_task_s_pool(faults: Faults) -> None:
    """Scenario 27: what is found by descent is not a supervisor: another pool that a task starts goes on."""
    inner = faults.folder / "inner.py"
    inner.write_text(
        f"import os, time\ndef f(x: int) -> int:\n"
        f"    while not os.path.exists({str(faults.folder / 'go')!r}): time.sleep(0.01)\n    return x * x\n"
    )
    words = faults.command("map", inner, faults.rows(3, "inner.csv"), "--name", "inner")
    body = f"def f(x: int) -> int:\n    _audit()\n    subprocess.run({words!r}, check=True)\n    time.sleep(600)\n"
    pool = faults.map(f"{body}    return x\n", 1)
    faults.until(lambda: faults.open("inner").is_live() if (faults.home / "pools" / "inner").exists() else False)
    faults.until(lambda: faults.open("inner").snapshot().counts[TaskState.RUNNING])
    faults.injected()
    faults.jobpool("cancel", "pool", "--running", "--wait")
    faults.check(pool, None)
    assert faults.open("inner").snapshot().state is PoolState.RUNNING
    faults.release("go")
    faults.finish(faults.open("inner"))
    faults.check(faults.open("inner"), audit=None)
