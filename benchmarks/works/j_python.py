"""Work j: jobpool from Python: what the import costs, how soon a million values are taken in, and the whole of it.

The yardstick of the import is ``python -c pass``; imports are so short that each counts ten times. The peers take the
same list in the same script, and keep nothing.
"""

from __future__ import annotations

import functools
from pathlib import Path

from benchmarks.goals import Goal
from benchmarks.measure import Contender, Context, Figures, Row

KEY = "j"
TITLE = "from Python: the import, and a list of 1,000,000 values"
TASKS = 1_000_000
QUICK_TASKS = 3_000
STARTS = 10

# The peers' pools take a function by its name in a module that their workers import.
FUNCTION = "def square(x: int) -> int:\n    return x * x\n"
HEAD = """
import json, sys, time
from work import square
if __name__ == "__main__":
    values = list(range({tasks}))
    began = time.perf_counter()
{body}
    assert results == [x * x for x in values]
    print(json.dumps(figures))
"""
JOBPOOL = """
    from jobpool_cli import udf
    pool = udf(square).map(values)
    taken = time.perf_counter() - began
    results = pool.results()
    figures = {"taken": taken, "whole": time.perf_counter() - began, "pandas": float("pandas" in sys.modules)}
"""
MULTIPROCESSING = """
    import multiprocessing
    with multiprocessing.Pool() as pool:
        results = pool.map(square, values)
    figures = {"whole": time.perf_counter() - began}
"""
EXECUTOR = """
    import concurrent.futures
    with concurrent.futures.ProcessPoolExecutor() as pool:
        results = list(pool.map(square, values, chunksize=1000))
    figures = {"whole": time.perf_counter() - began}
"""
SCRIPTS = {
    "jobpool": ("jobpool: map and results", JOBPOOL),
    "multiprocessing": ("multiprocessing.Pool", MULTIPROCESSING),
    "executor": ("ProcessPoolExecutor, chunksize 1000", EXECUTOR),
}

COLUMNS = {"wall": "whole process, s", "taken": "map returns after, s", "whole": "from the list to the results, s"}
PLOT = "wall"
GOALS = [
    Goal(
        "`import jobpool_cli`: at most 2 times `python -c pass`",
        lambda figures: figures["import"]["wall"] / figures["python"]["wall"],
        at_most=2,
    ),
    Goal(
        "a list of 1,000,000 values is taken in, and the pool runs, in at most 2 seconds",
        lambda figures: figures["jobpool"]["taken"],
        at_most=2,
    ),
]


def run(context: Context) -> list[Row]:
    """Measure the imports, then the scripts, in turn."""
    tasks = QUICK_TASKS if context.quick else TASKS
    with context.folder() as folder:
        (folder / "work.py").write_text(FUNCTION, encoding="utf-8")

        def start(code: str) -> Figures:
            return {"wall": sum(context.run(context.python, "-c", code).wall for _ in range(STARTS)) / STARTS}

        contenders = [
            Contender("python", "python -c pass", functools.partial(start, "pass")),
            Contender("import", 'python -c "import jobpool_cli"', functools.partial(start, "import jobpool_cli")),
        ]
        for key, (name, body) in SCRIPTS.items():
            script = folder / f"by_{key}.py"
            script.write_text(HEAD.format(tasks=tasks, body=body.rstrip()), encoding="utf-8")
            contenders.append(Contender(key, name, functools.partial(_script, context, folder, script), tasks))
        return context.in_turn(contenders)


def _script(context: Context, folder: Path, script: Path) -> Figures:
    ran = context.run(context.python, script, home=folder / "home")
    return {"wall": ran.wall, **ran.figures()}
