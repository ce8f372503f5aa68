"""Which engine runs a pool's batches, and how large they are for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobpool_cli.engines.local import LocalEngine
from jobpool_cli.engines.worker_process import WorkerProcess
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.supervisor.holdings import MAX_BATCH_TASKS
from jobpool_cli.supervisor.pace import Pace

if TYPE_CHECKING:
    from jobpool_cli.engines.remote.engine import RemoteEngine

# A batch is to take so long that the way to another machine and back costs next to nothing; with more workers longer
# still, as each batch costs the supervisor, and the bridge, a millisecond or two.
AWAY_SECONDS = 0.5
AWAY_SECONDS_PER_WORKER = 0.005
# The rows of a batch travel in one go.
BATCH_BYTES = 8 << 20


def make_engine(
    paths: PoolPaths, manifest: Manifest, *, udf: int, numbers: Iterator[int], standby: Sequence[WorkerProcess]
) -> LocalEngine | RemoteEngine:
    """Make the engine that the pool was mapped with.

    Args:
        paths: the pool.
        manifest: what it is.
        udf: the code version that workers load first.
        numbers: those of the workers to come.
        standby: workers of this machine that were started ahead.
    """
    cluster = manifest.options.cluster
    if cluster is None:
        return LocalEngine(
            paths,
            manifest.options,
            pool_id=manifest.id,
            folder=Path(manifest.folder),
            udf=udf,
            numbers=numbers,
            standby=standby,
        )
    from jobpool_cli.engines.dask.carrier import DaskCarrier  # noqa: PLC0415 - these need pyarrow, which takes a while
    from jobpool_cli.engines.remote.engine import RemoteEngine  # noqa: PLC0415

    carrier = DaskCarrier({"pool": manifest.id, "workers": manifest.options.workers, **cluster._asdict()})
    news_seconds = target_seconds(manifest) / 2
    return RemoteEngine(paths, manifest, udf=udf, numbers=numbers, carrier=carrier, news_seconds=news_seconds)


def pace_of(paths: PoolPaths, manifest: Manifest) -> Pace:
    """Return how much work the pool's workers get at once."""
    options = manifest.options
    if options.cluster is None:
        return Pace()
    from jobpool_cli.store.arguments.rows import StoredRows  # noqa: PLC0415 - pyarrow

    row_bytes = StoredRows(paths.args).row_bytes
    most = min(MAX_BATCH_TASKS, int(BATCH_BYTES / max(1.0, row_bytes)))
    return Pace(target_seconds(manifest), max(1, most))


def target_seconds(manifest: Manifest) -> float:
    """Return how much work a batch is to be on other machines, in seconds."""
    return max(AWAY_SECONDS, AWAY_SECONDS_PER_WORKER * manifest.options.processes)
