"""What a person sees: commands on a pseudo-terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Gate
from tests.conftest import Run
from tests.terminals import Screen

Numbers = Callable[..., Path]


@pytest.fixture
def screen(command_line: tuple[list[str], dict[str, str]]) -> Iterator[Callable[..., Screen]]:
    words, env = command_line
    screens: list[Screen] = []

    def start(*arguments: str | Path, **more: str) -> Screen:
        screens.append(Screen([*words, *map(str, arguments)], env | more))
        return screens[-1]

    yield start
    for each in screens:
        each.close()


def test_tail_shows_a_live_bar_below_the_lines_of_what_ended(
    gate: Gate, numbers: Numbers, run: Run, screen: Callable[..., Screen], until: Callable[..., None]
) -> None:
    run("map", gate.udf, numbers(-7, 1, 3), "--name", "p", "-j1", code=0)
    tail = screen("tail")
    seen = ("1/3 done", "1 failed", "1 running", "ValueError: -7 ends in 3")
    until(lambda: all(each in tail.text for each in seen))
    gate.open()
    assert tail.end() == 1
    last = tail.text.rstrip("\n").split("\n")
    assert last[-2].endswith("\x1b[32m1 succeeded\x1b[0m, \x1b[31m2 failed\x1b[0m")
    assert last[-1] == "see why: jobpool errors p"


def test_wait_shows_a_bar_and_ctrl_c_leaves_the_pool_running(
    gate: Gate, numbers: Numbers, run: Run, screen: Callable[..., Screen], until: Callable[..., None]
) -> None:
    run("map", gate.udf, numbers(-1, 1), "--name", "p", "-j1", code=0)
    wait = screen("wait")
    until(lambda: "1/2 done" in wait.text)
    wait.process.send_signal(signal.SIGINT)
    assert wait.end() == 130
    assert wait.text.endswith("\njobpool: stopped watching; p goes on (jobpool cancel p would stop it)\n")
    run("is", "p", "running", code=0)
    gate.open()


def test_collect_shows_a_bar_while_it_waits(
    gate: Gate, numbers: Numbers, run: Run, screen: Callable[..., Screen], until: Callable[..., None], tmp_path: Path
) -> None:
    run("map", gate.udf, numbers(-1, 1), "--name", "p", "-j1", code=0)
    loud, quiet = (
        screen("collect", "-o", tmp_path / f"{name}.csv", *more) for name, more in (("a", []), ("b", ["-q"]))
    )
    until(lambda: "1/2 done" in loud.text)
    gate.open()
    assert [loud.end(), quiet.end()] == [0, 0]
    assert loud.text.endswith(f"2 rows from 2 tasks in {tmp_path}/a.csv\n")
    assert quiet.text == f"2 rows from 2 tasks in {tmp_path}/b.csv\n"


def test_colour_and_bar_are_left_out_where_they_are_not_wanted(one_pool: str, screen: Callable[..., Screen]) -> None:
    coloured, plain, dumb = screen("status"), screen("status", NO_COLOR="1"), screen("status", TERM="dumb")
    assert [each.end() for each in (coloured, plain, dumb)] == [0, 0, 0]
    assert "\x1b[32mdone" in coloured.text
    assert "\x1b" not in plain.text
    assert f"{one_pool} is done" in plain.text


def test_map_tells_a_person_how_to_watch_the_pool(gate: Gate, numbers: Numbers, screen: Callable[..., Screen]) -> None:
    made = screen("map", gate.udf, numbers(1), "--name", "p", "-j1")
    assert made.end() == 0
    assert made.text == "p\n1 task in p; watch: jobpool tail p\n"
    gate.open()


def test_rm_asks_on_a_terminal_and_takes_no_for_an_answer(
    one_pool: str, home: Path, screen: Callable[..., Screen], until: Callable[..., None]
) -> None:
    for answer, left in (("n", [one_pool]), ("y", [])):
        rm = screen("rm", one_pool)
        until(lambda rm=rm: f"Delete {one_pool} (3 tasks) with all results and logs? [y/N]: " in rm.text)
        rm.type(f"{answer}\n")
        assert rm.end() == 0
        assert os.listdir(home / "pools") == left


def test_what_users_code_says_cannot_steer_the_terminal(
    run: Run, udf_file: Callable[..., Path], numbers: Numbers, screen: Callable[..., Screen]
) -> None:
    udf = udf_file("def f(x: int) -> int:\n    raise ValueError('\\x1b]0;owned\\x07 [/red] \\x9b31m')\n")
    run("map", udf, numbers(1), "-j1", "--wait", code=1)
    tail = screen("tail")
    assert tail.end() == 1
    assert "\\x1b]0;owned\\x07 [/red] \\x9b31m" in tail.text
    assert "\x1b]0" not in tail.text
