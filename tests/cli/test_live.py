from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest

from jobpool_cli.cli import live, render_status
from jobpool_cli.model import PoolState, PoolStatus, TaskState


def status_of(state: PoolState = PoolState.RUNNING, **counts: int) -> PoolStatus:
    every: dict[TaskState, int] = {each: counts.get(each.value, 0) for each in TaskState}
    return PoolStatus("p", state, sum(every.values()), every, datetime(2026, 1, 1, tzinfo=UTC), 2.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr("jobpool_cli.cli.live.time.monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_every_ten_seconds_and_none_at_the_end(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = live.progress(stream)
    looks = [
        (105.0, status_of(success=1, running=1)),
        (110.5, status_of(success=1200, error=1, running=2)),
        (112.0, status_of(success=1300)),
        (121.0, status_of(success=1300, pending=1)),
    ]
    for now, look in looks:
        clock[0] = now
        shown.update(look)
    clock[0] = 140.0
    shown.update(status_of(PoolState.DONE, success=1))
    assert stream.getvalue().splitlines() == [
        "p: 1,201 of 1,203 tasks finished, 1 failed, 2 running",
        "p: 1,300 of 1,301 tasks finished",
    ]


def test_quiet_is_quiet(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = live.progress(stream, quiet=True)
    clock[0] = 200.0
    shown.update(status_of(running=3))
    assert stream.getvalue() == ""


def test_the_rate_is_that_of_the_last_seconds_and_forgets_what_a_retry_took_back() -> None:
    rate = live.Rate()
    assert rate.add(0.0, 0) is None
    assert rate.add(10.0, 1000) == 100.0
    assert rate.add(20.0, 1010) == 1.0
    assert rate.add(21.0, 900) is None
    assert rate.add(22.0, 905) == 5.0


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"pending": 4}, "░" * 40),
        ({"success": 1, "pending": 1}, "█" * 20 + "░" * 20),
        ({"success": 10**6, "error": 1}, "█" * 39 + "▓"),
        ({"success": 1, "timeout": 1, "cancelled": 10**6}, "█▓" + "▒" * 38),
        ({"success": 1, "error": 1, "cancelled": 1}, "█" * 14 + "▓" * 13 + "▒" * 13),
        ({"success": 1, "pending": 10**6}, "█" + "░" * 39),
        ({}, "░" * 40),
    ],
)
def test_the_bar_of_a_status_is_as_long_as_it_should_be_and_rounds_nothing_away(
    counts: dict[str, Any], expected: str
) -> None:
    assert render_status._bar(status_of(**counts)) == expected


@pytest.mark.parametrize(
    ("per_second", "expected"),
    [(123456.7, "123,457 tasks/s"), (3.75, "3.8 tasks/s"), (0.5, "30.0 tasks/min"), (0.001, "3.6 tasks/h")],
)
def test_rates_are_in_the_unit_that_gives_a_number_one_can_read(per_second: float, expected: str) -> None:
    assert render_status.rate(per_second) == expected
