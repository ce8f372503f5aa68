"""What tasks print: every line in its own task's range, in order, and seen soon, however fast they print."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from jobpool_cli.model import PoolOptions
from jobpool_cli.pool import JobPool
from tests.helpers import Bench, check_invariants, until
from tests.worker.test_running import log_of, outcomes

pytestmark = pytest.mark.timeout(100)

ONE_WORKER = PoolOptions(workers=1)

# A hundred lines in a fraction of a millisecond: from the second task on, they are gathered.
FAST = "    for line in range(100):\n        print(f'task {x} line {line}')\n"


def lines(x: int) -> str:
    return "".join(f"task {x} line {line}\n" for line in range(100))


def log_text(pool: JobPool[Any]) -> str:
    return "".join(path.read_text() for path in sorted(pool.paths.logs.iterdir()))


def test_each_of_many_tasks_that_print_fast_has_its_own_lines(bench: Bench) -> None:
    pool = bench.map(f"def f(x: int):\n{FAST}    return x\n", 2000)
    pool.follow(60)
    rows = outcomes(pool)
    assert len(rows) == 2000
    assert all(log_of(pool, row).decode() == lines(row["task"]) for row in rows)
    check_invariants(pool, lambda x: x)


def test_what_a_child_prints_follows_what_was_printed_before_it_and_nothing_comes_twice(bench: Bench) -> None:
    body = (
        f"def f(x: int):\n{FAST}"
        "    if x % 20 == 7:\n        subprocess.run(['echo', 'child'])\n"
        "    if x % 20 == 8:\n        os.system('echo child')\n"
        "    if x % 20 == 9:\n"
        "        pid = os.fork()\n"
        "        if not pid:\n            print('child')\n            sys.stdout.flush()\n            os._exit(0)\n"
        "        os.waitpid(pid, 0)\n"
        "    print('after')\n"
    )
    pool = bench.map(body, 60, options=ONE_WORKER)
    pool.follow(60)
    for row in outcomes(pool):
        child = "child\n" if row["task"] % 20 in (7, 8, 9) else ""
        assert log_of(pool, row).decode() == f"{lines(row['task'])}{child}after\n"


def test_gathered_lines_of_a_task_that_goes_on_are_soon_in_the_log(bench: Bench) -> None:
    body = f"def f(x: int):\n{FAST}    if x == 50:\n        _wait_for('go')\n"
    pool = bench.map(body, 60, options=ONE_WORKER)
    until(lambda: lines(50) in log_text(pool), what="the running task's lines are in the log")
    bench.release("go")
    pool.follow(60)


def test_a_killed_worker_leaves_the_last_line_of_a_task_that_prints_now_and_then(bench: Bench) -> None:
    body = (
        "def f(x: int):\n    if x == 5 and jobpool_cli.current_task().attempt == 1:\n        print('last words')\n"
        f"        os.kill(os.getpid(), {int(signal.SIGKILL)})\n    print('task', x)\n"
    )
    pool = bench.map(body, 10, options=ONE_WORKER)
    pool.follow(60)
    assert "last words\n" in log_text(pool)


def test_a_task_that_is_stopped_leaves_what_it_had_gathered(bench: Bench) -> None:
    body = f"def f(x: int):\n    if x == 50:\n        print('last words')\n        time.sleep(60)\n{FAST}"
    options = PoolOptions(workers=1, timeout=0.3, grace=5)
    pool = bench.map(body, 60, options=options)
    pool.follow(60)
    assert "last words\n" in log_text(pool)


def test_a_process_that_the_operating_system_starts_for_a_task_inherits_no_gathered_lines(bench: Bench) -> None:
    body = (
        "import multiprocessing\n"
        f"def f(x: int):\n{FAST}"
        "    if x == 30:\n"
        "        child = multiprocessing.get_context('fork').Process(target=print, args=('child',))\n"
        "        child.start()\n        child.join()\n"
    )
    pool = bench.map(body, 60, options=ONE_WORKER)
    pool.follow(60)
    text = log_text(pool)
    assert text.count("child\n") == 1
    assert text.count("task 30 line 99\n") == 1
    assert os.path.getsize(pool.paths.worker_log(1)) == len(text)
