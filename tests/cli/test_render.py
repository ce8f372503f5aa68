from __future__ import annotations

import contextlib
import io
from datetime import UTC, datetime, timedelta, timezone

import pytest

from jobpool_cli.cli import render


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return stream


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    assert render.escape("a\x1b[31mb\x07\x9b\x7f") == "a\\x1b[31mb\\x07\\x9b\\x7f"
    assert render.escape("left\u202eright") == "left\\u202eright"
    assert render.escape("a\tb\r\nc") == "a\\tb\\r\\nc"
    assert render.escape("a\tb\r\nc", lines=True) == "a\tb\\r\nc"
    assert render.escape("[/foo] ünï 漢字") == "[/foo] ünï 漢字"


def test_a_table_is_aligned_on_a_terminal_with_wide_characters_counted_as_two(terminal: Terminal) -> None:
    rows = [["漢字", "1", "done"], ["a\nb", "1000", "error"]]
    with contextlib.redirect_stdout(terminal):
        render.write_table(["name", "n", "state"], rows, right=["n"], states="state")
    assert terminal.getvalue() == (
        "\x1b[2mname     n  state\x1b[0m\n漢字     1  \x1b[32mdone \x1b[0m\na\\nb  1000  \x1b[31merror\x1b[0m\n"
    )


def test_a_row_that_is_wider_than_the_terminal_is_cut(terminal: Terminal) -> None:
    with contextlib.redirect_stdout(terminal):
        render.write_table(["text"], [["x" * 100]])
    assert terminal.getvalue().splitlines()[1] == "x" * 39 + "…"


def test_a_table_in_a_pipe_has_a_record_per_line_and_a_tab_per_cell(capsys: pytest.CaptureFixture[str]) -> None:
    render.write_table(["a", "b"], iter([["1\t2", "3\n4"], ["\\", "\x1b"]]))
    assert capsys.readouterr().out == "a\tb\n1\\t2\t3\\n4\n\\\\\t\x1b\n"


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
    assert render.duration(seconds) == expected


def test_moments_for_programs_are_iso_8601_in_utc() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert render.iso(moment) == "2026-01-02T03:04:05.000006Z"
    assert render.iso(moment.astimezone(timezone(timedelta(hours=5)))) == "2026-01-02T03:04:05.000006Z"
    assert render.iso(None) is None


def test_a_dumb_terminal_gets_neither_colour_nor_a_live_bar(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert render.has_colour(terminal)
    monkeypatch.setenv("TERM", "dumb")
    assert not render.has_colour(terminal)
    assert not render.is_live(terminal)
    assert render.is_terminal(terminal)


def test_one_is_singular_and_thousands_are_set_apart() -> None:
    assert [render.count(many) for many in (0, 1, 12345)] == ["0 tasks", "1 task", "12,345 tasks"]
