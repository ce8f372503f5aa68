from __future__ import annotations

import contextlib
import io
from datetime import UTC, datetime

import pytest

from jobpool_cli.model import Changes, Ended, PoolState, TaskState
from jobpool_cli.show.tail import ManyEnded, TailLines, Told, line_of
from tests.terminals import Terminal, status_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
AT = NOON.astimezone().strftime("%H:%M:%S")
DONE = status_of(PoolState.DONE, success=2, error=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr("jobpool_cli.show.tail.time.monotonic", lambda: now[0])
    return now


def test_a_line_tells_when_a_task_ended_how_and_how_long_it_took() -> None:
    assert line_of(Ended(3, 1, TaskState.SUCCESS, NOON, 0.25)) == f"{AT}  task 3       success     0.25 s"
    failed = Ended(4, 2, TaskState.TIMEOUT, NOON, 60.0, "TaskTimeout: 60 s\nare over")
    assert line_of(failed) == f"{AT}  task 4       timeout      1 min  attempt 2  TaskTimeout: 60 s\\nare over"
    again = Ended(4, 1, TaskState.ERROR, None, None, "E", again=True)
    assert line_of(again) == "          task 4       error               attempt 1, runs again  E"


def test_on_a_terminal_an_error_is_cut_to_the_line_and_cannot_steer_it(terminal: Terminal) -> None:
    line = line_of(Ended(4, 1, TaskState.ERROR, NOON, 1.0, "\x1b[2J" + "x" * 100), terminal)
    assert line.endswith("  \\x1b[2J" + "x" * 12 + "…")
    assert "\x1b[31merror" in line


def test_what_ends_by_the_thousand_is_told_in_one_line_now_and_then_and_the_rest_at_the_end(clock: list[float]) -> None:
    stream = io.StringIO()
    with TailLines(stream) as lines:
        for now, many in ((100.0, 500), (105.0, 600), (110.5, 1), (111.0, 7)):
            clock[0] = now
            lines.add(status_of(running=1), Changes((), {TaskState.SUCCESS: many}, others_again=int(now == 111.0)))
        before_the_end = stream.getvalue()
        lines.end(DONE)
    assert before_the_end == "… 1,101 tasks succeeded\n"
    assert stream.getvalue().splitlines()[1:] == [
        "… 7 tasks succeeded",
        "… 1 attempt failed, their tasks run again",
        "p is done after 2.0 s: 2 succeeded, 1 failed",
    ]


def test_whoever_stops_watching_is_told_what_ended_last() -> None:
    stream = io.StringIO()
    with contextlib.suppress(KeyboardInterrupt), TailLines(stream) as lines:
        lines.add(status_of(running=1), Changes((), {TaskState.CANCELLED: 3}))
        raise KeyboardInterrupt
    assert stream.getvalue() == "… 3 tasks were cancelled\n"


def test_a_program_is_told_the_same_as_facts() -> None:
    told: list[Told] = []
    ended = Ended(0, 1, TaskState.ERROR, NOON, 1.0, "E")
    with TailLines(io.StringIO(), tell=told.append) as lines:
        lines.add(status_of(running=1), Changes((ended,), {TaskState.SUCCESS: 60}))
    assert told == [ended, ManyEnded(TaskState.SUCCESS, 60)]


def test_the_first_failure_is_one_for_good() -> None:
    again, good, bad = (
        Ended(0, 1, TaskState.ERROR, NOON, 1.0, again=True),
        Ended(1, 1, TaskState.SUCCESS, NOON, 1.0),
        Ended(2, 1, TaskState.TIMEOUT, NOON, 1.0),
    )
    assert Changes((again, good)).first_failure is None
    assert Changes((again, good, bad)).first_failure is bad


def test_on_a_terminal_lines_scroll_above_the_bar(terminal: Terminal) -> None:
    with TailLines(terminal) as lines:
        lines.add(status_of(success=1, running=1), Changes((Ended(0, 1, TaskState.SUCCESS, NOON, 1.0),)))
        lines.end(DONE)
    text = terminal.getvalue()
    assert "1/2 done" in text
    assert text.index("task 0") < text.index("p is done")
    without = Terminal()
    with TailLines(without, bar=False) as lines:
        lines.add(status_of(success=1, running=1), Changes())
    assert without.getvalue() == ""


def test_a_closed_stdout_is_told_nothing() -> None:
    with TailLines(None) as lines:
        lines.add(status_of(running=1), Changes((Ended(0, 1, TaskState.SUCCESS, NOON, 1.0),)))
        lines.end(DONE)
