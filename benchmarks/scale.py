"""Where one supervisor stops: the real one, with the real store, and workers that only pretend to work (``farm``).

    python -m benchmarks.scale                      # the table of docs/explanation/scale.md
    python -m benchmarks.scale --tasks 1000000 --workers 1000 --seconds 0.01

A row is one pool. *Asked* is what its workers would do if nobody kept them waiting: workers / seconds a task.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.farm import TASK_VARIABLE
from jobpool_cli import submit
from jobpool_cli.engines.dask.carrier import DaskCarrier
from jobpool_cli.engines.remote.engine import RemoteEngine
from jobpool_cli.engines.worker_process import WorkerProcess
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import Cluster, PoolOptions, PoolState
from jobpool_cli.pool import JobPool
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.supervisor.engines import target_seconds

FARM = "benchmarks.farm"
UDF = "def square(x: int) -> int:\n    return x * x\n"
LOOK_SECONDS = 0.05


class Trial(NamedTuple):
    """So many tasks of so many seconds on so many workers."""

    tasks: int
    workers: int
    seconds: float


# Ever more workers; then longer tasks, and ever shorter ones. Those of ten million show the rate without the beginning.
TRIALS = (
    Trial(20_000, 10, 0.01),
    Trial(200_000, 100, 0.01),
    Trial(2_000_000, 1_000, 0.01),
    Trial(10_000_000, 1_000, 0.01),
    Trial(200_000, 1_000, 0.1),
    Trial(10_000, 1_000, 1.0),
    Trial(10_000_000, 1_000, 0.002),
    Trial(10_000_000, 1_000, 0.001),
)


class Found(NamedTuple):
    """What a trial showed."""

    run_seconds: float
    cpu_seconds: float
    peak_bytes: int
    pool_bytes: int


def farm_engine(
    paths: PoolPaths, manifest: Manifest, *, udf: int, numbers: Iterator[int], standby: Sequence[WorkerProcess]
) -> RemoteEngine:
    """Make the engine of a supervisor whose hosts are the farm's."""
    del standby
    asked = {"pool": manifest.id, "workers": manifest.options.workers}
    return RemoteEngine(
        paths,
        manifest,
        udf=udf,
        numbers=numbers,
        carrier=DaskCarrier(asked, FARM),
        news_seconds=target_seconds(manifest) / 2,
    )


def supervise(root: str) -> None:
    """Be the supervisor of a pool, but for where its hosts come from."""
    from jobpool_cli.supervisor import __main__ as program  # noqa: PLC0415
    from jobpool_cli.supervisor import loop  # noqa: PLC0415

    patch.object(loop, "make_engine", farm_engine).start()
    sys.argv = ["supervisor", f"--root={root}", "--report=1"]
    sys.exit(program.main())


def run(trial: Trial) -> Found:
    """Run one pool to its end."""
    folder = Path(tempfile.mkdtemp(prefix="jobpool-scale-"))
    try:
        pool = _pool(folder, trial)
        env = {**os.environ, TASK_VARIABLE: str(trial.seconds)}
        words = [sys.executable, "-m", "benchmarks.scale", "--supervise", str(pool.paths.root)]
        with (folder / "supervisor.log").open("wb") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=env)
        peak, cpu = 0, 0.0
        while process.poll() is None:
            peak, cpu = _used_by(process.pid) or (peak, cpu)
            time.sleep(LOOK_SECONDS)
        status = pool.snapshot()
        if status.state is not PoolState.DONE:
            raise SystemExit(f"{trial}: {status}\n{(folder / 'supervisor.log').read_text()}")
        size = sum(path.stat().st_size for path in pool.paths.root.rglob("*") if path.is_file())
        return Found(_run_seconds(pool), cpu, peak, size)
    finally:
        shutil.rmtree(folder)


def _used_by(pid: int) -> tuple[int, float] | None:
    """Return the peak of a process's memory, in bytes, and its seconds of CPU; None if it has ended."""
    proc = Path(f"/proc/{pid}")
    try:
        status, stat = (proc / "status").read_text(), (proc / "stat").read_text()
    except OSError:
        return None
    peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), None)
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (peak << 10, (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")) if peak is not None else None


def _pool(folder: Path, trial: Trial) -> JobPool[int]:
    """Make a pool that nobody supervises."""
    udf, rows = folder / "square.py", folder / "args.parquet"
    udf.write_text(UDF)
    pq.write_table(pa.table({"x": pa.array(range(trial.tasks), pa.int64())}), rows)
    options = PoolOptions(workers=trial.workers, cluster=Cluster("tcp://farm:0"))
    checked = submit.check(str(udf), str(rows), constants={}, options=options)
    with patch.object(submit, "launch"):
        return JobPool(submit.submit(checked, folder / "home", "scale").root)


def _run_seconds(pool: JobPool[int]) -> float:
    """Return the seconds from the first outcomes to the last, by the clock of those who sent them."""
    spans = [pc.min_max(pq.read_table(path, columns=["started"])["started"]) for path in pool.paths.results.iterdir()]
    last, first = max(each["max"].value for each in spans), min(each["min"].value for each in spans)
    return float(last - first) / 1e6


def main() -> None:
    """Run one trial or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supervise", help=argparse.SUPPRESS)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seconds", type=float, default=0.01)
    given = parser.parse_args()
    if given.supervise:
        supervise(given.supervise)
    trials = TRIALS if given.workers is None else (Trial(given.tasks, given.workers, given.seconds),)
    heads = ["tasks", "workers", "seconds each", "asked, tasks/s", "done, tasks/s", "CPU", "memory", "disk"]
    print(f"| {' | '.join(heads)} |\n|{'---:|' * len(heads)}")
    for trial in trials:
        found = run(trial)
        print(
            f"| {trial.tasks:,} | {trial.workers:,} | {trial.seconds:g} | {trial.workers / trial.seconds:,.0f} |"
            f" {trial.tasks / found.run_seconds:,.0f} | {found.cpu_seconds / found.run_seconds:.0%} |"
            f" {found.peak_bytes / 2**20:,.0f} MiB | {found.pool_bytes / 2**20:,.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
