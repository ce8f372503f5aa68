"""Work c: few tasks of very uneven length, so that what is seen is whether a core idles while another has a queue.

The lengths follow a bounded Pareto distribution from 1 ms to 2 s, in random order: half of the tasks take less than
10 ms, and some fifteen of the two hundred take more than half of the time. A task sleeps, so that a machine whose
cores are taken away now and then does not change the lengths.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Sequence

from benchmarks.goals import Goal
from benchmarks.measure import Figures
from benchmarks.schedule import best_makespan, in_order

KEY = "c"
TITLE = "200 tasks of 1 ms to 2 s, heavy tail"
TASKS = 200
QUICK_TASKS = 20
SEED = 20130101
SHORTEST_MICROSECONDS = 1_000
LONGEST_MICROSECONDS = 2_000_000
TAIL = 0.3
CONTENDERS = {
    "jobpool": 200,
    "joblib_loky": 200,
    "mpire_pool": 200,
    "multiprocessing_pool": 200,
    "executor:chunksize=100": 200,
    "executor:chunksize=1": 200,
    "dask_local": 200,
    "ray_local": 200,
    "hyperqueue_local": 200,
    "gnu_parallel": 200,
    "submitit_local": 10,
}
COLUMNS = {
    "excess": "% longer than the best schedule, workers warm",
    "in_order_excess": "the same of an ideal queue that knows no lengths",
    "map_seconds": "workers warm, s",
    "wall": "whole command, s",
}
PLOT = "excess"
GOALS = [
    Goal(
        "at most 5 % longer than the best schedule, from the first task's start to the last one's end",
        lambda figures: figures["jobpool"]["excess"],
        at_most=5,
        unit="%",
    ),
    Goal(
        "no worse than ProcessPoolExecutor, chunksize 1 (workers warm)",
        lambda figures: figures["jobpool"]["map_seconds"] / figures["executor:chunksize=1"]["map_seconds"],
        at_most=1.0,
        within_spread=True,
        unit="times",
    ),
]


def task(microseconds: int) -> int:
    """Take that long."""
    time.sleep(microseconds / 1e6)
    return microseconds


@functools.cache
def _lengths() -> tuple[int, ...]:
    draw = random.Random(SEED)  # noqa: S311 - lengths of tasks, not secrets
    low, high = SHORTEST_MICROSECONDS**-TAIL, LONGEST_MICROSECONDS**-TAIL
    return tuple(round((low - draw.random() * (low - high)) ** (-1 / TAIL)) for _ in range(TASKS))


def arguments(n: int) -> list[int]:
    """Return the lengths of the first tasks, in microseconds."""
    return list(_lengths()[:n])


def check(results: Sequence[int], n: int) -> None:
    """Check that every task gave its own length back."""
    assert list(results) == arguments(n), "not the results of these tasks in their order"


def derive(figures: Figures, tasks: int, workers: int) -> Figures:
    """Return by how many percent it took longer than the best schedule, and an ideal queue in this order would."""
    lengths = arguments(tasks)
    best = best_makespan(lengths, workers).at_least
    found = {"in_order_excess": 100 * (in_order(lengths, workers) / best - 1)}
    if "map_seconds" in figures:
        found["excess"] = 100 * (figures["map_seconds"] * 1e6 / best - 1)
    return found
