"""A simple work, run by jobpool and by a peer that needs no library, small."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import measure
from benchmarks.environment import jobpool_command
from benchmarks.measure import Context
from benchmarks.works import b_millisecond


def test_a_quick_run_measures_a_work_and_judges_its_goals(tmp_path: Path) -> None:
    here = Path(sys.executable)
    context = Context(here, jobpool_command(here), tmp_path, rounds=1, quick=True, workers=2)
    found = measure(context, "a_trivial", ["jobpool", "executor"])
    assert [row["failed"] for row in found["rows"]] == ["", "", ""]
    for row in found["rows"]:
        (figures,) = row["rounds"]
        assert 0 < figures["map_seconds"] <= figures["wall"]
        assert figures["rate"] == row["tasks"] / figures["wall"]
    assert any(goal["ratio"] for goal in found["goals"])
    assert found["plot"] in found["columns"]


def test_the_share_of_the_ideal_counts_from_when_all_workers_are_up_where_that_is_known() -> None:
    assert b_millisecond.derive({"map_seconds": 10.0}, 10_000, 2)["efficiency"] == pytest.approx(50)
    figures = {"map_seconds": 10.0, "all_up_rate": 1_900.0}
    assert b_millisecond.derive(figures, 10_000, 2)["efficiency"] == pytest.approx(95)
    assert b_millisecond.derive({"wall": 1.0}, 10, 2) == {}
