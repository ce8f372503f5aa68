"""Functions that harm their process: nobody else pays for it."""

from __future__ import annotations

import pytest

from jobpool_cli.model import PoolOptions, TaskState
from tests.helpers import (
    Bench,
    check_invariants,
    square,
)

pytestmark = pytest.mark.timeout(100)


def test_a_task_cannot_end_its_worker_by_an_exception(bench: Bench) -> None:
    body = """
class Own(BaseException): pass
class Odd(Exception):
    def __str__(self): raise RuntimeError("no")
def f(x: int):
    _audit()
    if x == 10: sys.exit(0)
    if x == 20: raise KeyboardInterrupt
    if x == 30: raise GeneratorExit
    if x == 40: raise Own("mine")
    if x == 50: raise Odd
    if x == 60: raise type("\\udcff", (Exception,), {})("\\udcff\\0")
    if x == 70: exec(compile("1/0", "\\udcff.py", "exec"))
    return x * x
"""
    pool = bench.map(body, 100)
    status = pool.follow(30)
    assert (status.counts[TaskState.SUCCESS], status.counts[TaskState.ERROR]) == (93, 7)
    found = {each.task: each for each in pool.failures()}
    assert found[10].type == "SystemExit"
    assert found[20].type == "KeyboardInterrupt"
    assert found[30].type == "GeneratorExit"
    assert found[40].message == "mine"
    assert "RuntimeError" in found[50].message
    assert found[70].type == "ZeroDivisionError"
    assert all(each.attempt == 1 for each in found.values())
    assert len({pid for pid in bench.pids() if pid}) <= 2, "no worker was replaced"
    check_invariants(pool, square)


def test_what_a_task_does_to_its_streams_and_surroundings_does_not_reach_the_next(bench: Bench) -> None:
    body = """
import io
def f(x: int):
    _audit()
    if x == 2:
        os.close(1); os.close(2)
    if x == 4:
        sys.stdout = sys.stderr = io.StringIO()
    if x == 6:
        sys.stdout.close()
    if x == 8:
        os.chdir("/"); os.umask(0); sys.path.clear(); signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(0.001)
    if x == 10:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        time.sleep(0.001)
    if x % 2:
        print(f"<{x}>")
        os.write(2, f"[{x}]".encode())
        mask = os.umask(0o77); os.umask(mask)
        return [os.getcwd() == HERE, mask == MASK, len(sys.path) > 0]
    return None
HERE = os.getcwd()
MASK = os.umask(0o77); os.umask(MASK)
"""
    pool = bench.map(body, 24, options=PoolOptions(workers=1))
    assert pool.follow(30).counts[TaskState.SUCCESS] == 24
    (log,) = pool.paths.logs.iterdir()
    text = log.read_text()
    assert [x for x in range(1, 24, 2) if f"<{x}>\n[{x}]" not in text] == []
    check_invariants(pool, lambda x: [True, True, True] if x % 2 else None)


def test_a_fork_that_returns_makes_no_second_outcome(bench: Bench) -> None:
    body = "def f(x: int):\n    if x % 5 == 0:\n        os.fork()\n    _audit()\n    return x * x\n"
    pool = bench.map(body, 50)
    assert pool.follow(30).counts[TaskState.SUCCESS] == 50
    check_invariants(pool, square)


def test_a_thread_that_is_left_behind_does_not_hold_the_pool_up(bench: Bench) -> None:
    body = """
import threading
def _chatter():
    while True:
        print("still here"); time.sleep(0.01)
def f(x: int):
    threading.Thread(target=_chatter).start()
    return x * x
"""
    pool = bench.map(body, 4)
    assert pool.follow(30).counts[TaskState.SUCCESS] == 4
    check_invariants(pool, square)


def test_a_result_that_cannot_be_stored_fails_its_task_alone(bench: Bench) -> None:
    body = """
def f(x: int):
    _audit()
    if x == 7:
        return (each for each in range(3))
    return x * x
"""
    pool = bench.map(body, 50)
    status = pool.follow(30)
    assert (status.counts[TaskState.SUCCESS], status.counts[TaskState.ERROR]) == (49, 1)
    (failure,) = pool.failures()
    assert (failure.task, failure.type) == (7, "ResultNotStorable")
    assert "generator" in failure.message
    assert max(bench.audit().values()) == 1
    check_invariants(pool, square)


def test_junk_in_the_channels_replaces_the_worker_and_blames_nobody_for_long(bench: Bench) -> None:
    body = """
def f(x: int):
    _audit()
    if x == 30 and jobpool_cli.current_task().attempt == 1:
        for fd in range(3, 64):
            try: os.write(fd, b"junk" * 10)
            except OSError: pass
        time.sleep(5)
    return x * x
"""
    pool = bench.map(body, 60)
    assert pool.follow(30).counts[TaskState.SUCCESS] == 60
    check_invariants(pool, square)
