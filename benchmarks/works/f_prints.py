"""Work f: tasks that print. What is printed is kept, task by task, so that each has its own output afterwards.

The yardstick is the same function without its prints. A line is written when it is printed: the log of a running task
can be followed, and a task that kills its worker leaves its last words. That costs a system call a line; plain Python
that prints to a file, for comparison, gathers 8 KB at a time.
"""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.goals import Goal
from benchmarks.measure import Contender, Context, Figures, Row
from benchmarks.peers.jobpool import wait_for_end
from jobpool_cli import JobPool

KEY = "f"
TITLE = "1,000 tasks that print 100 lines each"
TASKS, QUICK_TASKS = 1_000, 50
LINES = 100
# A run takes a second and a half, of which the prints are a few hundredths: the middle of several tells them apart.
RUNS, QUICK_RUNS = 5, 1
COLUMNS = {"wall": "whole command, s", "log_bytes": "bytes of output kept"}
PLOT = "wall"
GOALS = [
    Goal(
        "at most 10 % slower than the same tasks without prints",
        lambda figures: figures["prints"]["wall"] / figures["silent"]["wall"],
        at_most=1.1,
    )
]


def prints(x: int) -> int:
    """Print a hundred lines."""
    for line in range(LINES):
        print(f"task {x}: line {line}")
    return x


def silent(x: int) -> int:
    """Make a hundred lines and print none."""
    for line in range(LINES):
        str(f"task {x}: line {line}")
    return x


def run(context: Context) -> list[Row]:
    """Measure both functions in turn, and plain Python beside them."""
    tasks = QUICK_TASKS if context.quick else TASKS
    return context.in_turn(
        [
            Contender(
                "prints", "jobpool, 100 lines a task", functools.partial(_jobpool, context, prints, tasks), tasks
            ),
            Contender("silent", "jobpool, no prints", functools.partial(_jobpool, context, silent, tasks), tasks),
            Contender("plain", "a loop in plain Python > file", functools.partial(_plain, context, tasks), tasks),
        ]
    )


def _jobpool(context: Context, function: Callable[[int], int], tasks: int) -> Figures:
    walls, logged = [], 0
    for _ in range(QUICK_RUNS if context.quick else RUNS):
        with context.folder() as folder:
            table = folder / "args.csv"
            table.write_text("".join(f"{cell}\n" for cell in ["x", *range(tasks)]), encoding="utf-8")
            udf = f"{__file__}:{function.__name__}"
            walls.append(context.map(udf, table, "--name", "lines", home=folder).wall)
            pool = JobPool.open("lines", home=str(folder))
            wait_for_end(pool)
            logged = sum(log.stat().st_size for log in pool.paths.logs.iterdir())
    wanted = sum(len(f"task {x}: line {line}\n") for x in range(tasks) for line in range(LINES))
    assert logged == (wanted if function is prints else 0), f"the logs hold {logged} bytes"
    return {"wall": statistics.median(walls), "log_bytes": float(logged)}


def _plain(context: Context, tasks: int) -> Figures:
    with context.folder() as folder:
        words: list[str | Path] = ["-m", __name__, folder / "lines.txt", str(tasks)]
        wall = context.run(context.python, *words).wall
        return {"wall": wall, "log_bytes": float((folder / "lines.txt").stat().st_size)}


def _main(target: Path, tasks: int) -> None:
    with target.open("w", encoding="utf-8") as sys.stdout:
        for x in range(tasks):
            prints(x)
    sys.stdout = sys.__stdout__


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
