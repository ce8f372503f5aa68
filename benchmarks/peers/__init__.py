"""The peers, a file each: the script that a user would write with it, run by ``python -m benchmarks.peers.<peer>``.

A peer module has NAME, KEEPS (what is on disk afterwards) and FORGETS, plain strings, and a function that does the job
and returns its figures, handed to `main` below. It may say which program (NEEDS) or Python package (PACKAGE) it cannot
do without, and what people call its ways to be used (VARIANTS, by what follows the colon in a work's CONTENDERS).
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.measure import Figures
from benchmarks.works import Work

FACTS = ("NAME", "KEEPS", "FORGETS", "NEEDS", "PACKAGE", "VARIANTS")
WARM_TASKS_PER_WORKER = 4
WARM_SECONDS = 0.002


@dataclass(frozen=True)
class Job:
    """What a peer is asked to do."""

    module: str
    """The work's module, such as ``benchmarks.works.a_trivial``."""
    tasks: int
    workers: int
    folder: Path
    """A folder of its own, empty."""
    variant: Mapping[str, str]
    """Ways to use the peer, such as ``chunksize``."""

    @property
    def work(self) -> Work:
        """The work."""
        return cast("Work", importlib.import_module(self.module))

    @property
    def function(self) -> Callable[[int], Any]:
        """The function to run."""
        return self.work.task

    @property
    def arguments(self) -> list[int]:
        """Its arguments, one a task."""
        return self.work.arguments(self.tasks)

    @property
    def warm_arguments(self) -> list[str]:
        """Arguments for `warm`: a tiny run after which the workers are up and have imported the work."""
        return [self.module] * (self.workers * WARM_TASKS_PER_WORKER)

    def check(self, results: Sequence[Any]) -> None:
        """Raise if these are not the results: a figure of a wrong result is no figure."""
        self.work.check(results, self.tasks)


def warm(module: str) -> str:
    """Import the work in a worker, and keep the worker busy until its neighbours are up, too."""
    importlib.import_module(module)
    time.sleep(WARM_SECONDS)
    return module


def main(run: Callable[[Job], Figures], *, refuse: Callable[[], str] | None = None) -> None:
    """Do the job of the command line; print its figures as the last line, or why not if ``refuse`` gives a reason.

    ``run`` returns at least ``seconds``: from the first call that makes the pool to the last result in hand. With
    ``map_seconds``, the part of it for which the workers were up and warm, it is shown in the best light.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True, metavar="MODULE")
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    refusal = refuse() if refuse is not None else ""
    if refusal:
        print(json.dumps({"skipped": refusal}))
        return
    variant = dict(each.split("=", 1) for each in given.variant)
    job = Job(f"benchmarks.works.{given.work}", given.tasks, given.workers, given.folder.absolute(), variant)
    print(json.dumps({**run(job), "tasks": job.tasks}), flush=True)


def names() -> list[str]:
    """Return the names of all peers' modules."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def facts(peer: str) -> dict[str, Any]:
    """Return what a peer's module says of itself; read, not imported, for its library may not be installed."""
    source = (Path(__file__).parent / f"{peer}.py").read_text(encoding="utf-8")
    return {
        target.id: ast.literal_eval(statement.value)
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and target.id in FACTS
    }
