"""Dask distributed, a cluster on this machine: ``LocalCluster``, and ``Client.map`` or a bag of partitions."""

from __future__ import annotations

import time

import dask
import dask.bag
from distributed import Client, LocalCluster

from benchmarks.measure import Figures
from benchmarks.peers import Job, main, warm

NAME = "Dask distributed"
KEEPS = "nothing; a worker's folder holds what it spills from memory, and goes with it"
FORGETS = (
    "states, times, results and errors when the client or scheduler ends; what a task prints goes to the terminal alone"
)
PACKAGE = "distributed"
VARIANTS = {"": "one task each", "api=bag": "bag"}

PARTITIONS = 100
# The works whose tasks the scheduler sends to the workers all at once. By its default it sends a worker two, and one
# more for each that ends: for tiny tasks that was slower in every round, for uneven ones faster. So each has what is
# better for Dask.
SENT_AHEAD = frozenset("ab")
LOOPBACK = "127.0.0.1"
# A free port of the loopback interface; left to itself, the dashboard wants a certain one, and warns of another run's.
ANY_PORT = f"{LOOPBACK}:0"


def run(job: Job) -> Figures:
    """Submit a future a task, all in one call; or, as ``api=bag``, let a task of Dask's take many of ours.

    One batch is Client.map's default. A bag is what Dask's documentation advises where tasks are small: then only
    partitions are known to the scheduler.
    """
    arguments = job.arguments
    dask.config.set({"temporary-directory": str(job.folder)})
    if job.work.KEY in SENT_AHEAD:
        dask.config.set({"distributed.scheduler.worker-saturation": "inf"})
    begun = time.perf_counter()
    cluster = LocalCluster(n_workers=job.workers, threads_per_worker=1, host=LOOPBACK, dashboard_address=ANY_PORT)
    with cluster, Client(cluster) as client:
        client.gather([client.submit(warm, module, pure=False) for module in job.warm_arguments])
        warmed = time.perf_counter()
        if job.variant.get("api") == "bag":
            results = dask.bag.from_sequence(arguments, npartitions=PARTITIONS).map(job.function).compute()
        else:
            results = client.gather(client.map(job.function, arguments, pure=False))
        ended = time.perf_counter()
    job.check(results)
    return {"seconds": ended - begun, "map_seconds": ended - warmed}


if __name__ == "__main__":
    main(run)
