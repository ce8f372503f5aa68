"""Readers that stop inside their read: the pool goes on, and its write-ahead log does not stay large."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import random
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli.model import PoolState, TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.store.state.writer import LOG_BYTES
from tests.faults import ledger
from tests.faults.harness import Faults
from tests.faults.injection import stopped

TASKS = 500
SIZE = 40_000
# Results that hardly shrink, and stay in the inbox for a while: the log grows by megabytes.
LARGE = f"""import random
def f(x: int) -> bytes:
    _audit()
    time.sleep(0.004)
    if x >= 400:
        _wait_for('go')
    return random.Random(x).randbytes({SIZE})
"""
READER = """
import sys
from pathlib import Path
from jobpool_cli.store.state.reader import StateReader
with StateReader(Path(sys.argv[1])) as reader, reader.snapshot():
    print(reader.counters().success, flush=True)
    sys.stdin.readline()
    print(reader.counters().success, flush=True)
"""


def large(x: int) -> bytes:
    """Say what the tasks returned."""
    return random.Random(x).randbytes(SIZE)  # noqa: S311 - no secret


def log_size(pool: JobPool[Any]) -> int:
    """Return the size of the write-ahead log, 0 if there is none."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"{pool.paths.state_db}-wal").stat().st_size
    return 0


@contextlib.contextmanager
def reading(faults: Faults, pool: JobPool[Any]) -> Iterator[subprocess.Popen[str]]:
    """Run a process that is in the middle of a read, until a line is written to it."""
    words = [sys.executable, "-c", READER, str(pool.paths.state_db)]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=faults.env, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> int:
    """Return the number that a reader tells."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def go_on(process: subprocess.Popen[str]) -> int:
    """Let a reader end its read; return what it saw at its end."""
    assert process.stdin is not None
    process.stdin.write("\n")
    return line(process)


@pytest.mark.scenario(11)
def test_a_reader_stopped_inside_its_read_does_not_hold_the_pool_up_and_the_log_shrinks_afterwards(
    faults: Faults,
) -> None:
    """Scenario 11: a reader stopped inside its read: the pool goes on, and the WAL shrinks after SIGCONT."""
    pool = faults.map(LARGE, TASKS)
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > 5)
    with reading(faults, pool) as reader:
        before = line(reader)
        with stopped(reader.pid):
            faults.injected()
            faults.until(lambda: log_size(pool) > LOG_BYTES + 100 * SIZE, what="the log grows")
            shown = faults.look(pool)
            assert len(shown) > before
            faults.jobpool("results", "pool", str(min(shown)))
        assert go_on(reader) == before, "a reader's snapshot moved"
        reader.wait()
    grown = log_size(pool)
    # Every commit that follows may be the one that begins the log anew.
    release = iter(range(400, TASKS))
    faults.release("go")
    faults.until(lambda: log_size(pool) <= LOG_BYTES or next(release, None) is None, what="the log shrinks")
    assert log_size(pool) <= LOG_BYTES < grown
    faults.finish(pool)
    faults.ended(pool)
    assert log_size(pool) == 0
    faults.check(pool, large)


@pytest.mark.scenario(11)
def test_a_reader_stopped_while_the_pool_ends_is_waited_for_by_its_supervisor_and_by_nobody_else(
    faults: Faults,
) -> None:
    """Scenario 11: stopped at the end: wait, results and collect do not notice, and the WAL is gone after SIGCONT."""
    pool = faults.map(LARGE.replace("if x >= 400", "if x == 30"), 31)
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] == 30)
    with reading(faults, pool) as reader:
        line(reader)
        with stopped(reader.pid):
            faults.injected()
            faults.release("go")
            faults.jobpool("wait", "pool", seconds=9)
            assert pool.snapshot().state is PoolState.DONE
            assert faults.jobpool("results", "pool", "30", seconds=9).stdout.startswith("30\t")
        go_on(reader)
        reader.wait()
    faults.ended(pool)
    assert log_size(pool) == 0
    faults.check(pool, large)


@pytest.mark.scenario(11)
def test_a_log_that_a_reader_held_to_the_end_is_folded_in_by_the_doctor(faults: Faults) -> None:
    """Scenario 11: a reader outlasts the supervisor: nothing is lost, and doctor --repair folds the WAL in."""
    pool = faults.map(LARGE.replace("if x >= 400", "if x < 5"), 200)
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] > 0)
    with reading(faults, pool) as reader:
        line(reader)
        with stopped(reader.pid):
            faults.injected()
            faults.release("go")
            if ledger.is_long():  # the supervisor waits for the reader for ten seconds
                faults.ended(pool)
                assert pool.snapshot().state is PoolState.DONE
            else:
                faults.until(lambda: log_size(pool) > LOG_BYTES + 10 * SIZE)
                faults.look(pool)
                faults.kill_supervisor(pool)
            assert log_size(pool) > LOG_BYTES
            assert "write-ahead log" in faults.jobpool("doctor", "pool").stdout
            assert "still holds" in faults.jobpool("doctor", "pool", "--repair", seconds=30).stdout
        go_on(reader)
        reader.wait()
    assert "folded in" in faults.jobpool("doctor", "pool", "--repair").stdout
    assert log_size(pool) == 0
    faults.finish(pool)
    faults.check(pool, large)


@pytest.mark.scenario(11)
@pytest.mark.parametrize("verb", ledger.scaled(["results"], ["results", "tasks"]))
def test_a_command_whose_reader_does_not_read_holds_nothing_up(faults: Faults, verb: str) -> None:
    """Scenario 11: a command stopped by a full pipe, as with a pager: it holds no read open; the WAL stays small."""
    pool = faults.map(LARGE, TASKS)
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > 100)
    read_end, write_end = os.pipe()
    environment = {**faults.env, "JOBPOOL_HOME": str(faults.home)}
    command = subprocess.Popen(faults.command(verb, "pool"), stdout=write_end, env=environment, stderr=subprocess.PIPE)
    os.close(write_end)
    try:
        faults.until(lambda: os.get_blocking(read_end) and _waiting(read_end) > 0, what="the command writes")
        with stopped(command.pid):
            faults.injected()
            faults.release("go")
            faults.finish(pool)
            faults.ended(pool)
        assert log_size(pool) == 0
        with open(read_end, "rb") as pipe:
            assert pipe.read().count(b"\n") >= 100
        assert command.wait(30) == 0
    finally:
        command.kill()
        command.communicate()
    faults.check(pool, large)


def _waiting(pipe: int) -> int:
    found = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, found)
    return found[0]
