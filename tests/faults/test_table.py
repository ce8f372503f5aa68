"""The suite itself: every scenario has its test, and the table counts what the ledger says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.faults.__main__ import table, tally
from tests.faults.scenarios import SCENARIOS

SOURCES = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]


@pytest.mark.parametrize("number", SCENARIOS)
def test_every_scenario_has_a_test_that_bears_its_number(number: int) -> None:
    told = re.compile(rf'"""Scenario {number}\b')
    assert any(f"scenario({number})" in source and told.search(source) for source in SOURCES)


def test_the_table_says_what_was_injected_and_checked_and_what_was_lost() -> None:
    passed = {"test": "t", "outcome": "passed", "seconds": 1.0, "reason": ""}
    lines = [
        {"scenario": 4, "injected": 3},
        {"scenario": 4, "checked": 1, "tasks": 500, "lost": 2},
        {"scenario": 4, **passed},
        {"scenario": 5, **passed},
        {"scenario": 5, **passed, "outcome": "failed"},
        {"scenario": 6, **passed, "outcome": "skipped", "reason": "Skipped: it needs root"},
        {"scenario": 7, **passed, "outcome": "skipped", "reason": "Skipped: it needs strace"},
        {"scenario": 7, **passed},
        {"scenario": 0, "injected": 1, "hangs": 1},
    ]
    printed = table(tally(map(json.dumps, lines))).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed]
    assert rows[0][3:] == ["faults injected", "pools checked", "tasks", "tasks lost", "recorded twice", "hangs"]
    by_number = {row[0]: row[2:] for row in rows[2:]}
    assert by_number["4"] == ["holds", "3", "1", "500", "2", "0", "0"]
    assert by_number["5"][0] == "FAILS"
    assert by_number["6"][0] == "skipped: Skipped: it needs root"
    assert by_number["7"][0].startswith("skipped"), "a part that was not run is not a scenario that holds"
    assert by_number["8"][0] == "not run"
    assert rows[-1][1:] == ["in all", "1 of 54 hold", "4", "1", "500", "2", "0", "1"]
