"""What happens to a Dask cluster while a pool runs on it: workers die, the scheduler dies, the supervisor does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobpool_cli.model import Cluster, PoolOptions, PoolState, TaskState
from tests.engines.cluster import DaskCluster, dask_cluster
from tests.faults.ledger import scaled
from tests.helpers import Bench, check_invariants, kill_supervisor, square, succeeded, until

BODY = "def f(x: int):\n    _audit()\n    time.sleep({pace})\n    return x * x\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with dask_cluster(folder) as running:
        yield running


def on(cluster: DaskCluster, workers: int = 2) -> PoolOptions:
    return PoolOptions(workers=workers, cluster=Cluster(cluster.address))


def test_workers_that_are_killed_again_and_again_cost_no_task(bench: Bench, cluster: DaskCluster) -> None:
    cluster.add_worker()
    n = scaled(500, 5_000)
    pool = bench.map(BODY.format(pace=0.01), n, options=on(cluster, workers=3))
    kills = 0
    killed_at = time.monotonic()
    while (status := pool.snapshot()).state is PoolState.RUNNING:
        if time.monotonic() - killed_at > 1.0:
            killed_at = time.monotonic()
            victim = cluster.workers.pop(0)
            os.killpg(victim.pid, signal.SIGKILL)
            victim.wait()
            cluster.add_worker()
            kills += 1
        time.sleep(0.02)
    assert kills > 3
    assert status.counts[TaskState.SUCCESS] == n, status.reason
    until(lambda: not pool.is_live())
    check_invariants(pool, square)
    assert set(bench.audit().values()) == {1}


def test_a_pool_whose_scheduler_dies_is_interrupted_and_goes_on_when_it_is_back(
    bench: Bench, cluster: DaskCluster
) -> None:
    pool = bench.map(BODY.format(pace=0.02), 400, options=on(cluster))
    until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > 20)
    os.killpg(cluster.scheduler.pid, signal.SIGKILL)
    cluster.scheduler.wait()
    until(lambda: not pool.is_live(), seconds=60, what="the pool is interrupted")
    status = pool.snapshot()
    assert status.state is PoolState.INTERRUPTED
    assert "scheduler is gone" in status.reason
    for worker in cluster.workers:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    cluster.start_scheduler(cluster.address.rpartition(":")[2])
    cluster.add_worker()
    cluster.add_worker()
    pool.resume()
    assert pool.follow(120).counts[TaskState.SUCCESS] == 400
    check_invariants(pool, square)


def test_a_supervisor_that_is_killed_leaves_nothing_on_the_cluster_that_a_resume_would_meet(
    bench: Bench, cluster: DaskCluster
) -> None:
    pool = bench.map(BODY.format(pace=0.02), 400, options=on(cluster))
    until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > 20)
    kill_supervisor(pool)
    done = succeeded(pool)
    ran = bench.audit()
    pool.resume()
    assert pool.follow(120).counts[TaskState.SUCCESS] == 400
    check_invariants(pool, square)
    again = bench.audit() - ran
    assert not done & {task for task, _ in again}
