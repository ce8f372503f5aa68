"""The simple works, run by jobpool and by a peer that needs no library, small."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import measure
from benchmarks.environment import jobpool_command
from benchmarks.measure import Context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    here = Path(sys.executable)
    command = jobpool_command(here)
    return Context(python=here, jobpool=command, scratch=tmp_path, rounds=1, quick=True, workers=2)


@pytest.mark.parametrize("module", ["a_trivial", "b_millisecond", "c_uneven"])
def test_a_quick_run_measures_a_work_and_judges_its_goals(context: Context, module: str) -> None:
    found = measure(context, module, ["jobpool", "executor"])
    assert [row["failed"] for row in found["rows"]] == ["", "", ""]
    for row in found["rows"]:
        (figures,) = row["rounds"]
        assert 0 < figures["map_seconds"] <= figures["wall"]
        assert figures["rate"] == row["tasks"] / figures["wall"]
    assert any(goal["ratio"] for goal in found["goals"])
    assert found["plot"] in found["columns"]
