"""Clusters that the bridge makes itself: on this machine, or as jobs of a batch system through dask-jobqueue."""

from __future__ import annotations

from typing import Any

# What dask-jobqueue calls them.
JOBQUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "htcondor": "HTCondorCluster",
}


async def make_cluster(asked: dict[str, Any]) -> Any:
    """Start a cluster and ask it for workers; None where there is one to connect to.

    Args:
        asked: ``kind`` (local, or one of ``JOBQUEUES``; None for none), ``options`` of its class, ``workers`` at most,
            ``minimum`` where it shall come and go with the work.
    """
    kind = asked["kind"]
    if kind is None:
        return None
    if kind == "local":
        from distributed import LocalCluster  # noqa: PLC0415 - an extra

        given = {"threads_per_worker": 1, "dashboard_address": None, **asked["options"]}
        return await LocalCluster(n_workers=asked["workers"], asynchronous=True, **given)
    import dask  # noqa: PLC0415 - an extra
    import dask_jobqueue  # noqa: PLC0415 - an extra

    # A pilot takes one thread of a Dask worker for as long as there is work: the scheduler, which would think of half
    # a second, asks for a core for each at once.
    dask.config.set({"distributed.scheduler.default-task-durations": {"jobpool": "24h"}})
    cluster = await getattr(dask_jobqueue, JOBQUEUES[kind])(asynchronous=True, **asked["options"])
    if asked["minimum"] is None:
        cluster.scale(cores=asked["workers"])
    else:
        cluster.adapt(minimum_cores=asked["minimum"], maximum_cores=asked["workers"])
    return cluster
