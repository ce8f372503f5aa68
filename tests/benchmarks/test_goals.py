"""Goals are judged by ratios within rounds."""

from __future__ import annotations

import pytest

from benchmarks.goals import Goal, judge, times_the_best_rate, times_the_rate
from benchmarks.measure import Figures, Row


def _row(contender: str, *rates: float, failed: str = "") -> Row:
    return Row(contender=contender, name=contender, tasks=1, rounds=[{"rate": rate} for rate in rates], failed=failed)


def test_the_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians() -> None:
    # The machine was three times as fast in the second round, for both.
    rows = [_row("jobpool", 20, 60, 30), _row("joblib", 10, 30, 10)]
    verdict = judge(Goal("twice joblib", times_the_rate("joblib"), at_least=2), rows)
    assert verdict.ratio is not None
    assert (verdict.ratio.median, verdict.ratio.low, verdict.ratio.high) == (2, 2, 3)
    assert verdict.met


@pytest.mark.parametrize(("at_least", "at_most", "met"), [(2, None, True), (2.1, None, False), (None, 1.9, False)])
def test_the_median_decides(at_least: float | None, at_most: float | None, met: bool) -> None:  # noqa: FBT001
    rows = [_row("jobpool", 1, 2, 30), _row("joblib", 1, 1, 1)]
    assert judge(Goal("", times_the_rate("joblib"), at_least, at_most), rows).met is met


def test_no_worse_means_that_the_spread_reaches_it() -> None:
    rows = [_row("jobpool", 1.02, 0.99, 1.01), _row("other", 1, 1, 1)]
    assert judge(Goal("", times_the_rate("other"), at_most=1.0, within_spread=True), rows).met
    assert not judge(Goal("", times_the_rate("other"), at_most=0.98, within_spread=True), rows).met


@pytest.mark.parametrize(("warm", "ratio"), [({}, 10), ({"map_rate": 4.0}, 5), ({"map_rate": 1.0}, 10)])
def test_a_peer_is_taken_in_its_best_light(warm: Figures, ratio: float) -> None:
    jobpool: Figures = {"rate": 20, "map_rate": 99}
    assert times_the_best_rate("peer")({"jobpool": jobpool, "peer": {"rate": 2.0} | warm}) == ratio


@pytest.mark.parametrize("rows", [[], [_row("jobpool", 1)], [_row("jobpool", 1), _row("joblib", failed="gone")]])
def test_a_goal_is_open_while_somebody_it_names_was_not_measured(rows: list[Row]) -> None:
    verdict = judge(Goal("", times_the_rate("joblib"), at_least=2), rows)
    assert (verdict.ratio, verdict.met) == (None, None)
