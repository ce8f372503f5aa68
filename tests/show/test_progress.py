from __future__ import annotations

import contextlib
import io
import re

import pytest

from jobpool_cli.model import PoolState
from jobpool_cli.show import progress
from tests.terminals import Terminal, status_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr("jobpool_cli.show.progress.time.monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_every_ten_seconds_and_none_at_the_end(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = progress.progress(stream)
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
    shown = progress.progress(stream, quiet=True)
    clock[0] = 200.0
    shown.update(status_of(running=3))
    assert stream.getvalue() == ""


def test_the_rate_is_that_of_the_last_seconds_and_forgets_what_a_retry_took_back() -> None:
    rate = progress.Rate()
    assert rate.add(0.0, 0) is None
    assert rate.add(10.0, 1000) == 100.0
    assert rate.add(20.0, 1010) == 1.0
    assert rate.add(21.0, 900) is None
    assert rate.add(22.0, 905) == 5.0


def test_a_bar_on_a_terminal_tells_how_far_the_pool_is_and_is_gone_at_the_end(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with progress.progress(terminal) as shown:
        shown.update(status_of(success=6, error=1, running=1, pending=2))
        shown.line("a line")
    text = terminal.getvalue()
    assert "7/10 done" in text
    assert "1 failed" in text
    assert "a line" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert last_line(text) == ""


def test_an_exception_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    with contextlib.suppress(KeyboardInterrupt), progress.progress(terminal) as shown:
        shown.update(status_of(running=3))
        raise KeyboardInterrupt
    text = terminal.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert last_line(text) == ""


def test_bars_of_two_pools_stand_below_each_other_with_their_names(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with progress.progress(terminal) as one:
        one.update(status_of(pool="one", success=1, pending=1))
        with progress.progress(terminal) as two:
            two.update(status_of(pool="two", success=2, pending=1))
            one.line("a line")
        both = terminal.getvalue()
        one.line("another line")
    assert re.search(r"one .*1/2 done.*\n.*two .*2/3 done", both)
    assert "two " not in terminal.getvalue()[len(both) :].rpartition("another line")[2]
    assert last_line(terminal.getvalue()) == ""


def test_a_pool_that_is_done_already_gets_no_bar(terminal: Terminal) -> None:
    with progress.progress(terminal) as shown:
        shown.update(status_of(PoolState.DONE, success=3))
    assert terminal.getvalue() == ""


def test_a_paused_pool_is_not_promised_an_end() -> None:
    assert progress.words_of_bar(status_of(pending=10, success=10), 2.0)[-1] == ("5 s left", "")
    words = [word for word, _ in progress.words_of_bar(status_of(PoolState.PAUSED, pending=10, success=10), 2.0)]
    assert words == ["10/20 done", "paused", "0 running", "2.0 tasks/s"]


def test_a_python_session_has_a_bar_on_a_terminal_and_nothing_elsewhere(terminal: Terminal, clock: list[float]) -> None:
    pipe = io.StringIO()
    for stream, enabled in ((pipe, True), (terminal, False)):
        with progress.progress_here(stream, enabled=enabled) as shown:
            shown.update(status_of(running=3))
            clock[0] += 1000.0
            shown.update(status_of(running=3))
    assert pipe.getvalue() == terminal.getvalue() == ""
    with progress.progress_here(terminal, enabled=True) as shown:
        shown.update(status_of(running=3))
    assert "0/3 done" in terminal.getvalue()


def last_line(text: str) -> str:
    """What is left on the line of the cursor: what comes after the last thing that took the cursor or the line away."""
    return re.split(r"\x1b\[2K|\x1b\[1A|\r|\n", text)[-1].replace("\x1b[?25h", "")
