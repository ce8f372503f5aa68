"""Pools of 100 tasks of which one is hostile: the other 99 succeed, each run once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jobpool_cli.model import TaskState
from jobpool_cli.pool import JobPool
from tests.faults.harness import Faults
from tests.helpers import square

TASKS = 100
BAD = 57
# Longer than what has ended waits in a worker's memory: whatever happens then, all before it is recorded.
SENT_SECONDS = 0.6


def hostile(deed: str, *, top: str = "", settled: bool = False) -> str:
    """Return a UDF of which task ``BAD`` does the deed.

    Args:
        deed: its lines.
        top: lines of the module.
        settled: let it wait until all that ended before it is recorded.
    """
    wait = f"time.sleep({SENT_SECONDS})\n" if settled else ""
    lines = "".join(f"        {line}\n" for line in (wait + deed).splitlines())
    return f"{top}\ndef f(x: int) -> object:\n    _audit()\n    if x == {BAD}:\n{lines}    return x * x\n"


def several(deeds: Mapping[str, str], *, top: str = "", rest: str = "return x * x") -> tuple[str, dict[str, int]]:
    """Return a UDF of which several tasks do a deed each, far apart, and the task of each by its name.

    Args:
        deeds: their lines by name.
        top: lines of the module.
        rest: what every task does that has not returned.
    """
    tasks = {name: 4 + number * (TASKS - 8) // len(deeds) for number, name in enumerate(deeds)}
    body = f"{top}\ndef f(x: int) -> object:\n    _audit()\n"
    for name, deed in deeds.items():
        body += f"    if x == {tasks[name]}:\n" + "".join(f"        {line}\n" for line in deed.splitlines())
    return body + "".join(f"    {line}\n" for line in rest.splitlines()), tasks


def check_the_bad_one_failed(
    faults: Faults, pool: JobPool[Any], kind: str, *, attempts: int = 1, once: bool = True, state: str = "error"
) -> Any:
    """Check that task ``BAD`` alone failed, after so many attempts, and INV; return its failure.

    Args:
        faults: of the test.
        pool: the pool; it is waited for.
        kind: the failure's type.
        attempts: how many attempts it got.
        once: whether each of the others ran once; else none ran twice in one attempt.
        state: how the failed task is shown.
    """
    faults.ended(pool)
    counts = pool.snapshot().counts
    assert (counts[TaskState.SUCCESS], counts[TaskState(state)]) == (TASKS - 1, 1), counts
    (failure,) = pool.failures()
    assert (failure.task, failure.type) == (BAD, kind), failure
    assert {each.task for each in pool.failures(history=True)} == {BAD}, "nobody else is blamed"
    assert faults.ran()[BAD] == attempts
    check_others(faults, once=once)
    faults.check(pool)
    return failure


def check_all_succeeded(
    faults: Faults, pool: JobPool[Any], oracle: Callable[[int], object] | None = square, *, once: bool = True
) -> None:
    """Check that the hostile task harmed nobody, itself included, and INV."""
    faults.ended(pool)
    counts = pool.snapshot().counts
    assert counts[TaskState.SUCCESS] == pool.n_jobs, (counts, pool.failures(history=True)[:3])
    check_others(faults, once=once)
    faults.check(pool, oracle)


def check_others(faults: Faults, *, once: bool = True) -> None:
    """Check that every task but ``BAD`` ran once, or at least never twice in one attempt."""
    if once:
        again = {task: times for task, times in faults.ran().items() if times > 1 and task != BAD}
        assert not again, "others ran again"
    assert max(faults.audit().values()) == 1
