from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from jobpool_cli.show.text import count, duration, escape, has_colour, is_live, is_terminal, iso, rate
from tests.terminals import Terminal


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    assert escape("a\x1b[31mb\x07\x9b\x7f") == "a\\x1b[31mb\\x07\\x9b\\x7f"
    assert escape("left\u202eright") == "left\\u202eright"
    assert escape("a\tb\r\nc") == "a\\tb\\r\\nc"
    assert escape("a\tb\r\nc", lines=True) == "a\tb\\r\nc"
    assert escape("[/foo] ünï 漢字") == "[/foo] ünï 漢字"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, ""),
        (0.0000063, "6 µs"),
        (0.00424, "4.24 ms"),
        (0.1, "0.10 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min"),
        (119.6, "2 min"),
        (125, "2 min 5 s"),
        (7260, "2 h 1 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_lengths_of_time_have_at_most_two_units(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


def test_moments_for_programs_are_iso_8601_in_utc() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert iso(moment) == "2026-01-02T03:04:05.000006Z"
    assert iso(moment.astimezone(timezone(timedelta(hours=5)))) == "2026-01-02T03:04:05.000006Z"
    assert iso(None) is None


def test_a_dumb_terminal_gets_neither_colour_nor_a_live_bar(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert has_colour(terminal)
    monkeypatch.setenv("TERM", "dumb")
    assert not has_colour(terminal)
    assert not is_live(terminal)
    assert is_terminal(terminal)


def test_one_is_singular_and_thousands_are_set_apart() -> None:
    assert [count(many) for many in (0, 1, 12345)] == ["0 tasks", "1 task", "12,345 tasks"]


@pytest.mark.parametrize(
    ("per_second", "expected"),
    [(123456.7, "123,457 tasks/s"), (3.75, "3.8 tasks/s"), (0.5, "30.0 tasks/min"), (0.001, "3.6 tasks/h")],
)
def test_rates_are_in_the_unit_that_gives_a_number_one_can_read(per_second: float, expected: str) -> None:
    assert rate(per_second) == expected
