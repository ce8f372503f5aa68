from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobpool_cli import submit
from jobpool_cli.engines.base import EngineEvent, Lost, Outcomes, Ready
from jobpool_cli.engines.local import LocalEngine
from jobpool_cli.engines.processes import MARK, kill_marked, memory_of_tree
from jobpool_cli.model import PoolOptions
from jobpool_cli.store.slots import read_running
from jobpool_cli.worker.protocol import BatchOrder
from tests.helpers import Bench, until

OPTIONS = PoolOptions(workers=2, grace=0.2)


class Rig:
    """An engine without a supervisor."""

    def __init__(self, bench: Bench, body: str) -> None:
        """Make a pool that nobody supervises, and its engine."""
        self.bench = bench
        self.pool = bench.map(body, 100, options=OPTIONS)
        self.engine = LocalEngine(
            self.pool.paths,
            OPTIONS,
            pool_id=self.pool.manifest.id,
            folder=bench.folder,
            udf=1,
            numbers=itertools.count(1),
        )
        self.events: list[EngineEvent] = []

    def poll_for(self, kind: type[EngineEvent], count: int = 1) -> None:
        def found() -> bool:
            self.events += self.engine.poll(0.02)
            return sum(isinstance(each, kind) for each in self.events) >= count

        until(found, what=f"{count} {kind.__name__}")

    def pid(self, slot: int) -> int:
        return self.engine._processes[slot].popen.pid


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(submit, "launch", lambda _paths, _standby: None)
    made = Rig(Bench(tmp_path), "def f(x: int):\n    _wait_for('go') if x >= 50 else None\n    return x\n")
    yield made
    made.engine.stop()


def order(batch: int, low: int, high: int) -> BatchOrder:
    return BatchOrder(batch, ((low, high),), 1, 1)


def test_a_worker_that_is_dead_already_takes_batches_until_its_death_is_told_and_names_them(rig: Rig) -> None:
    for slot in (0, 1):
        rig.engine.spawn(slot, 0)
    rig.poll_for(Ready, 2)
    rig.engine.send(0, order(1, 0, 2))
    os.kill(rig.pid(1), signal.SIGKILL)
    os.waitid(os.P_PID, rig.pid(1), os.WEXITED | os.WNOWAIT)
    told: list[Lost] = []
    sent = False
    deadline = time.monotonic() + 20
    while not told and time.monotonic() < deadline:
        for event in rig.engine.poll(0.02):
            if isinstance(event, Lost):
                told.append(event)
            elif isinstance(event, Outcomes) and not sent:
                # As the scheduler does when it hears of one worker while another one is dead.
                rig.engine.send(1, order(2, 2, 4))
                sent = True
    if sent:
        assert told[0].unbegun == (2,)
    assert (told[0].slot, told[0].batch, told[0].cause, told[0].booted) == (1, None, "crash", True)


def test_what_a_dead_worker_never_read_is_told_apart_from_what_it_ran(rig: Rig) -> None:
    rig.engine.spawn(0, 0)
    rig.poll_for(Ready)
    rig.engine.send(0, order(1, 49, 60))
    rig.engine.send(0, order(2, 60, 70))
    until(lambda: [each.task for each in read_running(rig.pool.paths.slots)] == [50])
    os.kill(rig.pid(0), signal.SIGKILL)
    rig.poll_for(Lost)
    (lost,) = [each for each in rig.events if isinstance(each, Lost)]
    assert (lost.batch, lost.position, lost.unbegun) == (1, 1, (2,))
    assert lost.exit == "killed by signal 9 (SIGKILL)"


def test_a_batch_is_taken_back_only_if_its_worker_has_not_begun_it(rig: Rig) -> None:
    rig.engine.spawn(0, 0)
    rig.poll_for(Ready)
    for batch in (1, 2, 3):
        rig.engine.send(0, order(batch, 50 + batch, 51 + batch))
    until(lambda: len(read_running(rig.pool.paths.slots)) == 1)
    assert not rig.engine.take_back(0, 1)
    assert rig.engine.take_back(0, 2)
    assert not rig.engine.take_back(0, 2)
    rig.bench.release("go")
    rig.poll_for(Outcomes, 2)
    assert [each.body["batch"] for each in rig.events if isinstance(each, Outcomes)] == [1, 3]


def test_a_running_batch_is_cut_behind_the_running_task(rig: Rig) -> None:
    rig.engine.spawn(0, 0)
    rig.poll_for(Ready)
    rig.engine.send(0, order(1, 48, 60))
    until(lambda: [each.task for each in read_running(rig.pool.paths.slots)] == [50])
    assert rig.engine.trim(0, 2) is None
    assert rig.engine.trim(0, 1) == 3
    rig.bench.release("go")
    rig.poll_for(Outcomes)
    last = rig.events[-1]
    assert isinstance(last, Outcomes)
    if not last.body["final"]:
        rig.poll_for(Outcomes, 2)
        last = rig.events[-1]
        assert isinstance(last, Outcomes)
    assert (last.body["upto"], last.body["final"]) == (3, True)


def test_a_killed_worker_is_lost_for_the_cause_that_was_given(rig: Rig) -> None:
    rig.engine.spawn(0, 0)
    rig.poll_for(Ready)
    rig.engine.send(0, order(1, 49, 60))
    until(lambda: [each.task for each in read_running(rig.pool.paths.slots)] == [50])
    rig.engine.kill(0, "cancelled")
    rig.engine.kill(0, "stopped")
    rig.poll_for(Lost)
    outcomes, lost = rig.events[-2:]
    assert isinstance(lost, Lost)
    assert (lost.cause, lost.batch, lost.position) == ("cancelled", 1, 1)
    # What had ended before is not lost with it.
    assert isinstance(outcomes, Outcomes)
    assert (outcomes.body["rows"], outcomes.body["upto"], outcomes.body["final"]) == (1, 1, False)


def test_a_worker_that_the_machine_does_not_let_start_is_lost_and_leaves_nothing_open(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("jobpool_cli.engines.local.os.pidfd_open", refuse)
        before = os.listdir("/proc/self/fd")
        rig.engine.spawn(0, 0)
        (lost,) = rig.engine.poll(0)
        assert os.listdir("/proc/self/fd") == before
    assert isinstance(lost, Lost)
    assert (lost.cause, lost.booted) == ("unstarted", False)
    assert "Too many open files" in lost.exit
    rig.engine.spawn(0, 0)
    rig.poll_for(Ready)


def test_a_worker_whose_log_is_deleted_is_buried_all_the_same(rig: Rig) -> None:
    rig.engine.spawn(0, 0)
    rig.poll_for(Ready)
    rig.engine.send(0, order(1, 50, 51))
    until(lambda: read_running(rig.pool.paths.slots))
    for log in rig.pool.paths.logs.iterdir():
        log.unlink()
    os.kill(rig.pid(0), signal.SIGKILL)
    rig.poll_for(Lost)
    assert isinstance(rig.events[-1], Lost)
    assert (rig.events[-1].position, rig.events[-1].log) == (0, None)


def test_memory_is_that_of_a_process_and_all_its_descendants() -> None:
    hold = "block = bytearray(b'x') * (60 << 20)\n"
    start = f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {hold!r} + 'input()'])\n"
    code = f"{start}{hold}child.wait()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        until(lambda: memory_of_tree(process.pid) > 120 << 20)
        assert memory_of_tree(process.pid) < 300 << 20
        process.communicate(b"\n")
    assert memory_of_tree(process.pid) == 0


def test_what_carries_a_mark_is_killed_and_what_carries_a_longer_one_is_not() -> None:
    def sleeper(mark: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: mark}, start_new_session=True)  # noqa: S607

    ours, same, other = sleeper("pool-a:1"), sleeper("pool-a:1"), sleeper("pool-a:12")
    try:
        kill_marked("pool-a:1")
        assert (ours.wait(5), same.wait(5)) == (-signal.SIGKILL, -signal.SIGKILL)
        assert other.poll() is None
        kill_marked("pool-a")
        assert other.wait(5) == -signal.SIGKILL
    finally:
        for each in (ours, same, other):
            each.kill()
            each.wait()
