"""tasks, logs, errors, results, collect, args: what came of a pool that has ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from jobpool_cli.cli.main import main
from jobpool_cli.pool import JobPool
from tests.conftest import ROOT
from tests.terminals import Screen

UDF = r"""
import subprocess
import sys
from datetime import date

def work(x: int, label: str = "", *, unit: str = "km"):
    print(f"working on {x}")
    if x == 3:
        raise ValueError("three\nis too many")
    if x == 4:
        return {}[label]
    if x == 5:
        sys.stdout.buffer.write(b"\x1b[31mred\x1b[0m [/foo] \xc2\x9b \xff\n")
        sys.stdout.flush()
        subprocess.run(["sh", "-c", "echo from a child; printf 'no newline'"], check=True)
    if x == 13:
        raise ValueError("thirteen")
    return {
        1: 1.5, 2: "a\ttab\nline", 6: {"deep": [1, None], "day": date(2013, 1, 2)}, 7: float("nan"), 8: None, 9: {1, 2}
    }.get(x, x)
"""
TABLES = """
import pandas as pd

def tables(x: int):
    if x == 2:
        raise RuntimeError("no table")
    return pd.DataFrame({"day": ["mo", "tu"], "value": [x, x + 0.5]})
"""


@dataclass(frozen=True)
class Done:
    stdout: str
    stderr: str


Read = Callable[..., Done]


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with two pools that have ended: `work` with every kind of result and failure, and `tables`."""
    folder = tmp_path_factory.mktemp("pools")
    home = folder / "home"
    (folder / "work.py").write_text(UDF)
    (folder / "tables.py").write_text(TABLES)
    rows = "".join(f"{x},l{x}\n" for x in [*range(10), 13])
    (folder / "args.csv").write_text(f"x,label\n{rows}")
    (folder / "few.csv").write_text("x\n0\n1\n2\n")
    env = {"PATH": os.environ["PATH"], "JOBPOOL_HOME": str(home), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
    for words in (
        ["work.py", "args.csv", "--name", "work", "-j2", "--set", "unit=mile"],
        ["tables.py", "few.csv", "--name", "tables", "-j1"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "jobpool_cli", "map", *words, "--wait"],
            cwd=folder, env=env, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
    yield home
    for name in JobPool.list(home=str(home)):
        JobPool.open(name, home=str(home)).remove(force=True)


@pytest.fixture
def read(
    pools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Read:
    """Run a command on these pools, in this process: that spares the imports."""
    monkeypatch.setenv("JOBPOOL_HOME", str(pools))
    monkeypatch.chdir(tmp_path)

    def command(*words: str | Path, code: int = 0) -> Done:
        capfdbinary.readouterr()
        found = main([*map(str, words)])
        stdout, stderr = (each.decode(errors="surrogateescape") for each in capfdbinary.readouterr())
        assert found == code, f"exit {found}\nstdout: {stdout}\nstderr: {stderr}"
        return Done(stdout, stderr)

    return command


@pytest.fixture
def shown(command_line: tuple[list[str], dict[str, str]], pools: Path) -> Iterator[Callable[..., str]]:
    """Run a command on a terminal and return what it sent there."""
    words, env = command_line
    screens: list[Screen] = []

    def show(*arguments: str) -> str:
        screens.append(Screen([*words, *arguments], env | {"JOBPOOL_HOME": str(pools), "NO_COLOR": "1"}))
        screen = screens[-1]
        while screen.process.poll() is None:
            _ = screen.text
        return screen.text

    yield show
    for each in screens:
        each.close()


def table(text: str) -> list[dict[str, str]]:
    header, *rows = (line.split("\t") for line in text.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- tasks


def test_tasks_through_a_pipe_are_tab_separated_with_all_columns(read: Read) -> None:
    rows = table(read("tasks", "work").stdout)
    assert list(rows[0]) == ["task", "state", "attempt", "started", "duration", "cpu", "worker", "udf", "error"]
    assert [row["task"] for row in rows] == [str(task) for task in range(11)]
    assert [row["state"] for row in rows if row["error"]] == ["error"] * 3
    assert rows[3]["error"] == "ValueError: three\\nis too many"
    assert rows[0]["started"].endswith("Z")
    assert float(rows[0]["duration"]) > 0


def test_tasks_as_json_lines_carry_null_and_the_arguments_apart(read: Read) -> None:
    (row,) = lines(read("tasks", "work", "--task", "3", "--args", "--json").stdout)
    assert row["arguments"] == {"x": 3, "label": "l3"}
    assert (row["state"], row["cpu"], row["error"]) == ("error", None, "ValueError: three\nis too many")
    assert len(lines(read("tasks", "work", "--json").stdout)) == 11


def test_tasks_can_be_chosen_by_state_number_column_and_count(read: Read) -> None:
    chosen = read("tasks", "work", "--state", "error", "--state", "timeout", "--columns", "label,task,state").stdout
    assert chosen == "label\ttask\tstate\nl3\t3\terror\nl4\t4\terror\nl13\t10\terror\n"
    assert read("tasks", "work", "-t", "9", "-t", "1", "-c", "task").stdout == "task\n1\n9\n"
    assert read("tasks", "work", "--limit", "2", "-c", "task", "--json").stdout == (
        '{"schema": 1, "task": 0}\n{"schema": 1, "task": 1}\n'
    )
    assert read("tasks", "work", "--state", "pending", "-c", "task").stdout == "task\n"


def test_tasks_and_columns_that_do_not_exist_are_usage_errors(read: Read) -> None:
    assert "no task 11: work has tasks 0 to 10" in read("tasks", "work", "--task", "11", code=2).stderr
    assert "no column 'nothing'" in read("tasks", "work", "--columns", "nothing", code=2).stderr
    assert "choose from task, state" in read("tasks", "work", "--columns", "nothing", code=2).stderr
    assert read("tasks", "work", "--state", "ended", code=2).stdout == ""


def test_tasks_on_a_terminal_are_aligned_and_short(shown: Callable[..., str]) -> None:
    header, first, *_ = shown("tasks", "work").splitlines()
    assert header.split() == ["task", "state", "attempt", "started", "duration", "worker", "error"]
    assert header.index("state") == first.index("success")


# --- logs


def test_a_log_through_a_pipe_is_byte_for_byte_what_the_task_wrote(read: Read) -> None:
    expected = b"working on 5\n\x1b[31mred\x1b[0m [/foo] \xc2\x9b \xff\nfrom a child\nno newline"
    assert read("logs", "work", "5").stdout.encode(errors="surrogateescape") == expected


def test_a_log_on_a_terminal_shows_control_characters_instead_of_obeying_them(shown: Callable[..., str]) -> None:
    assert shown("logs", "work", "5") == (
        "==> task 5 (success) <==\nworking on 5\n\\x1b[31mred\\x1b[0m [/foo] \\x9b \\xff\nfrom a child\nno newline\n"
    )


def test_a_failed_tasks_log_ends_with_its_traceback(read: Read) -> None:
    log = read("logs", "work", "3").stdout
    assert log.startswith("working on 3\nTraceback (most recent call last):\n")
    assert log.endswith("ValueError: three\nis too many\n")


def test_several_logs_have_a_header_each(read: Read) -> None:
    assert read("logs", "work", "1", "0").stdout == (
        "==> task 0 (success) <==\nworking on 0\n\n==> task 1 (success) <==\nworking on 1\n"
    )
    assert read("logs", "work").stdout.count("==> task ") == 11


def test_the_first_log_and_the_last_lines_can_be_had_alone(read: Read) -> None:
    assert read("logs", "work", "--first").stdout == "working on 0\n"
    assert read("logs", "work", "5", "--tail", "2").stdout == "from a child\nno newline"
    assert read("logs", "work", "3", "--follow", "--tail", "1").stdout == "is too many\n"


def test_logs_as_json_lines_lose_no_byte(read: Read) -> None:
    (line,) = lines(read("logs", "work", "5", "--json").stdout)
    assert line["log"] == "working on 5\n\x1b[31mred\x1b[0m [/foo] \x9b \\xff\nfrom a child\nno newline"
    assert (line["task"], line["attempt"], line["state"], line["missing_bytes"]) == (5, 1, "success", 0)


def test_a_log_of_another_attempt_or_of_no_task_is_refused_or_said_to_be_missing(read: Read) -> None:
    done = read("logs", "work", "5", "--attempt", "2")
    assert (done.stdout, done.stderr) == ("", "task 5 has no log of attempt 2\n")
    assert "no task 99" in read("logs", "work", "99", code=2).stderr
    assert "--follow" in read("logs", "work", "--follow", "--first", code=2).stderr


def test_a_log_that_lost_its_end_says_so(read: Read, pools: Path) -> None:
    pool = JobPool.open("work", home=str(pools))
    log = next(each for each in pool.task_logs([8]))
    content = log.path.read_bytes()
    try:
        os.truncate(log.path, log.end - 3)
        done = read("logs", "work", "8")
        assert done.stdout == "working on"
        assert "[log cut short] task 8: 3 bytes" in done.stderr
    finally:
        log.path.write_bytes(content)


# --- errors


def test_errors_are_grouped_by_type_and_place_with_an_example_and_a_command(read: Read, pools: Path) -> None:
    udf = pools.parent / "work.py"
    assert read("errors", "work").stdout == (
        f"1 task: ValueError at {udf}:9 in work\n"
        "    three\n"
        "    is too many\n"
        "  for example task 3: x=3, label='l3', unit='mile'\n"
        "  see    jobpool errors work --task 3\n"
        "  retry  jobpool retry work --task 3\n"
        "\n"
        f"1 task: KeyError at {udf}:11 in work\n"
        "    'l4'\n"
        "  for example task 4: x=4, label='l4', unit='mile'\n"
        "  see    jobpool errors work --task 4\n"
        "  retry  jobpool retry work --task 4\n"
        "\n"
        f"1 task: ValueError at {udf}:17 in work\n"
        "    thirteen\n"
        "  for example task 10: x=13, label='l13', unit='mile'\n"
        "  see    jobpool errors work --task 10\n"
        "  retry  jobpool retry work --task 10\n"
    )
    assert "retry  jobpool retry tables\n" in read("errors", "tables").stdout


def test_a_group_of_many_tasks_is_retried_by_its_type_and_place(read: Read, pools: Path) -> None:
    udf = pools.parent / "work.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobpool_cli.cli.verbs.errors.TASKS_IN_COMMAND", 0)
        shown = read("errors", "work").stdout
    for kind, line in (("ValueError", 9), ("KeyError", 11), ("ValueError", 17)):
        assert f"  retry  jobpool retry work --type {kind} --at {udf}:{line}\n" in shown


def test_errors_as_json_hold_the_groups(read: Read, pools: Path) -> None:
    content = json.loads(read("errors", "work", "--json").stdout)
    assert (content["schema"], content["pool"], content["failed"]) == (1, "work", 3)
    assert content["groups"][0] == {
        "type": "ValueError",
        "where": {"file": str(pools.parent / "work.py"), "line": 9, "function": "work"},
        "count": 1,
        "message": "three\nis too many",
        "example": {"task": 3, "arguments": {"x": 3, "label": "l3", "unit": "mile"}},
        "tasks": [3],
        "retry": "jobpool retry work --task 3",
    }


def test_a_single_error_is_shown_with_its_traceback_and_arguments(read: Read) -> None:
    head, *traceback = read("errors", "work", "--first").stdout.splitlines()
    assert head.startswith("task 3: error after ")
    assert head.endswith(": x=3, label='l3', unit='mile'")
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-2:] == ["ValueError: three", "is too many"]
    done = read("errors", "work", "--task", "4", "--task", "5")
    assert done.stdout.startswith("task 4: error")
    assert done.stderr == "task 5 has not failed\n"
    content = json.loads(read("errors", "work", "--task", "4", "--json").stdout)
    assert (content["schema"], content["type"], content["arguments"]["x"]) == (1, "KeyError", 4)


def test_errors_can_be_listed_one_by_one(read: Read) -> None:
    rows = table(read("errors", "work", "--list").stdout)
    assert [(row["task"], row["type"]) for row in rows] == [
        ("3", "ValueError"),
        ("4", "KeyError"),
        ("10", "ValueError"),
    ]
    assert [row["task"] for row in lines(read("errors", "work", "--list", "--json").stdout)] == [3, 4, 10]


def test_questions_that_contradict_each_other_are_refused(read: Read) -> None:
    assert "choose one" in read("errors", "work", "--first", "--list", code=2).stderr
    assert "--history" in read("errors", "work", "--history", code=2).stderr


# --- results


def test_every_object_that_json_prints_names_its_schema(read: Read) -> None:
    for words in (
        ["status", "work"],
        ["list"],
        ["tasks", "work"],
        ["tasks", "work", "--args"],
        ["tasks", "work", "--columns", "x,task"],
        ["logs", "work"],
        ["errors", "work"],
        ["errors", "work", "--list"],
        ["errors", "work", "--first"],
        ["errors", "work", "--task", "3", "--task", "4", "--history"],
        ["results", "work"],
        ["args", "work"],
    ):
        found = lines(read(*words, "--json").stdout)
        assert found
        assert all(next(iter(line.items())) == ("schema", 1) for line in found), words
    for words in (["wait", "work"], ["tail", "work"], ["is", "work", "all-succeeded"]):
        found = lines(read(*words, "--json", code=1).stdout)
        assert all(next(iter(line.items())) == ("schema", 1) for line in found), words


def test_results_are_a_line_each_ascending(read: Read) -> None:
    assert read("results", "work").stdout.splitlines() == [
        "0\t0",
        "1\t1.5",
        "2\ta\\ttab\\nline",
        "5\t5",
        '6\t{"deep": [1, null], "day": "2013-01-02"}',
        "7\tnan",
        "8\tnull",
        "9\t{1, 2}",
    ]


def test_results_as_json_lines_are_json_throughout(read: Read) -> None:
    found = {line["task"]: line["result"] for line in lines(read("results", "work", "--json").stdout)}
    assert found == {
        0: 0,
        1: 1.5,
        2: "a\ttab\nline",
        5: 5,
        6: {"deep": [1, None], "day": "2013-01-02"},
        7: None,
        8: None,
        9: "{1, 2}",
    }
    (line,) = lines(read("results", "tables", "1", "--json").stdout)
    assert line == {"schema": 1, "task": 1, "result": [{"day": "mo", "value": 1.0}, {"day": "tu", "value": 1.5}]}


def test_results_of_chosen_tasks_say_what_is_missing(read: Read) -> None:
    done = read("results", "work", "3", "1")
    assert done.stdout == "1\t1.5\n"
    assert "1 of these tasks without a result" in done.stderr


def test_a_table_on_a_terminal_is_drawn(shown: Callable[..., str]) -> None:
    assert shown("results", "tables", "1") == "1\t\n  day  value\n0  mo    1.0\n1  tu    1.5\n"


# --- args


def test_arguments_are_shown_with_constants(read: Read) -> None:
    assert read("args", "work", "3", "10").stdout == "task\tx\tlabel\tunit\n3\t3\tl3\tmile\n10\t13\tl13\tmile\n"
    assert read("args", "work").stdout.count("\n") == 12
    assert read("args", "work", "0", "--json").stdout == (
        '{"schema": 1, "task": 0, "arguments": {"x": 0, "label": "l0", "unit": "mile"}}\n'
    )
    assert "no task 11" in read("args", "work", "11", code=2).stderr


# --- collect


def test_collect_refuses_while_tasks_failed_and_says_what_to_do(read: Read, tmp_path: Path) -> None:
    done = read("collect", "tables", "-o", "out.parquet", code=1)
    assert "1 of 3 tasks failed; the first is task 2: RuntimeError: no table" in done.stderr
    assert "--ignore-exceptions" in done.stderr
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl"])
def test_collect_writes_every_format(read: Read, tmp_path: Path, suffix: str) -> None:
    done = read("collect", "tables", "-o", f"out.{suffix}", "--ignore-exceptions")
    assert (done.stdout, done.stderr) == ("", "")
    path = tmp_path / f"out.{suffix}"
    readers: dict[str, Callable[[], pd.DataFrame]] = {
        "parquet": lambda: pd.read_parquet(path).reset_index(),
        "csv": lambda: pd.read_csv(path),
        "tsv": lambda: pd.read_csv(path, sep="\t"),
        "jsonl": lambda: pd.read_json(path, lines=True),
    }
    frame = readers[suffix]()
    assert frame["x"].tolist() == [0, 0, 1, 1]
    assert frame["value"].tolist() == [0, 0.5, 1, 1.5]


def test_collect_goes_to_stdout_as_csv_and_to_other_formats_by_name(read: Read) -> None:
    done = read("collect", "tables", "--partial", "--drop-index")
    assert done.stdout.splitlines()[0].startswith("task,")
    assert [row.split(",")[0] for row in done.stdout.splitlines()[1:]] == ["0", "0", "1", "1"]
    first = lines(read("collect", "tables", "--partial", "--format", "jsonl").stdout)[0]
    assert (first["x"], first["day"]) == (0, "mo")


def test_collect_as_json_tells_what_was_written_or_writes_the_rows_as_they_are(read: Read) -> None:
    content = json.loads(read("collect", "tables", "-o", "out.csv", "--ignore-exceptions", "--json").stdout)
    assert content == {
        "schema": 1,
        "pool": "tables",
        "file": "out.csv",
        "format": "csv",
        "rows": 4,
        "columns": content["columns"],
        "tasks": 2,
        "left_out": 1,
    }
    assert {"x", "day", "value"} <= set(content["columns"])
    rows = lines(read("collect", "tables", "--partial", "--json").stdout)
    assert set(rows[0]) == set(content["columns"])
    assert "contradict" in read("collect", "tables", "--json", "--format", "csv", code=2).stderr


def test_collect_refuses_a_target_before_it_waits(read: Read, tmp_path: Path) -> None:
    assert "cannot tell the format" in read("collect", "tables", "-o", "out.xlsx", code=2).stderr
    assert "is a directory" in read("collect", "tables", "--format", "csv", "-o", tmp_path, code=2).stderr
    assert "no folder" in read("collect", "tables", "-o", "missing/out.csv", code=6).stderr


def test_a_pool_that_does_not_exist_is_exit_3_for_every_command(read: Read) -> None:
    for verb in ("tasks", "logs", "errors", "results", "args", "collect"):
        assert "no pool named wrok" in read(verb, "wrok", code=3).stderr
