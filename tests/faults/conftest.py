"""The fault suite: tests that bear the number of a scenario, and ``faults`` to work with."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.harness import Faults

LONG_TIMEOUT_SECONDS = 3600


def scenario_of(item: pytest.Item) -> int:
    """Return the number that a test's ``scenario`` mark gives; 0 for what belongs to none."""
    mark = item.get_closest_marker("scenario")
    return int(mark.args[0]) if mark is not None else 0


@pytest.fixture
def faults(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Faults]:
    """Pools of one test, its faults and its checks; nothing of it is left at the end."""
    made = Faults(tmp_path, scenario_of(request.node))
    yield made
    made.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the scenarios that were asked for, and give the long sweeps their time."""
    only = {int(number) for number in os.environ.get(ledger.ONLY, "").split(",") if number}
    dropped = [item for item in items if only and scenario_of(item) not in only]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]
    if ledger.is_long():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.timeout(LONG_TIMEOUT_SECONDS), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write each test's outcome into the ledger."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
        outcome = {"test": item.name, "outcome": report.outcome, "seconds": report.duration, "reason": reason}
        ledger.write(scenario_of(item), **outcome)
    return report
