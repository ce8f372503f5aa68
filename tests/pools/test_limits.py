"""Limits on time and memory stop what they shall, and nothing else."""

from __future__ import annotations

import time

import pytest

from jobpool_cli.model import PoolOptions, TaskState
from tests.helpers import (
    Bench,
    check_invariants,
    square,
)

pytestmark = pytest.mark.timeout(100)


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
    status = pool.follow(60)
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
    pool.follow(60)
    assert not [each for each in pool.failures(history=True) if each.task]
    check_invariants(pool, square)
