"""The command: runs works one after another, and keeps results.json, table.md and plot.png up to date after each."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Collection
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import contest, environment, peers, report
from benchmarks.goals import judge
from benchmarks.measure import Context

WORKS = Path(__file__).parent / "works"
RESULTS = Path(__file__).parent / "results"
DEFAULT_COLUMNS = {
    "rate": "tasks/s, whole command",
    "wall": "whole command, s",
    "map_rate": "tasks/s, workers warm",
}


def modules() -> dict[str, str]:
    """Return the works' modules by their letters."""
    return {path.stem[0]: path.stem for path in sorted(WORKS.glob("[a-z]_*.py"))}


def main() -> None:
    """Measure what the command line asks for."""
    works = modules()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--works", default=",".join(works), metavar="a,b,…", help="Letters; all by default.")
    parser.add_argument("--peers", default="", metavar="NAME,…", help="Modules of benchmarks/peers; all by default.")
    parser.add_argument("--rounds", type=int, default=3, help="How often each contender is measured, in turn.")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="Processes; all cores.")
    parser.add_argument("--quick", action="store_true", help="Small works, one round: does everything run?")
    parser.add_argument("--output", type=Path, help="Folder of the results; benchmarks/results by default.")
    parser.add_argument("--here", action="store_true", help="Install nothing: use this interpreter's packages.")
    given = parser.parse_args()
    chosen = given.works.split(",")
    if unknown := [key for key in chosen if key not in works]:
        parser.error(f"there is no work {', '.join(unknown)}; there are {', '.join(works)}")
    chosen_peers = given.peers.split(",") if given.peers else []
    if unknown := [peer for peer in chosen_peers if peer not in peers.names()]:
        parser.error(f"there is no peer {', '.join(unknown)}; there are {', '.join(peers.names())}")
    output = (given.output or (environment.FOLDER / "quick" if given.quick else RESULTS)).absolute()
    output.mkdir(parents=True, exist_ok=True)
    if not given.here:
        sys.exit(environment.run_there([*sys.argv[1:], "--here", "--output", output]))
    environment.FOLDER.mkdir(exist_ok=True)
    broken = []
    with tempfile.TemporaryDirectory(dir=environment.FOLDER, prefix="scratch-", ignore_cleanup_errors=True) as scratch:
        context = Context(
            python=Path(sys.executable),
            jobpool=environment.jobpool_command(Path(sys.executable)),
            scratch=Path(scratch),
            rounds=1 if given.quick else given.rounds,
            quick=given.quick,
            workers=given.workers,
        )
        for key in chosen:
            # In a process of its own, which prints why if it breaks: no process that is measured is smaller than the
            # one that starts it, and checking results may take a gigabyte.
            process = get_context("fork").Process(
                target=measure_and_keep, args=(context, works[key], chosen_peers, output)
            )
            process.start()
            process.join()
            if process.exitcode:
                broken.append(key)
    if (output / report.TABLE).exists():
        print((output / report.TABLE).read_text(encoding="utf-8"))
    if broken:
        sys.exit(f"these works could not be measured: {', '.join(broken)}; the tracebacks above say why")


def measure_and_keep(context: Context, module: str, chosen: Collection[str], output: Path) -> None:
    """Measure one work, and put its figures in the place of what it gave before."""
    found = measure(context, module, chosen)
    report.keep(output, module[0], found, environment.machine(context.workers))


def measure(context: Context, module: str, chosen: Collection[str]) -> dict[str, Any]:
    """Measure one work; return what results.json keeps of it."""
    work = importlib.import_module(f"benchmarks.works.{module}")
    context.tell(f"{work.KEY}: {work.TITLE}")
    begun = time.monotonic()
    rows = work.run(context) if hasattr(work, "run") else contest.compete(context, module, work, chosen)
    context.tell(f"{work.KEY} took {(time.monotonic() - begun) / 60:.1f} minutes")
    columns = dict(getattr(work, "COLUMNS", DEFAULT_COLUMNS))
    return {
        "title": work.TITLE,
        "quick": context.quick,
        "columns": columns,
        "plot": getattr(work, "PLOT", next(iter(columns))),
        "rows": rows,
        "goals": [report.goal_entry(judge(goal, rows)) for goal in getattr(work, "GOALS", [])],
    }


if __name__ == "__main__":
    main()
