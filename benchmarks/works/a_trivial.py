"""Work a: a million tasks that do next to nothing, so that all that is measured is what a task costs."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.goals import Goal, times_the_rate

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
    "dask_local": 20_000,
    "ray_local": 20_000,
    "hyperqueue_local": 500,
    "gnu_parallel": 2_000,
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
    Goal("at least 2 times joblib's rate", times_the_rate("joblib_loky"), at_least=2),
    Goal("at least 30 times ProcessPoolExecutor, chunksize 1", times_the_rate("executor:chunksize=1"), at_least=30),
    Goal("at least 200 times Dask", times_the_rate("dask_local"), at_least=200),
    Goal("at least 200 times Ray", times_the_rate("ray_local"), at_least=200),
    Goal("at least 200 times HyperQueue", times_the_rate("hyperqueue_local"), at_least=200),
    Goal("at least 200 times GNU parallel", times_the_rate("gnu_parallel"), at_least=200),
    Goal(
        "at most 32 bytes a task on disk, all files of the pool",
        lambda figures: figures["jobpool"]["disk_bytes_per_task"],
        at_most=32,
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
