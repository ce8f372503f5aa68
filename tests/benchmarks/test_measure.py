"""Processes measured from outside, and contenders in turn."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from benchmarks.measure import Contender, Figures, MeasureError, in_turn, run_process, spread


def _contender(key: str, calls: list[str], fails_at: int = -1) -> Contender:
    def measure() -> Figures:
        calls.append(key)
        if calls.count(key) - 1 == fails_at:
            raise MeasureError("out of breath")
        return {"seconds": float(calls.count(key))}

    return Contender(key, key.upper(), measure, tasks=3)


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_contenders_alternate_and_none_always_follows_the_same_one() -> None:
    calls: list[str] = []
    rows = in_turn([_contender(key, calls) for key in "abc"], 3)
    assert calls == [*"abc", *"bca", *"cab"]
    assert [row["contender"] for row in rows] == [*"abc"]
    assert rows[0]["rounds"] == [{"seconds": 1.0}, {"seconds": 2.0}, {"seconds": 3.0}]


def test_a_contender_that_fails_once_is_out_and_says_why() -> None:
    calls: list[str] = []
    rows = in_turn([_contender("a", calls), _contender("b", calls, fails_at=1)], 3)
    assert (len(rows[0]["rounds"]), rows[1]["rounds"], rows[1]["failed"]) == (3, [], "out of breath")
    assert calls.count("b") == 2


def test_wrong_results_cost_their_contender_its_figures_and_nobody_else() -> None:
    def wrong() -> Figures:
        raise AssertionError("a square is wrong")

    rows = in_turn([Contender("a", "A", wrong), _contender("b", [])], 2)
    assert (rows[0]["rounds"], rows[0]["failed"]) == ([], "wrong results: a square is wrong")
    assert len(rows[1]["rounds"]) == 2


@pytest.mark.parametrize(("values", "middle"), [([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0], 2.5), ([1.0], 1.0)])
def test_a_spread_is_median_lowest_and_highest(values: list[float], middle: float) -> None:
    found = spread(values)
    assert (found.median, found.low, found.high) == (middle, min(values), max(values))


def test_a_process_is_measured_as_a_whole() -> None:
    ran = run_process(_python("import time; time.sleep(0.2); x = bytearray(2**26); print('noise\\n{\"seconds\": 1}')"))
    assert ran.figures() == {"seconds": 1.0}
    assert ran.wall >= 0.2
    assert ran.peak_rss >= 2**26


@pytest.mark.parametrize(
    ("go", "reason"),
    [
        (lambda: run_process(_python("raise ValueError('told you')")), "ended with 1: ValueError: told you"),
        (lambda: run_process(_python("import time; time.sleep(60)"), time_limit=0.2), "stopped after 0.2 s"),
        (lambda: run_process(["/no/such/program"]), "No such file"),
        (lambda: run_process(_python("print('done')")).figures(), "no JSON"),
        (lambda: run_process(_python("print(1)")).figures(), "no JSON object"),
        (lambda: run_process(_python('print(\'{"seconds": "many"}\')')).figures(), "more than numbers"),
        (lambda: run_process(_python('print(\'{"skipped": "no network"}\')')).figures(), "^no network$"),
        (lambda: run_process(_python("")).figures(), "no JSON"),
    ],
)
def test_a_process_without_a_figure_says_why(go: Callable[[], object], reason: str) -> None:
    with pytest.raises(MeasureError, match=reason):
        go()
