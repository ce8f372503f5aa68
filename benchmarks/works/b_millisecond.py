"""Work b: tasks of one millisecond, so that what a scheduler costs beside them is seen as cores that stand idle."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.goals import Goal
from benchmarks.measure import Figures

KEY = "b"
TITLE = "20,000 tasks of 1 ms"
TASKS = 20_000
QUICK_TASKS = 200
LENGTH_SECONDS = 0.001
CONTENDERS = {
    "jobpool": 20_000,
    "joblib_loky": 20_000,
    "mpire_pool": 20_000,
    "multiprocessing_pool": 20_000,
    "executor:chunksize=100": 20_000,
    "executor:chunksize=1": 20_000,
    "dask_local": 5_000,
    "ray_local": 5_000,
    "hyperqueue_local": 1_000,
    "gnu_parallel": 1_000,
    "submitit_local": 20,
}
COLUMNS = {
    "efficiency": "% of the ideal, workers warm",
    "wall": "whole command, s",
    "rate": "tasks/s, whole command",
    "map_rate": "tasks/s, workers warm",
}
PLOT = "efficiency"
GOALS = [
    Goal(
        "at least 97 % of the ideal, once all workers have begun",
        lambda figures: figures["jobpool"]["efficiency"],
        at_least=97,
        unit="%",
    )
]


def task(x: int) -> int:
    """Keep a core busy for a millisecond: exactly one, whatever the machine's speed at the moment."""
    end = time.perf_counter() + LENGTH_SECONDS
    while time.perf_counter() < end:
        pass
    return x


def arguments(n: int) -> list[int]:
    """Return the first integers."""
    return list(range(n))


def check(results: Sequence[int], n: int) -> None:
    """Check that every task gave its own argument back."""
    assert list(results) == arguments(n), "not the results of these tasks in their order"


def derive(figures: Figures, tasks: int, workers: int) -> Figures:
    """Return how near the cores came to doing nothing but the tasks."""
    if "map_seconds" not in figures:
        return {}
    rate = figures.get("all_up_rate", tasks / figures["map_seconds"])
    return {"efficiency": 100 * rate * LENGTH_SECONDS / workers}
