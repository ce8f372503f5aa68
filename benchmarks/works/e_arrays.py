"""Work e: results so large that the disk is what counts: 2,000 arrays of a megabyte.

The yardstick is no pool at all: two plain processes, each of which makes half of the arrays with the same function,
gathers 64 MB at a time and writes them with pyarrow to a Parquet file of the same columns that tools want (the task's
number, the array as a list), then fsync. It runs nobody's errors, logs and times down, and picks the fastest settings:
uncompressed, no dictionaries, no statistics. Random doubles hardly shrink (zstd saves 6 %, at twice the time), which
jobpool finds out by itself.
"""

from __future__ import annotations

import functools
import os
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.goals import Goal, times_the_rate
from benchmarks.measure import Contender, Context, Figures, Row
from benchmarks.peers.jobpool import wait_for_end
from jobpool_cli import JobPool

if TYPE_CHECKING:
    import numpy as np

KEY = "e"
TITLE = "2,000 tasks that return 1 MB of NumPy each"
TASKS, QUICK_TASKS = 2_000, 40
NUMBERS = 131_072
MEGABYTES = NUMBERS * 8 / 1e6
GATHERED = 64
COLUMNS = {"wall": "whole command, s", "rate": "MB/s", "files": "files of results"}
PLOT = "rate"
GOALS = [
    Goal(
        "at least 80 % of what two plain processes reach that write the same to Parquet with fsync",
        times_the_rate("plain"),
        at_least=0.8,
    )
]


def task(x: int) -> np.ndarray[Any, Any]:
    """Return a megabyte of random doubles, the same at each call."""
    import numpy as np  # noqa: PLC0415 - the measuring process does without

    return np.random.default_rng(x).random(NUMBERS)


def run(context: Context) -> list[Row]:
    """Measure jobpool and the plain writer in turn."""
    tasks = QUICK_TASKS if context.quick else TASKS
    return context.in_turn(
        [
            Contender("jobpool", "jobpool map --wait", functools.partial(_jobpool, context, tasks), tasks),
            Contender("plain", "plain processes: pyarrow, fsync", functools.partial(_plain, context, tasks), tasks),
        ]
    )


def _jobpool(context: Context, tasks: int) -> Figures:
    # What was written before, and deleted, is not to be on the disk's mind.
    os.sync()
    with context.folder() as folder:
        table = folder / "args.csv"
        table.write_text("".join(f"{cell}\n" for cell in ["x", *range(tasks)]), encoding="utf-8")
        wall = context.map(f"{__file__}:task", table, "--name", "arrays", home=folder).wall
        pool = JobPool.open("arrays", home=str(folder))
        wait_for_end(pool)
        return _figures(pool.paths.results, tasks, wall)


def _plain(context: Context, tasks: int) -> Figures:
    os.sync()
    with context.folder() as folder:
        ran = context.run(context.python, "-m", __name__, folder, str(context.workers), str(tasks))
        return _figures(folder, tasks, ran.wall)


def _figures(folder: Path, tasks: int, wall: float) -> Figures:
    import numpy as np  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    seen: set[int] = set()
    files = sorted(folder.glob("*.parquet"))
    for file in files:
        table = pq.read_table(file, columns=["task", "result"])
        numbers = table["task"].to_pylist()
        seen.update(numbers)
        last = table["result"][-1].values.to_numpy()
        assert np.array_equal(last, task(numbers[-1])), f"the array of task {numbers[-1]} is wrong"
    assert seen == set(range(tasks)), f"{len(seen)} of {tasks} arrays are there"
    return {"wall": wall, "rate": tasks * MEGABYTES / wall, "files": float(len(files))}


def _write(part: tuple[Path, int, int, int]) -> None:
    """Make every so-manieth array, and write them."""
    import numpy as np  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    folder, number, workers, tasks = part
    own = range(number, tasks, workers)
    for start in range(0, len(own), GATHERED):
        chosen = own[start : start + GATHERED]
        arrays = [task(x) for x in chosen]
        ends = np.arange(len(arrays) + 1, dtype=np.int32) * NUMBERS
        lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(arrays)))
        table = pa.table({"task": pa.array(chosen), "result": lists})
        with (folder / f"{number}-{start:06}.parquet").open("wb") as file:
            pq.write_table(table, file, compression="none", use_dictionary=False, write_statistics=False)
            file.flush()
            os.fsync(file.fileno())


def _main(folder: Path, workers: int, tasks: int) -> None:
    with get_context("fork").Pool(workers) as pool:
        pool.map(_write, [(folder, number, workers, tasks) for number in range(workers)], 1)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
