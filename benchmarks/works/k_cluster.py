"""Work k: a million trivial tasks through a Dask cluster on loopback, against the same tasks on this machine's workers.

The cluster is there before the clock starts, as it would be for whoever has one; all else is the whole command. Dask's
own interface gets fewer tasks and, as in work a, the higher of its two rates.
"""

from __future__ import annotations

from benchmarks.goals import Goal, times_the_best_rate
from benchmarks.measure import Figures
from benchmarks.works.a_trivial import arguments, check, task

__all__ = ["arguments", "check", "task"]

KEY = "k"
TITLE = "1,000,000 trivial tasks on a Dask cluster"
TASKS = 1_000_000
QUICK_TASKS = 2_000
AWAY = "jobpool:engine=dask"
CONTENDERS = {"jobpool": 1_000_000, AWAY: 1_000_000, "dask_local": 5_000}
COLUMNS = {
    "rate": "tasks/s, whole command",
    "run_rate": "tasks/s, from the pool's making to its last task",
    "map_rate": "tasks/s, workers warm",
    "wall": "whole command, s",
}
PLOT = "rate"
GOALS = [
    Goal(
        "at least 25 % of the rate of this machine's workers, whole command",
        lambda figures: figures[AWAY]["rate"] / figures["jobpool"]["rate"],
        at_least=0.25,
        unit="times",
    ),
    Goal(
        "at least 25 % of it from the pool's making to its last task",
        lambda figures: figures[AWAY]["run_rate"] / figures["jobpool"]["run_rate"],
        at_least=0.25,
        unit="times",
    ),
    Goal(
        "at least 50 times Dask's Client.map, one task each",
        times_the_best_rate("dask_local", of=AWAY),
        at_least=50,
        unit="times",
    ),
]


def derive(figures: Figures, tasks: int, workers: int) -> Figures:
    """Work out the rate of the pool's own life."""
    del workers
    return {"run_rate": tasks / figures["run_seconds"]} if "run_seconds" in figures else {}
