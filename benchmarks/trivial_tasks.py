"""A million trivial tasks, side by side: jobpool from the command line, and ProcessPoolExecutor in memory.

jobpool's time is the whole command, ``jobpool map --wait``, from the shell's point of view: reading and checking the
CSV, starting supervisor and workers, every task, and everything sealed to Parquet. The executor's time is its `map`
alone, with its workers started and warm; it keeps nothing. Both in turn, several rounds, in one run.

    python benchmarks/trivial_tasks.py [--tasks 1000000] [--rounds 3] [--executor-tasks 100000]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

UDF = "def square(x: int) -> int:\n    return x * x\n"


def square(x: int) -> int:
    """Do next to nothing."""
    return x * x


def jobpool_seconds(folder: Path, tasks: int, workers: int) -> tuple[float, float, int]:
    """Run a pool; return the seconds of the whole command, those to its last task, and the bytes of its folder."""
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    before = time.perf_counter()
    command = [sys.executable, "-m", "jobpool_cli"]
    place = ["--home", str(home)]
    subprocess.run(
        [*command, "map", str(folder / "square.py"), str(folder / "args.csv"), "--wait", "-j", str(workers), *place],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.perf_counter() - before
    from jobpool_cli import JobPool  # noqa: PLC0415

    status = JobPool.open("last", home=str(home)).snapshot()
    assert status.failed == 0, status
    assert status.finished == tasks, status
    size = sum(each.stat().st_blocks * 512 for each in home.rglob("*") if each.is_file())
    return seconds, status.total_time, size


def executor_seconds(tasks: int, workers: int) -> float:
    """Time ``ProcessPoolExecutor.map`` with chunks of one, its workers warm."""
    with ProcessPoolExecutor(workers) as executor:
        list(executor.map(square, range(workers * 10)))
        before = time.perf_counter()
        total = sum(executor.map(square, range(tasks)))
        seconds = time.perf_counter() - before
    assert total == sum(x * x for x in range(tasks))
    return seconds


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--executor-tasks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    workers = len(os.sched_getaffinity(0))
    whole, running, executor, sizes = [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "square.py").write_text(UDF)
        (folder / "args.csv").write_text("x\n" + "".join(f"{x}\n" for x in range(options.tasks)))
        for _ in range(options.rounds):
            seconds, total_time, size = jobpool_seconds(folder, options.tasks, workers)
            whole.append(options.tasks / seconds)
            running.append(options.tasks / total_time)
            sizes.append(size / options.tasks)
            executor.append(options.executor_tasks / executor_seconds(options.executor_tasks, workers))
    print(f"{workers} workers, {options.rounds} rounds in turn; tasks a second: median (lowest to highest)")
    for label, rates in [
        (f"jobpool map --wait, {options.tasks:,} tasks, whole command", whole),
        ("jobpool, from the pool's creation to its last task", running),
        (f"ProcessPoolExecutor.map, chunksize 1, {options.executor_tasks:,} tasks", executor),
    ]:
        print(f"  {label:58} {statistics.median(rates):>10,.0f} ({min(rates):,.0f} to {max(rates):,.0f})")
    ratio = statistics.median(a / b for a, b in zip(whole, executor, strict=True))
    print(f"  ratio, whole command to executor: {ratio:.0f}")
    print(f"  bytes on disk per task, arguments and all: {statistics.median(sizes):.1f}")


if __name__ == "__main__":
    main()
