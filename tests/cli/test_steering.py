from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Gate
from tests.conftest import Run

Numbers = Callable[..., Path]
Until = Callable[..., None]


def status(run: Run) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run("status", "--json", code=0).stdout)
    return content


@pytest.fixture
def running(gate: Gate, numbers: Numbers, run: Run, until: Until) -> str:
    """A pool of six tasks of which the first waits at the gate."""
    run("map", gate.udf, numbers(*range(6)), "--name", "p", "-j1", code=0)
    until(lambda: status(run)["counts"]["running"] == 1)
    return "p"


def test_a_paused_pool_ends_what_it_began_and_goes_on_when_it_is_resumed(
    running: str, gate: Gate, run: Run, until: Until
) -> None:
    said = run("pause", running, code=0).stderr
    assert said == "p is paused; 1 task in hand will still end; go on with: jobpool resume p\n"
    gate.open()
    until(lambda: status(run)["counts"]["running"] == 0)
    content = status(run)
    assert (content["state"], content["finished"]) == ("paused", 1)
    assert "next       jobpool resume p" in run("status").stdout
    assert run("resume", "--wait", code=1).stderr.startswith("p goes on: 5 tasks to do\n")
    assert status(run)["counts"]["success"] == 5


def test_resume_of_a_pool_that_runs_or_is_done_is_a_conflict(running: str, gate: Gate, run: Run) -> None:
    assert "watch it: jobpool tail p" in run("resume", running, code=4).stderr
    gate.open()
    run("wait", code=1)
    assert "jobpool retry p" in run("resume", running, code=4).stderr


def test_cancel_gives_up_what_has_not_begun_and_retry_takes_it_up_again(running: str, gate: Gate, run: Run) -> None:
    assert run("cancel", running, code=0).stderr == "cancelled 5 tasks of p; 1 task in hand will still end\n"
    gate.open()
    run("wait", code=0)
    assert status(run)["counts"] == {
        "pending": 0,
        "running": 0,
        "success": 1,
        "error": 0,
        "timeout": 0,
        "cancelled": 5,
    }
    run("is", "cancelled", code=0)
    assert run("retry", code=0).stderr == "nothing to retry in p: no task failed\n"
    assert "p: 5 cancelled tasks taken up again\n" in run("retry", "--cancelled", "--wait", code=1).stderr
    assert status(run)["counts"]["success"] == 5


def test_cancel_stops_running_tasks_if_asked(running: str, run: Run) -> None:
    said = run("cancel", running, "--running", "--wait", code=0).stderr
    assert said == "cancelled 5 tasks of p; stopping 1 task in hand\n"
    content = status(run)
    assert (content["state"], content["counts"]["cancelled"]) == ("done", 6)


def test_shutdown_leaves_the_rest_pending_and_resume_does_it(running: str, gate: Gate, run: Run) -> None:
    said = run("shutdown", running, "--no-wait", code=0).stderr
    assert said == "p is shut down; 6 tasks left to do, go on with: jobpool resume p\n"
    content = status(run)
    assert (content["state"], content["reason"]) == ("interrupted", "shut down")
    assert run("shutdown", code=0).stderr == "nobody works on p\n"
    gate.open()
    run("resume", "--wait", code=1)
    assert status(run)["finished"] == 6


def test_shutdown_that_waits_ends_with_124_when_the_time_is_over(running: str, run: Run) -> None:
    assert "did not end within" in run("shutdown", running, "--timeout", "0.3", code=124).stderr


def test_retry_runs_failed_tasks_again_all_or_those_named(gate: Gate, numbers: Numbers, run: Run) -> None:
    gate.open()
    run("map", gate.udf, numbers(1, 3, 13, 23), "--name", "p", "-j1", "--wait", code=1)
    assert run("retry", "--task", "1", "--task", "3", "--wait", code=1).stderr.startswith(
        "p: 2 failed tasks taken up again\n"
    )
    assert status(run)["retry_time"] is not None
    assert "task 0 is not failed or cancelled" in run("retry", "--task", "0", code=4).stderr
    assert "there is no task 9: p has tasks 0 to 3" in run("retry", "--task", "9", code=2).stderr
    assert run("retry", code=0).stderr == "p: 3 failed tasks taken up again\n"
    run("wait", code=1)


TWO_CAUSES = """
def f(x: int) -> int:
    if x < 20:
        raise ValueError(f"{x} is small")
    if x == 20:
        raise OSError("x")
    raise ValueError(f"{x} is large")
"""


def test_retry_of_one_group_of_failures_leaves_the_others(
    udf_file: Callable[..., Path], numbers: Numbers, run: Run
) -> None:
    udf = udf_file(TWO_CAUSES, "two.py")
    run("map", udf, numbers(*range(40)), "--name", "p", "-j1", "--wait", code=1)
    groups = json.loads(run("errors", "--json", code=0).stdout)["groups"]
    assert [group["count"] for group in groups] == [20, 19, 1]
    command = groups[0]["retry"].split()
    assert command == ["jobpool", "retry", "p", "--type", "ValueError", "--at", f"{udf}:4"]
    assert run(*command[1:], "--wait", code=1).stderr.startswith("p: 20 failed tasks taken up again\n")
    again = [json.loads(line) for line in run("tasks", "--json", code=0).stdout.splitlines()]
    assert [row["task"] for row in again if row["attempt"] == 2] == list(range(20))
    for words, many in (
        (["--type", "OSError"], "1 failed task"),
        (["--at", "two.py:7", "--task", "39"], "1 failed task"),
    ):
        assert run("retry", *words, "--wait", code=1).stderr.startswith(f"p: {many} taken up again\n")
    assert run("retry", "--at", "-", code=0).stderr == "nothing to retry in p: no task failed like that\n"
    assert "--cancelled goes with neither" in run("retry", "--type", "OSError", "--cancelled", code=2).stderr


def test_retry_with_mended_code_leaves_what_succeeded_and_status_tells_of_both_versions(
    gate: Gate, numbers: Numbers, run: Run, udf_file: Callable[..., Path]
) -> None:
    gate.open()
    run("map", gate.udf, numbers(1, 3, 2), "--name", "p", "-j1", "--wait", code=1)
    mended = udf_file("def f(x: int) -> int:\n    return x * x\n", "mended.py")
    run("retry", "--udf", mended, "--wait", code=0)
    assert status(run)["udf_versions"] == {"1": 2, "2": 1}
    assert "results come from more than one version: 2 tasks by version 1, 1 task by version 2" in run("status").stdout


def test_mended_code_that_does_not_take_the_arguments_is_refused_and_changes_nothing(
    gate: Gate, numbers: Numbers, run: Run, udf_file: Callable[..., Path]
) -> None:
    gate.open()
    run("map", gate.udf, numbers(3), "--name", "p", "-j1", "--wait", code=1)
    other = udf_file("def f(y: int) -> int:\n    return y\n", "other.py")
    done = run("retry", "--udf", other, code=2)
    assert "Traceback" not in done.stderr
    assert status(run)["failed"] == 1
