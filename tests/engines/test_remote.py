"""Hosts that come and go, and what the supervisor's side makes of it; over pipes, without a cluster."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from jobpool_cli import submit
from jobpool_cli.engines.base import EngineEvent, Lost, Outcomes, Ready
from jobpool_cli.engines.remote import engine as remote
from jobpool_cli.engines.remote.carrier import Data
from jobpool_cli.engines.remote.engine import RemoteEngine
from jobpool_cli.model import Cluster, PoolOptions
from jobpool_cli.worker.protocol import BatchOrder
from tests.engines.pipes import Pipes
from tests.helpers import Bench, marked, until

Found = TypeVar("Found")


class Rig:
    """A remote engine over pipes, without a supervisor."""

    def __init__(self, bench: Bench, options: PoolOptions) -> None:
        """Make a pool whose tasks from 50 on wait to be released."""
        self.bench = bench
        body = "def f(x: int):\n    _audit()\n    _wait_for('go') if x >= 50 else None\n    return x * x\n"
        self.pool = bench.map(body, 100, options=options)
        self.carrier = Pipes(bench.folder / "hosts")
        manifest = self.pool.manifest._replace(options=options)
        self.engine = RemoteEngine(self.pool.paths, manifest, udf=1, numbers=itertools.count(1), carrier=self.carrier)
        self.events: list[EngineEvent] = []

    def polled(self) -> bool:
        """Poll once."""
        self.events += self.engine.poll(0.02)
        return True

    def await_(self, kind: type[Found], count: int = 1) -> list[Found]:
        """Poll until so many events of a kind have come; return them."""

        def enough() -> bool:
            return self.polled() and sum(isinstance(each, kind) for each in self.events) >= count

        until(enough, what=f"{count} {kind.__name__}")
        return [each for each in self.events if isinstance(each, kind)]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(submit, "launch", lambda _paths, _standby: None)
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        made.append(Rig(Bench(tmp_path), PoolOptions(workers=2, grace=0.2)._replace(**options)))
        return made[-1]

    yield make
    for each in made:
        each.engine.stop()
    until(lambda: not any(marked(each.pool) for each in made), what="nothing of the pools runs any more")


def test_of_what_a_lost_host_held_any_task_may_have_begun(rig: Any) -> None:
    made = rig()
    made.engine.spawn(0, 0)
    made.await_(Ready)
    made.engine.send(0, BatchOrder(1, ((48, 60),), 1, 1))
    until(lambda: made.polled() and len(made.bench.pids()) == 3, what="the third task has begun")
    os.kill(made.carrier.hosts[0].pid, signal.SIGKILL)
    (lost,) = made.await_(Lost)
    assert (lost.slot, lost.cause, lost.booted, lost.sure) == (0, "crash", True, False)
    assert (lost.batch, lost.position) == (None, None)
    assert "host is gone" in lost.exit
    made.engine.spawn(0, 0)
    made.await_(Ready, 2)
    made.engine.send(0, BatchOrder(2, ((0, 10),), 2, 1))
    until(lambda: made.polled() and any(each.body["final"] for each in made.await_(Outcomes)))


def test_a_host_without_work_is_given_back_where_they_come_and_go_but_for_the_least(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(remote, "BEAT_SECONDS", 0.1)
    made = rig(cluster=Cluster("tcp://nowhere:1", minimum=1))
    for slot in (0, 1):
        made.engine.spawn(slot, 0)
    made.await_(Ready, 2)
    made.engine.send(1, BatchOrder(1, ((50, 51),), 1, 1))
    until(lambda: made.polled() and len(made.bench.pids()) == 1, what="the task has begun")
    (lost,) = made.await_(Lost)
    assert (lost.slot, lost.cause) == (0, "stopped")
    made.carrier.hosts[0].wait(20)
    assert made.carrier.hosts[1].poll() is None
    made.engine.spawn(0, 0)
    made.await_(Ready, 3)
    made.bench.release("go")
    made.await_(Outcomes)


def test_a_host_that_tells_what_no_host_tells_is_given_up(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig()
    made.engine.spawn(0, 0)
    made.await_(Ready)
    real = made.carrier.news
    monkeypatch.setattr(made.carrier, "news", lambda: [*real(), Data(0, b"no frame at all, and long enough for one")])
    lost = made.await_(Lost)[0]
    assert (lost.slot, lost.sure) == (0, False)
    monkeypatch.undo()
    until(lambda: made.carrier.hosts[0].poll() is not None, what="its process has ended")
