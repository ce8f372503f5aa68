"""Work i: ten million trivial tasks against one million: whether rate, memory and disk hold when a pool grows."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.goals import Goal
from benchmarks.measure import Contender, Context, Figures, Row
from benchmarks.peers.jobpool import wait_for_end
from jobpool_cli import JobPool

KEY = "i"
TITLE = "10,000,000 trivial tasks against 1,000,000"
# For three tasks a worker needs its imports and no more.
SIZES = {"few": 3, "million": 1_000_000, "ten": 10_000_000}
QUICK_DIVISOR = 100
COLUMNS = {
    "rate": "tasks/s, whole command",
    "run_rate": "tasks/s, from the pool's making to its last task",
    "supervisor_peak": "supervisor's peak, MB",
    "worker_peak": "a worker's peak, MB",
    "map_peak": "peak of `map`, MB",
    "disk_bytes_per_task": "bytes on disk a task",
    "state_db_bytes": "state.db, bytes",
}
PLOT = "rate"
GOALS = [
    Goal(
        "at least 90 % of the rate at a million, whole command",
        lambda figures: figures["jobpool:ten"]["rate"] / figures["jobpool:million"]["rate"],
        at_least=0.9,
    ),
    Goal(
        "at least 90 % of the rate at a million, from the pool's making to its last task",
        lambda figures: figures["jobpool:ten"]["run_rate"] / figures["jobpool:million"]["run_rate"],
        at_least=0.9,
    ),
    Goal(
        "supervisor's peak memory at most 200 MB",
        lambda figures: figures["jobpool:ten"]["supervisor_peak"],
        at_most=200,
    ),
    Goal(
        "a worker's peak memory at most 60 MB above its imports",
        lambda figures: figures["jobpool:ten"]["worker_peak"] - figures["jobpool:few"]["worker_peak"],
        at_most=60,
    ),
    Goal(
        "at most 32 bytes a task on disk, all files of the pool",
        lambda figures: figures["jobpool:ten"]["disk_bytes_per_task"],
        at_most=32,
    ),
]

UDF = "def square(x: int) -> int:\n    return x * x\n"
# Peaks only rise, so that the last look at a process is the one that counts: looks are frequent, and cost little.
LOOK_SECONDS = 0.02
ROWS_AT_ONCE = 65_536
MEGABYTE = 1e6


def run(context: Context) -> list[Row]:
    """Measure pools of all sizes in turn."""
    with context.folder() as folder:
        contenders = []
        for key, full in SIZES.items():
            tasks = max(3, full // QUICK_DIVISOR) if context.quick else full
            measure = functools.partial(_measure, context, folder, key, tasks)
            contenders.append(Contender(f"jobpool:{key}", f"jobpool, {tasks:,} tasks", measure, tasks))
        return context.in_turn(contenders)


def make_inputs(folder: Path, tasks: int) -> tuple[Path, Path]:
    """Write a function and so many arguments for it; return both files."""
    udf, table = folder / "square.py", folder / f"numbers-{tasks}.parquet"
    udf.write_text(UDF, encoding="utf-8")
    if not table.exists():
        # A piece at a time: what this process holds would count as memory of the commands that it measures.
        with pq.ParquetWriter(table, pa.schema({"x": pa.int64()})) as writer:
            for low in range(0, tasks, ROWS_AT_ONCE):
                writer.write_table(pa.table({"x": np.arange(low, min(low + ROWS_AT_ONCE, tasks))}))
    return udf, table


def _measure(context: Context, folder: Path, key: str, tasks: int) -> Figures:
    udf, table = make_inputs(folder, tasks)
    with context.folder() as home:
        root = home / "pools" / key
        with _peaks_of(root) as peaks:
            words = ("map", f"{udf}:square", table, "--name", key, "--wait", "--workers", str(context.workers))
            ran = context.run_jobpool(*words, home=home)
        pool = JobPool.open(key, home=str(home))
        wait_for_end(pool)
        seconds = json.loads(context.run_jobpool("status", key, "--json", home=home).stdout)["total_time"]
        last = context.run_jobpool("results", key, str(tasks - 1), home=home).stdout
        assert last == f"{tasks - 1}\t{(tasks - 1) ** 2}\n", f"the last result is {last!r}"
        size = sum(each.stat().st_blocks * 512 for each in root.rglob("*") if each.is_file())
        figures = {
            "wall": ran.wall,
            "run_seconds": seconds,
            "map_peak": ran.peak_rss / MEGABYTE,
            "disk_bytes": size,
            "state_db_bytes": pool.paths.state_db.stat().st_size,
            **peaks,
        }
    if key != "few":
        figures |= {"rate": tasks / ran.wall, "run_rate": tasks / seconds, "disk_bytes_per_task": size / tasks}
    return figures


@contextlib.contextmanager
def _peaks_of(root: Path) -> Iterator[Figures]:
    """Watch a pool's processes in the background; at the end of the block their peaks are in what it gives."""
    figures: Figures = {}
    over = threading.Event()

    def watch() -> None:
        supervisor = None
        while not over.wait(LOOK_SECONDS):
            supervisor = supervisor or _supervisor_of(root)
            if supervisor is None:
                continue
            for name, pids in (("supervisor_peak", [supervisor]), ("worker_peak", _children(supervisor))):
                figures[name] = max([figures.get(name, 0.0), *map(_peak, pids)])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield figures
    finally:
        over.set()
        watcher.join()


def _supervisor_of(root: Path) -> int | None:
    """Return the process that has the pool's lock open for as long as it lives."""
    lock = str(root / "lock")
    if not Path(lock).exists():
        return None
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(fd.readlink()) == lock for fd in (process / "fd").iterdir()):
                return int(process.name)
    return None


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return []


def _peak(pid: int) -> float:
    """Return the most memory that a process has held so far, in megabytes; 0 if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / MEGABYTE
    return 0.0
