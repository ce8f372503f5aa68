from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cli.conftest import Gate
from tests.conftest import Run

Numbers = Callable[..., Path]
Until = Callable[..., None]


def status(run: Run) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run("status", "--json", code=0).stdout)
    return content


def test_status_as_json_is_what_programs_were_promised(gate: Gate, numbers: Numbers, run: Run) -> None:
    gate.open()
    run("map", gate.udf, numbers(1, 2, 3), "--name", "p", "-j1", "--wait", code=1)
    content = status(run)
    assert content["created"].endswith("Z")
    assert 0 < content["total_time"] < 60
    del content["created"], content["total_time"]
    assert content == {
        "schema": 1,
        "pool": "p",
        "state": "done",
        "n_jobs": 3,
        "counts": {"pending": 0, "running": 0, "success": 2, "error": 1, "timeout": 0, "cancelled": 0},
        "finished": 3,
        "failed": 1,
        "retry_time": None,
        "udf": f"{gate.udf}:f",
        "udf_versions": {"1": 2},
        "workers": 1,
        "reason": "",
    }


def test_status_tells_people_where_tasks_stand_and_what_to_do_next(gate: Gate, numbers: Numbers, run: Run) -> None:
    gate.open()
    run("map", gate.udf, numbers(1, 2, 3), "--name", "p", "-j1", "--wait", code=1)
    lines = run("status", code=0).stdout.splitlines()
    assert lines[0] == "p is done: 3 of 3 tasks finished (100 %)"
    assert set(lines[1].strip()) == {"█", "▓"}
    assert len(lines[1].strip()) == 40
    assert [line.split() for line in lines[2:6]] == [
        ["pending", "0"],
        ["running", "0"],
        ["success", "2"],
        ["error", "1"],
    ]
    assert lines[-1].split(maxsplit=1) == ["next", "jobpool errors p"]


def test_wait_ends_with_124_when_the_time_is_over_and_the_pool_goes_on(gate: Gate, numbers: Numbers, run: Run) -> None:
    run("map", gate.udf, numbers(1, 2), "--name", "p", "-j1", code=0)
    assert (
        "p was not done within 0.1 s: 0 of 2 tasks are finished" in run("wait", "--timeout", "100ms", code=124).stderr
    )
    late = run("wait", "--timeout", "0", "--json", code=124)
    assert json.loads(late.stdout)["state"] == "running"
    gate.open()
    done = run("wait", code=0)
    assert (done.stdout, done.stderr) == ("", "")
    assert json.loads(run("wait", "--json", code=0).stdout) == status(run)


def test_wait_and_tail_end_with_4_if_nobody_works_on_the_pool(
    gate: Gate, numbers: Numbers, run: Run, until: Until
) -> None:
    run("map", gate.udf, numbers(-3, 2), "--name", "p", "-j1", code=0)
    until(lambda: status(run)["finished"] == 1)
    run("shutdown", "--no-wait", code=0)
    assert "hint: go on with: jobpool resume p" in run("wait", code=4).stderr
    done = run("tail", code=4)
    assert [line.split()[1:4] for line in done.stdout.splitlines()] == [["task", "0", "success"]]


def test_tail_has_a_line_for_each_task_in_the_order_in_which_they_ended_and_exits_1_if_any_failed(
    gate: Gate, numbers: Numbers, run: Run
) -> None:
    gate.open()
    run("map", gate.udf, numbers(5, 3, 7), "--name", "p", "-j1", code=0)
    lines = run("tail", code=1).stdout.splitlines()
    assert [line.split()[1:4] for line in lines[:3]] == [
        ["task", "0", "success"],
        ["task", "1", "error"],
        ["task", "2", "success"],
    ]
    assert lines[1].endswith("  ValueError: 3 ends in 3")
    assert lines[3].startswith("p is done after ")
    assert lines[3].endswith(": 2 succeeded, 1 failed")


def test_tail_gathers_tasks_that_end_by_the_thousand_but_names_failures(gate: Gate, numbers: Numbers, run: Run) -> None:
    gate.open()
    run("map", gate.udf, numbers(*([1] * 3000), 3), "--name", "p", "-j1", "--wait", code=1)
    lines = run("tail", code=1).stdout.splitlines()
    assert lines[0].split()[1:4] == ["task", "3000", "error"]
    assert lines[1] == "… 3,000 tasks succeeded"
    assert len(lines) == 3


def test_tail_as_json_is_a_stream_of_events_that_ends_with_the_status(gate: Gate, numbers: Numbers, run: Run) -> None:
    gate.open()
    run("map", gate.udf, numbers(*([1] * 60)), "--name", "p", "-j1", "--wait", code=0)
    run("retry", code=0)
    events = [json.loads(line) for line in run("tail", "--json", code=0).stdout.splitlines()]
    assert events[0] == {"schema": 1, "event": "tasks", "state": "success", "count": 60}
    assert events[1]["event"] == "end"
    assert events[1]["counts"]["success"] == 60


def test_tail_as_json_tells_of_a_failure_what_and_where(gate: Gate, numbers: Numbers, run: Run) -> None:
    gate.open()
    run("map", gate.udf, numbers(3), "--name", "p", "-j1", "--wait", code=1)
    event = json.loads(run("tail", "--json", code=1).stdout.splitlines()[0])
    assert event["duration"] >= 0
    assert event["finished"].endswith("Z")
    del event["duration"], event["finished"]
    assert event == {
        "schema": 1,
        "event": "task",
        "task": 0,
        "attempt": 1,
        "state": "error",
        "error": "ValueError: 3 ends in 3",
        "where": f"{gate.udf}:12 in f",
    }


RECOVERS = """
from jobpool_cli import current_task

def f(x: int) -> int:
    task = current_task()
    if task is not None and task.attempt < 3:
        raise OSError("not yet")
    return x
"""


def test_tail_tells_of_failed_attempts_after_which_the_task_runs_again(
    udf_file: Callable[..., Path], numbers: Numbers, run: Run
) -> None:
    run("map", udf_file(RECOVERS), numbers(1), "--name", "p", "-j1", "--retries", "2", "--wait", code=0)
    lines = run("tail", "--stop-on-exception", code=0).stdout.splitlines()
    assert [line.split()[1:4] for line in lines[:3]] == [
        ["task", "0", "error"],
        ["task", "0", "error"],
        ["task", "0", "success"],
    ]
    assert lines[0].endswith("attempt 1, runs again  OSError: not yet")
    assert lines[2].endswith("attempt 3")
    events = [json.loads(line) for line in run("tail", "--json", code=0).stdout.splitlines()]
    assert [(event["event"], event.get("attempt")) for event in events] == [
        ("attempt", 1),
        ("attempt", 2),
        ("task", 3),
        ("end", None),
    ]


def test_tail_stops_at_the_first_failure_if_asked_and_the_pool_goes_on(gate: Gate, numbers: Numbers, run: Run) -> None:
    run("map", gate.udf, numbers(-7, 1), "--name", "p", "-j1", code=0)  # -7 % 10 is 3
    done = run("tail", "--stop-on-exception", code=1)
    assert "task 0 of p failed: ValueError: -7 ends in 3" in done.stderr
    assert status(run)["state"] == "running"
    gate.open()


def test_ctrl_c_in_tail_ends_the_watching_with_130_and_not_the_pool(
    gate: Gate, numbers: Numbers, run: Run, command_line: tuple[list[str], dict[str, str]]
) -> None:
    run("map", gate.udf, numbers(-1, 2), "--name", "p", "-j1", code=0)
    words, env = command_line
    with subprocess.Popen(
        [*words, "tail", "p"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert tail.stdout.readline().split()[1:4] == ["task", "0", "success"]
        tail.send_signal(signal.SIGINT)
        assert tail.wait(timeout=60) == 130
        assert tail.stderr.read() == "jobpool: stopped watching; p goes on (jobpool cancel p would stop it)\n"
    assert status(run)["state"] == "running"
    gate.open()
    run("wait", code=0)


def test_is_answers_by_its_exit_code_and_prints_nothing_unless_asked(gate: Gate, numbers: Numbers, run: Run) -> None:
    run("map", gate.udf, numbers(-7, 1), "--name", "p", "-j1", code=0)
    for question, yes in {"done": 1, "running": 0, "all-succeeded": 1, "cancelled": 1, "paused": 1}.items():
        done = run("is", "p", question, code=yes)
        assert (done.stdout, done.stderr) == ("", "")
    gate.open()
    run("wait", code=1)
    for question, yes in {"done": 0, "running": 1, "all-succeeded": 1, "any-failed": 0, "any-succeeded": 0}.items():
        run("is", question, code=yes)
    assert run("is", "p", "interrupted", "-v", code=1).stdout == "no\n"
    answer = json.loads(run("is", "p", "interrupted", "--json", code=1).stdout)
    assert answer == {"schema": 1, "pool": "p", "question": "interrupted", "answer": False}
    assert "ask one of: done, running" in run("is", "p", "blue", code=2).stderr
