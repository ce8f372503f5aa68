"""Work d: many small DataFrames to one table.

jobpool runs the tasks and writes the table (``map --wait``, then ``collect -o``). joblib returns the frames to the
script, where ``pandas.concat`` makes them one. The third contender does only the last step of what many do by hand, a
file a task: it reads the files and concatenates them; writing them is not counted.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.goals import Goal
from benchmarks.measure import Contender, Context, Figures, Row
from benchmarks.peers.jobpool import wait_for_end
from jobpool_cli import JobPool

if TYPE_CHECKING:
    import pandas as pd

KEY = "d"
TITLE = "100,000 tasks that return a DataFrame of 10 rows, collected to one table"
TASKS, QUICK_TASKS = 100_000, 500
# A file a task takes minutes for all of them, and the time grows with their number no less than evenly.
FILES, QUICK_FILES = 10_000, 100
ROWS = 10
COLUMNS = {
    "wall": "all of it, whole commands, s",
    "rate": "tasks/s",
    "collect_wall": "making the table, s",
    "collect_rate": "tasks/s of making the table",
}
PLOT = "rate"
GOALS = [
    Goal(
        "`collect` at least 10 times faster than pandas reads and concatenates a file a task",
        lambda figures: figures["jobpool"]["collect_rate"] / figures["files"]["collect_rate"],
        at_least=10,
    ),
    Goal(
        "the whole run faster than joblib and pandas.concat",
        lambda figures: figures["joblib"]["wall"] / figures["jobpool"]["wall"],
        at_least=1,
    ),
]


def task(x: int) -> pd.DataFrame:
    """Return a small frame of numbers and text."""
    import pandas as pd  # noqa: PLC0415 - the measuring process does without

    return pd.DataFrame(
        {
            "whole": range(x, x + ROWS),
            "half": [(x + row) / 2 for row in range(ROWS)],
            "text": [f"row {row} of {x % 97}" for row in range(ROWS)],
        }
    )


def run(context: Context) -> list[Row]:
    """Write the files once, then measure all contenders in turn."""
    tasks, files = (QUICK_TASKS, QUICK_FILES) if context.quick else (TASKS, FILES)
    with context.folder() as folder:
        context.tell(f"  writing {files:,} files")
        context.run(context.python, "-m", __name__, "write", folder, str(files))
        return context.in_turn(
            [
                Contender(
                    "jobpool", "jobpool map --wait, collect -o", functools.partial(_jobpool, context, tasks), tasks
                ),
                Contender("joblib", "joblib, pandas.concat", functools.partial(_joblib, context, tasks), tasks),
                Contender("files", "pandas: a file a task", functools.partial(_files, context, folder, files), files),
            ]
        )


def _jobpool(context: Context, tasks: int) -> Figures:
    with context.folder() as folder:
        table, out = folder / "args.csv", folder / "out.parquet"
        table.write_text("".join(f"{cell}\n" for cell in ["x", *range(tasks)]), encoding="utf-8")
        mapped = context.map(f"{__file__}:task", table, "--name", "frames", home=folder).wall
        collected = context.run_jobpool("collect", "frames", "-o", out, home=folder).wall
        wait_for_end(JobPool.open("frames", home=str(folder)))
        _check(out, tasks)
    wall = mapped + collected
    return {"wall": wall, "rate": tasks / wall, "collect_wall": collected, "collect_rate": tasks / collected}


def _check(out: Path, tasks: int) -> None:
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    found = pq.read_table(out, columns=["x", "whole", "text"])
    assert found.num_rows == tasks * ROWS, f"{found.num_rows} rows of {tasks} tasks"
    assert pc.sum(found["x"]).as_py() == ROWS * tasks * (tasks - 1) // 2, "the tasks' numbers are wrong"
    assert pc.sum(pc.subtract(found["whole"], found["x"])).as_py() == tasks * sum(range(ROWS)), "rows are wrong"
    assert found["text"][-1].as_py() == f"row {ROWS - 1} of {(tasks - 1) % 97}", "the last row is wrong"


def _joblib(context: Context, tasks: int) -> Figures:
    ran = context.run(context.python, "-m", __name__, "joblib", str(context.workers), str(tasks))
    return {"wall": ran.wall, "rate": tasks / ran.wall}


def _files(context: Context, folder: Path, files: int) -> Figures:
    ran = context.run(context.python, "-m", __name__, "read", folder, str(files))
    seconds = ran.figures()["seconds"]  # without the imports: what a file costs is asked, and there are fewer of them
    return {"collect_wall": ran.wall, "collect_rate": files / seconds}


def _main(what: str, first: str, count: int) -> None:
    """Do what a peer does, as its user's script would."""
    import pandas as pd  # noqa: PLC0415

    if what == "write":
        for x in range(count):
            task(x).to_parquet(Path(first) / f"{x:06}.parquet")
        return
    begun = time.perf_counter()
    if what == "joblib":
        from joblib import Parallel, delayed  # noqa: PLC0415

        frames = Parallel(n_jobs=int(first))(delayed(_joblib_task())(x) for x in range(count))
    else:
        frames = [pd.read_parquet(file) for file in sorted(Path(first).glob("*.parquet"))]
    whole = pd.concat(frames, keys=range(count))
    assert len(whole) == count * ROWS, f"{len(whole)} rows of {count} tasks"
    print(f'{{"seconds": {time.perf_counter() - begun}}}')


def _joblib_task() -> Callable[[int], pd.DataFrame]:
    """Return the function as its module has it: that of a script is pickled by value, at every call."""
    found: Callable[[int], pd.DataFrame] = importlib.import_module(f"benchmarks.works.{Path(__file__).stem}").task
    return found


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
