"""tasks, logs, results, collect: of a pool that still runs, and after a retry."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Gate
from tests.conftest import PATIENCE_SECONDS, Run

Numbers = Callable[..., Path]
Until = Callable[..., None]


def states(run: Run) -> dict[int, str]:
    return {
        row["task"]: row["state"] for row in map(json.loads, run("tasks", "p", "--json", code=0).stdout.splitlines())
    }


def test_a_running_pool_shows_what_there_is(gate: Gate, numbers: Numbers, run: Run, until: Until) -> None:
    run("map", gate.udf, numbers(-1, 5, 6), "--name", "p", "-j1", code=0)
    until(lambda: states(run) == {0: "success", 1: "running", 2: "pending"})
    (row,) = map(json.loads, run("tasks", "p", "--state", "running", "--json", code=0).stdout.splitlines())
    assert (row["task"], row["attempt"]) == (1, 1)
    assert row["duration"] > 0
    assert run("logs", "p", "1", code=0).stdout == "task 5\n"
    assert run("logs", "p", "2", code=0).stderr == "task 2 is pending: it has no log\n"
    assert run("results", "p", code=0).stdout == "0\t1\n"
    assert run("collect", "p", "--partial", code=0).stdout == "x,result\n-1,1\n"
    assert run("collect", "p", "--timeout", "0.1", code=124).stdout == ""
    gate.open()
    assert run("collect", "p", code=0).stdout == "x,result\n-1,1\n5,25\n6,36\n"


def test_a_running_task_is_followed_to_its_end(
    command_line: tuple[list[str], dict[str, str]], gate: Gate, numbers: Numbers, run: Run, until: Until
) -> None:
    run("map", gate.udf, numbers(4, 3), "--name", "p", "-j1", code=0)
    until(lambda: run("logs", "p", "0", code=0).stdout == "task 4\n")
    words, env = command_line
    with subprocess.Popen([*words, "logs", "p", "0", "1", "--follow"], env=env, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"==> task 0, attempt 1 <==\n"
        assert follower.stdout.readline() == b"task 4\n"
        gate.open()
        rest, _ = follower.communicate(timeout=PATIENCE_SECONDS)
    assert follower.returncode == 0
    assert rest.startswith(b"\n==> task 1, attempt 1 <==\ntask 3\nTraceback (most recent call last):\n")
    assert rest.endswith(b"ValueError: 3 ends in 3\n")


def test_all_workers_are_followed_until_the_pool_is_done(
    command_line: tuple[list[str], dict[str, str]], gate: Gate, numbers: Numbers, run: Run
) -> None:
    run("map", gate.udf, numbers(4, 5), "--name", "p", "-j1", code=0)
    words, env = command_line
    with subprocess.Popen([*words, "logs", "p", "--follow"], env=env, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline().startswith(b"==> worker 1")
        assert follower.stdout.readline() == b"task 4\n"
        gate.open()
        rest, _ = follower.communicate(timeout=PATIENCE_SECONDS)
    assert follower.returncode == 0
    assert b"task 5\n" in rest


def test_an_earlier_attempt_can_be_read_after_a_retry(
    gate: Gate, numbers: Numbers, run: Run, udf_file: Callable[..., Path]
) -> None:
    gate.open()
    run("map", gate.udf, numbers(13, 1), "--name", "p", "-j1", "--wait", code=1)
    mended = udf_file("def f(x: int) -> int:\n    print('mended')\n    return 0\n", "mended.py")
    run("retry", "p", "--udf", mended, "--wait", code=0)
    assert run("logs", "p", "0", code=0).stdout == "mended\n"
    assert run("logs", "p", "0", "--attempt", "1", code=0).stdout.endswith("ValueError: 13 ends in 3\n")
    assert run("errors", "p", code=0).stderr == "no task of p has failed\n"
    (earlier,) = map(json.loads, run("errors", "p", "--task", "0", "--history", "--json", code=0).stdout.splitlines())
    assert (earlier["attempt"], earlier["current"]) == (1, False)
    (row,) = map(json.loads, run("tasks", "p", "--task", "0", "--json", code=0).stdout.splitlines())
    assert (row["state"], row["attempt"], row["udf"], row["error"]) == ("success", 2, 2, None)


def test_whoever_reads_only_the_first_line_hears_no_complaint(
    command_line: tuple[list[str], dict[str, str]], gate: Gate, numbers: Numbers, run: Run
) -> None:
    gate.open()
    run("map", gate.udf, numbers(*range(20_000)), "--name", "p", "-j2", "--wait", code=1)
    words, env = command_line
    for verb in ("tasks", "results", "args", "logs"):
        shell = f"{' '.join(words)} {verb} p | head -n 1"
        done = subprocess.run(["/bin/bash", "-o", "pipefail", "-c", shell], env=env, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b""), verb
    full = subprocess.run(["/bin/bash", "-c", f"{' '.join(words)} tasks p > /dev/full"], env=env, check=False)
    assert full.returncode == 6
