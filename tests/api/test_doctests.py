"""Every example in a docstring of the Python API is run, and gives what stands there."""

from __future__ import annotations

import doctest
import importlib
import inspect
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli import JobPool, udf
from tests.helpers import LONG_SECONDS

MODULES = [
    "jobpool_cli.decorator",
    "jobpool_cli.pool.jobpool",
    "jobpool_cli.pool.outcomes",
    "jobpool_cli.pool.steering",
    "jobpool_cli.pool.tables",
    "jobpool_cli.pool.task",
    "jobpool_cli.settings",
    "jobpool_cli.worker.context",
]


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name))]
    # A method is found under the name of its steps and of its twin as well.
    named = [(test.name.rpartition(".")[2], test) for test in found if test.examples]
    return [test for name, test in named if name.startswith("__") or not (name.startswith("_") or "_async" in name)]


@udf
def square(x: int) -> int:
    """Serve most of the examples."""
    print(f"squaring {x}")  # noqa: T201 - logs have something to show
    return x**2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two pools, of which one has a failure; pools are folders, so that each example can have a copy."""
    home = tmp_path_factory.mktemp("made")
    for pool in (
        square.map([1, 2, 3], name="squares", home=str(home)),
        udf(lambda x: 1 / x).map([1, 0], name="quotients", home=str(home)),
    ):
        pool.follow()
        # All tasks are finished a moment before the supervisor is: until then its files come and go.
        pool.shutdown(timeout=LONG_SECONDS)
    return home


@pytest.fixture
def names(made: Path, own_home: Path) -> dict[str, Any]:
    """What the examples have at hand."""
    shutil.copytree(made, own_home)
    pools = {"pool": JobPool.open("squares"), "quotients": JobPool.open("quotients")}
    return {"JobPool": JobPool, "udf": udf, "square": square, "nap": udf(time.sleep), **pools}


@pytest.mark.parametrize("example", examples(), ids=lambda test: test.name.removeprefix("jobpool_cli."))
def test_the_example_gives_what_it_says(example: doctest.DocTest, names: dict[str, Any]) -> None:
    example.globs.update(names)
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    result = runner.run(example, out=output.append)
    assert result.failed == 0, "".join(output)


PUBLIC = [
    name
    for name in dir(JobPool)
    if not name.startswith("_") and not name.endswith("_async") and inspect.isroutine(getattr(JobPool, name))
]
# Parts of which the rest is made, and what the command line alone uses.
INNER = {
    "arguments", "call_arguments", "calls", "check", "check_tasks", "constants", "exceptions", "failure_groups",
    "failures", "first_failure", "follow", "follow_log", "follow_logs", "gather", "is_live", "iter_results",
    "log_texts", "result_batches",
    "remove_remains", "running_tasks", "snapshot", "stand_by", "submit", "task_logs", "task_table", "tasks_of_group",
    "watch",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - INNER))
def test_every_method_for_users_has_an_example(name: str) -> None:
    documentation = inspect.getdoc(getattr(JobPool, name)) or ""
    assert "Example:" in documentation
