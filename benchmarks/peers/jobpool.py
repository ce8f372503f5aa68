"""jobpool from the command line: ``jobpool map FILE ARGS --wait``, as a script or a cron job would call it."""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.environment import jobpool_command
from benchmarks.measure import Context, Figures, MeasureError
from benchmarks.peers import Job, main
from jobpool_cli import JobPool

NAME = "jobpool map --wait"
KEEPS = "every task's state, attempts, times, log and result; the function and its arguments as they were submitted"
FORGETS = "nothing"
VARIANTS = {"": "", "engine=dask": "on a Dask cluster on loopback"}

END_SECONDS = 30.0
LOOPBACK = "127.0.0.1"


def run(job: Job) -> Figures:
    """Run the command; then, outside its time, read from the pool what it says of itself, and check the results."""
    file = Path(inspect.getfile(job.function))
    (parameter,) = inspect.signature(job.function).parameters
    table = job.folder / "args.csv"
    table.write_text("".join(f"{cell}\n" for cell in [parameter, *job.arguments]), encoding="utf-8")
    home = job.folder / "home"
    context = Context(
        python=Path(sys.executable),
        jobpool=jobpool_command(Path(sys.executable)),
        scratch=job.folder,
        rounds=1,
        quick=False,
        workers=job.workers,
    )
    with _cluster(job) as options:
        wall = context.map(f"{file}:{job.function.__name__}", table, *options, home=home).wall
    run_seconds = json.loads(context.run_jobpool("status", "last", "--json", home=home).stdout)["total_time"]
    pool = JobPool.open("last", home=str(home))
    wait_for_end(pool)
    size = sum(each.stat().st_blocks * 512 for each in (home / "pools" / pool.name).rglob("*") if each.is_file())
    job.check(list(pool.results_now().values()))
    return {
        "wall": wall,
        "seconds": wall,
        "run_seconds": run_seconds,
        "disk_bytes": size,
        **work_times(pool.paths.results),
    }


@contextlib.contextmanager
def _cluster(job: Job) -> Iterator[Sequence[str]]:
    """Have a cluster of as many workers, where one is asked for; yield the options of `map` that lead there."""
    if job.variant.get("engine") != "dask":
        yield ()
        return
    import dask  # noqa: PLC0415 - an extra
    from distributed import LocalCluster  # noqa: PLC0415

    dask.config.set({"temporary-directory": str(job.folder)})
    with LocalCluster(n_workers=job.workers, threads_per_worker=1, host=LOOPBACK, dashboard_address=None) as cluster:
        cluster.wait_for_workers(job.workers)
        yield "--engine", "dask", "--scheduler", cluster.scheduler_address


def wait_for_end(pool: JobPool[Any]) -> None:
    """Wait for the supervisor to be gone: what it does last is to give free pages of its database back."""
    deadline = time.monotonic() + END_SECONDS
    while pool.is_live():
        if time.monotonic() > deadline:
            raise MeasureError("the pool is done, and its supervisor does not end")
        time.sleep(0.01)


def work_times(results: Path) -> Figures:
    """Work out from the times that the pool keeps of every task how long workers were at work, and how busily.

    Returns:
        map_seconds: from the first task's start to the last one's end.
        all_up_rate: tasks a second from the moment at which the last worker began its first task.
    """
    table = pq.read_table(results, columns=["started", "duration_ns", "worker"])
    starts = pc.cast(table["started"], "int64")
    ends = pc.add(starts, pc.divide(table["duration_ns"], 1000))
    end = pc.max(ends).as_py()
    first_starts = (
        pa.table([table["worker"], starts], ["worker", "start"]).group_by("worker").aggregate([("start", "min")])
    )
    all_up = pc.max(first_starts["start_min"]).as_py()
    done_then = pc.sum(pc.greater_equal(starts, all_up)).as_py()
    return {"map_seconds": (end - pc.min(starts).as_py()) / 1e6, "all_up_rate": done_then * 1e6 / (end - all_up)}


if __name__ == "__main__":
    main(run)
