"""Work g: three trivial tasks from the shell, which is what the start of everything costs, and nothing else.

The imports of a user's function are not jobpool's to shorten: they are measured by themselves, in a bare Python, and a
second function that has them (pandas) is run beside the one that has none. How soon a first result is recorded once a
worker is ready is seen from outside: the function's file notes when it has been imported, and the pool is looked at
until its first success shows.
"""

from __future__ import annotations

import functools
import importlib
import subprocess
import time
from pathlib import Path

from benchmarks import contest
from benchmarks.environment import lacking
from benchmarks.goals import Goal
from benchmarks.measure import Contender, Context, Figures, MeasureError, Row
from benchmarks.peers.jobpool import wait_for_end
from jobpool_cli import JobPool
from jobpool_cli.model import TaskState

KEY = "g"
TITLE = "3 trivial tasks from the shell, start to finish"
TASKS = 3
TRIVIAL_WORK = "a_trivial"
TRIVIAL = "def square(x: int) -> int:\n    return x * x\n"
IMPORTS = "import pandas\n\n\n" + TRIVIAL
# Notes, in every process that imports it, when the import was done.
NOTES = 'import os, time\n\n\n{body}\n\nopen(f"{folder}/imported-{{os.getpid()}}", "w").write(str(time.time()))\n'
LOOK_SECONDS = 0.002
PATIENCE_SECONDS = 60.0

PEERS = (
    "executor:chunksize=1",
    "multiprocessing_pool",
    "joblib_loky",
    "mpire_pool",
    "dask_local",
    "ray_local",
    "hyperqueue_local",
    "gnu_parallel",
    "submitit_local",
)
COLUMNS = {"wall": "whole command, s", "first_result": "first result after a worker is ready, s"}
PLOT = "wall"
GOALS = [
    Goal(
        "`map --wait` at most 1.0 s longer than the function's own imports (none): seconds",
        lambda figures: figures["wait"]["wall"],
        at_most=1.0,
    ),
    Goal(
        "`map --wait` at most 1.0 s longer than the function's own imports (pandas): seconds beyond them",
        lambda figures: figures["wait-imports"]["wall"] - figures["imports"]["wall"],
        at_most=1.0,
    ),
    Goal(
        "the first result is on the disk at most 0.5 s after a worker is ready: seconds",
        lambda figures: figures["first"]["first_result"],
        at_most=0.5,
    ),
    Goal(
        '`map` is back at the prompt in at most 4 x `python -c "import pyarrow"`',
        lambda figures: figures["map"]["wall"] / figures["pyarrow"]["wall"],
        at_most=4.0,
    ),
]


def run(context: Context) -> list[Row]:
    """Measure jobpool's commands, the bare imports that they are compared with, and the peers with as many tasks."""
    with context.folder() as folder:
        table = folder / "args.csv"
        table.write_text("x\n1\n2\n3\n", encoding="utf-8")
        trivial, imports = folder / "trivial.py", folder / "imports.py"
        trivial.write_text(TRIVIAL, encoding="utf-8")
        imports.write_text(IMPORTS, encoding="utf-8")

        def bare(code: str) -> Figures:
            return {"wall": context.run(context.python, "-c", code).wall}

        def mapped(file: Path, *options: str) -> Figures:
            wall = context.run_jobpool("map", file, table, "--home", folder / "home", *options).wall
            # What still runs must not take part in the next measurement.
            wait_for_end(JobPool.open("last", home=str(folder / "home")))
            return {"wall": wall}

        own = [
            Contender("wait", "jobpool map --wait", functools.partial(mapped, trivial, "--wait"), TASKS),
            Contender("map", "jobpool map, back at the prompt", functools.partial(mapped, trivial), TASKS),
            Contender(
                "wait-imports",
                "jobpool map --wait, importing pandas",
                functools.partial(mapped, imports, "--wait"),
                TASKS,
            ),
            Contender("first", "jobpool, first result", functools.partial(first_result, context, folder, table), TASKS),
            Contender("python", "python -c pass", functools.partial(bare, "pass")),
            Contender("pyarrow", 'python -c "import pyarrow"', functools.partial(bare, "import pyarrow")),
            Contender("imports", 'python -c "import pandas"', functools.partial(bare, "import pandas")),
        ]
        trivial_work = importlib.import_module(f"benchmarks.works.{TRIVIAL_WORK}")
        others, skipped = [], []
        for key in PEERS:
            reason = lacking(key.partition(":")[0])
            if reason:
                skipped.append(Row(contender=key, name=contest.label(key), tasks=TASKS, rounds=[], failed=reason))
                continue
            measure = functools.partial(contest.run_peer, context, TRIVIAL_WORK, trivial_work, key, TASKS)
            others.append(Contender(key, contest.label(key), measure, TASKS))
        return [*context.in_turn([*own, *others]), *skipped]


def first_result(context: Context, folder: Path, table: Path) -> Figures:
    """Start a pool and look until its first success is recorded; count from the first worker's import of the file."""
    with context.folder() as notes:
        file = notes / "noting.py"
        file.write_text(NOTES.format(body=TRIVIAL, folder=notes), encoding="utf-8")
        home = folder / "noting-home"
        words = [*context.jobpool, "map", str(file), str(table), "--home", str(home), "--name", notes.name]
        with subprocess.Popen(words, env=context.env(home), stdout=subprocess.DEVNULL) as command:
            deadline = time.monotonic() + PATIENCE_SECONDS
            pool = None
            while pool is None or not pool.snapshot().counts[TaskState.SUCCESS]:
                if time.monotonic() > deadline:
                    raise MeasureError("no result was recorded")
                if pool is None and (home / "pools" / notes.name / "pool.json").exists():
                    pool = JobPool.open(notes.name, home=str(home))
                time.sleep(LOOK_SECONDS)
            seen = time.time()
        imported = {each.name: float(each.read_text(encoding="ascii")) for each in notes.glob("imported-*")}
        # `map` itself imports the file, too, before there is a pool.
        imported.pop(f"imported-{command.pid}", None)
        wait_for_end(pool)
        return {"first_result": seen - min(imported.values())}
