from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Gate
from tests.conftest import Run

Numbers = Callable[..., Path]


def pools(home: Path) -> list[str]:
    return sorted(os.listdir(home / "pools")) if (home / "pools").exists() else []


def status(run: Run, *arguments: str) -> dict[str, object]:
    content = json.loads(run("status", "--json", *arguments, code=0).stdout)
    assert isinstance(content, dict)
    return content


def test_map_prints_the_name_alone_and_returns_while_the_pool_runs(
    gate: Gate, numbers: Numbers, command_line: tuple[list[str], dict[str, str]], run: Run
) -> None:
    words, env = command_line
    script = f'pool=$("$@" map {gate.udf} {numbers(1, 2)} -j1) && echo "<$pool>"'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *words], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("<f-1>\n", "")
    assert status(run)["state"] == "running"
    gate.open()
    run("wait", "f-1", code=0)


def test_map_waits_for_the_end_if_asked_and_says_by_its_exit_code_whether_tasks_failed(
    gate: Gate, numbers: Numbers, run: Run
) -> None:
    gate.open()
    done = run("map", gate.udf, numbers(1, 3, 13, 4), "--name", "some", "-j1", "--wait", code=1)
    assert done.stdout == "some\n"
    assert done.stderr == ("jobpool: error: 2 of 4 tasks of some failed\nhint: see why: jobpool errors some\n")


def test_the_arguments_may_come_through_stdin_and_constants_from_options(
    udf_file: Callable[..., Path], run: Run
) -> None:
    udf = udf_file("def add(x: int, y: int, s: str) -> str:\n    return s * (x + y)\n")
    run("map", udf, "-", "--set", "y=3", "--set", "s=a=b", "-j1", "--wait", input='{"x": 1}\n{"x": 2}\n', code=0)
    assert status(run)["counts"] == dict.fromkeys(("pending", "running", "error", "timeout", "cancelled"), 0) | {
        "success": 2
    }


def test_a_dry_run_shows_what_would_run_and_makes_nothing(gate: Gate, numbers: Numbers, run: Run, home: Path) -> None:
    done = run(
        "map", gate.udf, numbers(*range(7)), "--dry-run", "-j2", "--timeout", "2m", "--memory-limit", "1G", code=0
    )
    assert done.stdout == (
        f"would run 7 tasks of {gate.udf}:f\n"
        f"  arguments from {numbers(*range(7))}\n"
        "  2 workers, time limit 2 min, memory limit 1,024 MiB, 0 retries\n"
        "\ntask\tx\n0\t0\n1\t1\n2\t2\n3\t3\n4\t4\n… and 2 more\n"
    )
    assert pools(home) == []


def test_an_empty_table_is_a_pool_that_is_done_at_once(gate: Gate, numbers: Numbers, run: Run) -> None:
    run("map", gate.udf, numbers(), "--wait", code=0)
    assert status(run)["state"] == "done"
    assert "is done: 0 of 0 tasks finished (100 %)" in run("status", code=0).stdout


def test_a_name_that_is_taken_is_a_conflict_also_in_a_dry_run(
    one_pool: str, gate: Gate, numbers: Numbers, run: Run
) -> None:
    for more in ([], ["--dry-run"]):
        done = run("map", gate.udf, numbers(1), "--name", one_pool, *more, code=4)
        assert done.stdout == ""
        assert f"there is a pool named {one_pool} already" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-j", "0"], "'0' is not a number of workers"),
        (["-j", "600", "--processes-per-worker", "2"], "1200 processes"),
        (["--timeout", "2q"], "'2q' is not a length of time"),
        (["--timeout", "0"], "--timeout 0 would stop every task"),
        (["--memory-limit", "lots"], "'lots' is not a size"),
        (["--memory-limit", "0"], "leaves a task no memory"),
        (["--retries", "-1"], "-1 is not in the range"),
        (["--set", "y"], "does not say which argument is what"),
        (["--set", "y=1", "--set", "y=2"], "--set y is given twice"),
        (["--set", "x=1"], "x"),
        (["--name", "a b"], "cannot be a pool's name"),
    ],
)
def test_what_is_wrong_with_the_options_is_said_before_anything_starts(
    arguments: list[str], message: str, gate: Gate, numbers: Numbers, run: Run, home: Path
) -> None:
    done = run("map", gate.udf, numbers(1), *arguments, code=2)
    assert done.stdout == ""
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert pools(home) == []


def test_a_cell_that_does_not_convert_is_named_and_nothing_starts(
    gate: Gate, args_file: Callable[..., Path], run: Run, home: Path
) -> None:
    done = run("map", gate.udf, args_file("x\n1\nabc\n"), code=2)
    assert "line 3, column x" in done.stderr
    assert pools(home) == []


def test_a_name_that_cannot_be_written_to_stdout_is_told_on_stderr(
    gate: Gate, numbers: Numbers, command_line: tuple[list[str], dict[str, str]]
) -> None:
    words, env = command_line
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*words, "map", gate.udf, numbers(1), "-j1", "--name", "lost"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            check=False,
        )
    gate.open()
    assert done.returncode == 6
    assert "lost was made and runs, but its name could not be written" in done.stderr
