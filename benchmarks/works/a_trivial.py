"""Work a: a million tasks that do next to nothing, so that all that is measured is what a task costs.

Dask and Ray are there twice: with the interface that knows every task, as jobpool does, and with the one that packs
many of ours into one of theirs, as they advise for tasks so small. HyperQueue and GNU parallel run programs: a shell's
one-liner, which costs them least, and the Python function, which is what jobpool runs. The goals take the first of each
pair, and of it the higher of two rates: of the whole command, or with its workers warm.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.goals import Goal, times_the_best_rate, times_the_rate

KEY = "a"
TITLE = "1,000,000 trivial tasks"
TASKS = 1_000_000
QUICK_TASKS = 2_000
CONTENDERS = {
    "jobpool": 1_000_000,
    "joblib_loky": 1_000_000,
    "mpire_pool": 1_000_000,
    "multiprocessing_pool": 1_000_000,
    "executor:chunksize=100": 1_000_000,
    "executor:chunksize=1": 50_000,
    "dask_local": 5_000,
    "dask_local:api=bag": 100_000,
    "ray_local": 5_000,
    "ray_local:api=pool": 1_000_000,
    "hyperqueue_local": 3_000,
    "hyperqueue_local:task=python": 60,
    "gnu_parallel": 2_000,
    "gnu_parallel:task=python": 300,
    "submitit_local": 20,
}
COLUMNS = {
    "rate": "tasks/s, whole command",
    "wall": "whole command, s",
    "map_rate": "tasks/s, workers warm",
    "disk_bytes_per_task": "bytes on disk a task",
}
PLOT = "rate"
GOALS = [
    Goal("at least 2 times joblib's rate on the same million", times_the_rate("joblib_loky"), at_least=2, unit="times"),
    *(
        Goal(f"at least {least} times {name}", times_the_best_rate(peer), at_least=least, unit="times")
        for least, name, peer in [
            (30, "ProcessPoolExecutor, chunksize 1", "executor:chunksize=1"),
            (200, "Dask, one task each", "dask_local"),
            (200, "Ray, one task each", "ray_local"),
            (200, "HyperQueue, one task each (a shell's one-liner)", "hyperqueue_local"),
            (200, "GNU parallel, one task each (a shell's one-liner)", "gnu_parallel"),
        ]
    ),
    Goal(
        "at most 32 bytes a task on disk, all files of the pool",
        lambda figures: figures["jobpool"]["disk_bytes_per_task"],
        at_most=32,
        unit="bytes",
    ),
]


def task(x: int) -> int:
    """Do next to nothing."""
    return x * x


def arguments(n: int) -> list[int]:
    """Return the first integers."""
    return list(range(n))


def check(results: Sequence[int], n: int) -> None:
    """Check every result."""
    assert len(results) == n, f"{len(results)} results of {n} tasks"
    assert all(result == x * x for x, result in enumerate(results)), "a square is wrong"
