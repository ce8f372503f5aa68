"""The table that a run leaves."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import page, peers, report
from benchmarks.goals import Goal, judge, times_the_rate
from benchmarks.measure import Row

ROWS = [
    Row(contender="jobpool", name="jobpool", tasks=1000, rounds=[{"rate": 4000.0}, {"rate": 6000.0}], failed=""),
    Row(contender="other", name="Other", tasks=10, rounds=[{"rate": 2000.0, "wall": 0.5}] * 2, failed=""),
    Row(contender="gone", name="Gone", tasks=10, rounds=[], failed="there is no\n`gone` here"),
]


def _work(**changes: Any) -> dict[str, Any]:
    goals = [
        report.goal_entry(judge(Goal("twice the other", times_the_rate("other"), at_least=2, unit="times"), ROWS)),
        report.goal_entry(judge(Goal("ten times the other", times_the_rate("other"), at_least=10), ROWS)),
        report.goal_entry(judge(Goal("twice the gone", times_the_rate("gone"), at_least=2), ROWS)),
    ]
    columns = {"rate": "tasks/s", "wall": "seconds", "other": "never measured"}
    return {"title": "Some work", "quick": False, "columns": columns, "plot": "rate", "rows": ROWS, "goals": goals} | (
        changes
    )


def test_the_table_shows_goals_medians_and_who_has_no_figure() -> None:
    table = report.table({"machine": {"Python": "3.13"}, "works": {"x": _work()}})
    assert "Python 3.13" in table
    assert "| x: Some work | twice the other | 2.50 times (2 to 3) | yes |" in table
    assert "|  | ten times the other | 2.50 (2 to 3) | **NO** |" in table
    assert "|  | twice the gone | not measured | open |" in table
    assert "|  | tasks | tasks/s | seconds |" in table
    assert "| jobpool | 1,000 | 5,000 (4,000 to 6,000) |  |" in table
    assert "| Other | 10 | 2,000 | 0.500 |" in table
    assert "| Gone | 10 | not measured |  |" in table
    assert "\n- Not measured: Gone: there is no `gone` here" in table


def test_a_table_without_any_figure_says_so() -> None:
    table = report.work_table("x", _work(rows=ROWS[2:]))
    assert "| Gone | 10 |" in table
    assert "- Not measured: Gone" in table


def test_a_quick_run_claims_nothing() -> None:
    table = report.table({"machine": {}, "works": {"x": _work(quick=True)}})
    assert "yes" not in table
    assert "**NO**" not in table
    assert "the figures mean nothing" in table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234567, "1,230,000"),
        (1234, "1,230"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.1234, "0.123"),
        (0.01234, "0.012"),
        (0.00123, "0.0012"),
        (32.0, "32"),
        (0.0, "0"),
    ],
)
def test_a_number_has_three_digits_that_mean_something(value: float, shown: str) -> None:
    assert report.number(value) == shown


def test_every_peer_says_what_it_keeps_and_what_it_forgets() -> None:
    for peer in peers.names():
        assert {"NAME", "KEEPS", "FORGETS"} <= peers.facts(peer).keys(), peer


def test_the_pages_tell_the_peers_and_the_figures_as_they_are() -> None:
    for path, (block, text) in page.BLOCKS.items():
        content = path.read_text(encoding="utf-8")
        assert f"<!-- {block} -->" in content
        assert page.filled(content, block, text()) == content, "run: python -m benchmarks.page"
