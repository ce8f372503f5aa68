"""What any engine does: the same sentences for each of them. docs/reference/engines.md is the contract in words."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobpool_cli import submit
from jobpool_cli.engines.base import BootFailed, Engine, EngineEvent, Lost, Outcomes, Ready, TakenBack, Trimmed
from jobpool_cli.engines.dask.carrier import DaskCarrier
from jobpool_cli.engines.local import LocalEngine
from jobpool_cli.engines.remote.carrier import Carrier
from jobpool_cli.engines.remote.engine import RemoteEngine
from jobpool_cli.model import Cluster, PoolOptions
from jobpool_cli.pool import JobPool
from jobpool_cli.store.outcomes.table import table_of
from jobpool_cli.store.slots import read_running
from jobpool_cli.worker.protocol import BatchOrder
from tests.engines.cluster import dask_cluster
from tests.engines.pipes import Pipes
from tests.engines.slurm import missing, slurm, slurm_cluster
from tests.helpers import Bench, marked, until

Found = TypeVar("Found")
OPTIONS = PoolOptions(workers=2, grace=0.2)


ENGINES = ("local", "pipes", "dask", "slurm")


@pytest.fixture(scope="module")
def dask_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Dask cluster of two workers on loopback."""
    with dask_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running.address


@pytest.fixture(scope="module")
def slurm_there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Slurm of one node; the folder in which its jobs may write."""
    if missing():
        pytest.skip(f"not installed: {', '.join(missing())} (Debian: slurm-wlm, munge)")
    folder = tmp_path_factory.mktemp("slurm")
    with slurm(folder) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield folder


Make = Callable[[Bench, JobPool[Any], PoolOptions], Engine]


def maker(kind: str, request: pytest.FixtureRequest) -> Make:
    """Return how an engine of a kind is made."""

    def local(bench: Bench, pool: JobPool[Any], options: PoolOptions) -> LocalEngine:
        numbers = itertools.count(1)
        return LocalEngine(pool.paths, options, pool_id=pool.manifest.id, folder=bench.folder, udf=1, numbers=numbers)

    def pipes(bench: Bench, pool: JobPool[Any], options: PoolOptions) -> RemoteEngine:
        return remote(pool, options, Pipes(bench.folder / "hosts"))

    def dask(_bench: Bench, pool: JobPool[Any], options: PoolOptions) -> RemoteEngine:
        return on(Cluster(request.getfixturevalue("dask_address")), pool, options)

    def on_slurm(_bench: Bench, pool: JobPool[Any], options: PoolOptions) -> RemoteEngine:
        return on(slurm_cluster(request.getfixturevalue("slurm_there")), pool, options)

    def on(cluster: Cluster, pool: JobPool[Any], options: PoolOptions) -> RemoteEngine:
        asked = {"pool": pool.manifest.id, "workers": options.workers, **cluster._asdict()}
        return remote(pool, options, DaskCarrier(asked))

    def remote(pool: JobPool[Any], options: PoolOptions, carrier: Carrier) -> RemoteEngine:
        manifest = pool.manifest._replace(options=options)
        return RemoteEngine(pool.paths, manifest, udf=1, numbers=itertools.count(1), carrier=carrier)

    makers: dict[str, Make] = {"local": local, "pipes": pipes, "dask": dask, "slurm": on_slurm}
    return makers[kind]


class Rig:
    """An engine without a supervisor."""

    def __init__(self, bench: Bench, make: Make, body: str, options: PoolOptions) -> None:
        """Make a pool that nobody supervises, and its engine."""
        self.bench = bench
        self.pool = bench.map(body, 100, options=options)
        self.engine = make(bench, self.pool, options)
        self.events: list[EngineEvent] = []

    def await_(self, kind: type[Found], count: int = 1) -> list[Found]:
        """Poll until so many events of a kind have come; return all of that kind."""

        def found() -> list[Found]:
            return [each for each in self.events if isinstance(each, kind)]

        def enough() -> bool:
            self.events += self.engine.poll(0.02)
            return len(found()) >= count

        until(enough, what=f"{count} {kind.__name__}")
        return found()

    def ready(self, slot: int = 0) -> None:
        """Have a worker in a slot."""
        before = sum(isinstance(each, Ready) for each in self.events)
        self.engine.spawn(slot, 0)
        self.await_(Ready, before + 1)

    def outcomes(self, batch: int) -> list[dict[str, Any]]:
        """Poll until a batch is over; return all that was told of it."""

        def told() -> list[dict[str, Any]]:
            bodies = [each.body for each in self.events if isinstance(each, Outcomes)]
            return [body for body in bodies if body["batch"] == batch]

        def over() -> bool:
            self.events += self.engine.poll(0.02)
            return any(body["final"] for body in told())

        until(over, what=f"the end of batch {batch}")
        return told()

    def running(self) -> list[int]:
        """Return the tasks that are shown as running."""
        self.events += self.engine.poll(0.02)
        return [each.task for each in read_running(self.pool.paths.slots)]


MakeRig = Callable[..., Rig]


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeRig]:
    """Make a rig of each engine."""
    monkeypatch.setattr(submit, "launch", lambda _paths, _standby: None)
    made: list[Rig] = []

    def rig(body: str, options: PoolOptions = OPTIONS) -> Rig:
        made.append(Rig(Bench(tmp_path), maker(request.param, request), body, options))
        return made[-1]

    yield rig
    for each in made:
        each.engine.stop()
        until(partial(_is_over, each.pool), what="nothing of the pool runs any more")


def _is_over(pool: JobPool[Any]) -> bool:
    return not marked(pool)


def order(batch: int, *ranges: tuple[int, int], attempt: int = 1, udf: int = 1) -> BatchOrder:
    return BatchOrder(batch, ranges, attempt, udf)


HELD = "def f(x: int):\n    _audit()\n    _wait_for('go') if x >= 50 else None\n    return x * x\n"


def test_a_batch_is_run_in_its_order_and_told_of_to_the_end(make: MakeRig) -> None:
    rig = make("def f(x: int):\n    _audit()\n    return x * x\n")
    rig.ready()
    rig.engine.send(0, order(1, (40, 50), (3, 7), attempt=2))
    bodies = rig.outcomes(1)
    assert [task for task, _ in rig.bench.audit()] == [*range(40, 50), *range(3, 7)]
    assert {attempt for _, attempt in rig.bench.audit()} == {2}
    assert sum(body["rows"] for body in bodies) == 14
    assert bodies[-1]["upto"] == 14
    payloads = [each.payload for each in rig.events if isinstance(each, Outcomes) and each.body["rows"]]
    rows = pa.concat_tables([table_of(each) for each in payloads]).to_pylist()
    assert {row["task"]: row["result"] for row in rows} == {x: x * x for x in [*range(3, 7), *range(40, 50)]}


def test_what_fails_is_told_with_its_reason_and_what_it_printed(make: MakeRig) -> None:
    rig = make("def f(x: int):\n    print('printed by', x)\n    return 1 // x\n")
    rig.ready()
    rig.engine.send(0, order(1, (0, 3)))
    (failure,) = [failure for body in rig.outcomes(1) for failure in body["failures"]]
    assert (failure["position"], failure["type"]) == (0, "ZeroDivisionError")
    low, high = failure["log"]
    (log,) = rig.pool.paths.logs.iterdir()
    assert log.read_bytes()[low:high].startswith(b"printed by 0\n")
    assert b"printed by 1\n" in log.read_bytes()


def test_a_running_task_is_shown_with_what_it_has_printed(make: MakeRig) -> None:
    rig = make(HELD.replace("_audit()", "print('here', x, flush=True)"))
    rig.ready(1)
    rig.engine.send(1, order(1, (49, 60), attempt=3))
    until(lambda: rig.running() == [50], what="task 50 is shown")
    (shown,) = read_running(rig.pool.paths.slots)
    assert (shown.attempt, shown.worker) == (3, 1)
    assert shown.elapsed < 30
    log = rig.pool.paths.worker_log(1)
    until(lambda: rig.running() and b"here 50\n" in log.read_bytes()[shown.log_start :], what="its output is there")
    rig.bench.release("go")
    rig.outcomes(1)
    until(lambda: not rig.running(), what="nothing is shown")


def test_a_batch_that_has_not_begun_can_be_had_back(make: MakeRig) -> None:
    rig = make(HELD)
    rig.ready()
    for batch in (1, 2, 3):
        rig.engine.send(0, order(batch, (50 + batch, 52 + batch)))
    until(lambda: rig.running() == [51])
    back = [batch for batch in (1, 2) if rig.engine.take_back(0, batch)]
    if not back:
        back = [each.batch for each in rig.await_(TakenBack)]
    assert back == [2]
    rig.bench.release("go")
    rig.outcomes(1)
    rig.outcomes(3)
    assert sorted(task for task, _ in rig.bench.audit()) == [51, 52, 53, 54]


def test_the_tail_of_a_running_batch_can_be_had_back(make: MakeRig) -> None:
    rig = make(HELD)
    rig.ready()
    rig.engine.send(0, order(1, (48, 60)))
    until(lambda: rig.running() == [50])
    kept = rig.engine.trim(0, 1)
    if kept is None:
        (trimmed,) = rig.await_(Trimmed)
        kept = trimmed.kept
    assert kept == 3
    rig.bench.release("go")
    assert rig.outcomes(1)[-1]["upto"] == 3
    assert sorted(task for task, _ in rig.bench.audit()) == [48, 49, 50]


def test_a_worker_that_is_told_to_end_is_lost_for_that_cause(make: MakeRig) -> None:
    rig = make(HELD)
    rig.ready()
    rig.engine.send(0, order(1, (49, 60)))
    rig.engine.send(0, order(2, (60, 70)))
    until(lambda: rig.running() == [50])
    rig.engine.kill(0, "cancelled")
    (lost,) = rig.await_(Lost)
    assert (lost.cause, lost.batch, lost.position, lost.unbegun, lost.booted) == ("cancelled", 1, 1, (2,), True)


def test_a_task_that_ends_its_process_is_named_and_another_worker_takes_its_slot(make: MakeRig) -> None:
    rig = make("def f(x: int):\n    _audit()\n    x != 3 or os.kill(os.getpid(), signal.SIGKILL)\n    return x * x\n")
    rig.ready()
    rig.engine.send(0, order(1, (0, 10)))
    (lost,) = rig.await_(Lost)
    assert (lost.cause, lost.batch, lost.position, lost.sure) == ("crash", 1, 3, True)
    assert "SIGKILL" in lost.exit
    rig.ready()
    rig.engine.send(0, order(2, (4, 10)))
    assert rig.outcomes(2)[-1]["upto"] == 6


def test_a_task_past_its_time_is_stopped_with_all_that_it_started(make: MakeRig) -> None:
    body = "def f(x: int):\n    subprocess.Popen(['sleep', '600'], start_new_session=True)\n    time.sleep(600)\n"
    rig = make(body, OPTIONS._replace(timeout=0.5))
    rig.ready()
    rig.engine.send(0, order(1, (0, 2)))
    (lost,) = rig.await_(Lost)
    assert (lost.cause, lost.batch, lost.position) == ("timeout", 1, 0)
    until(lambda: not marked(rig.pool) or not rig.running(), what="its child is gone")


def test_code_that_does_not_load_is_told(make: MakeRig) -> None:
    there = "if 'jobpool_cli.worker.loop' in sys.modules:\n    raise ValueError('not here')\n"
    rig = make(f"{there}def f(x: int):\n    return x\n")
    rig.engine.spawn(0, 0)
    (failed,) = rig.await_(BootFailed)
    assert "ValueError: not here" in failed.message


def test_large_results_come_as_files(make: MakeRig) -> None:
    rig = make("def f(x: int):\n    return os.urandom(3_000_000)\n")
    rig.ready()
    rig.engine.send(0, order(1, (0, 4)))
    files = [body["file"] for body in rig.outcomes(1) if "file" in body]
    assert files
    for file in files:
        assert pq.read_table(rig.pool.paths.results / file).num_rows


def test_a_later_version_of_the_code_is_run_by_workers_that_have_an_earlier_one(make: MakeRig) -> None:
    rig = make("def f(x: int):\n    return x * x\n")
    rig.ready()
    second = rig.pool.paths.udf_version(2)
    shutil.copytree(rig.pool.paths.udf_version(1), second)
    rig.engine.udf = 2
    rig.engine.send(0, order(1, (0, 4), udf=2))
    assert rig.outcomes(1)[-1]["rows"] == 4


def test_workers_in_all_slots_work_side_by_side(make: MakeRig) -> None:
    rig = make(HELD, PoolOptions(workers=2, processes_per_worker=2, grace=0.2))
    for slot in range(4):
        rig.engine.spawn(slot, 0)
    rig.await_(Ready, 4)
    for slot in range(4):
        rig.engine.send(slot, order(1 + slot, (50 + slot, 51 + slot)))
    until(lambda: rig.running() == [50, 51, 52, 53])
    rig.bench.release("go")
    for slot in range(4):
        rig.outcomes(1 + slot)
    assert os.path.exists(rig.pool.paths.worker_log(4))
