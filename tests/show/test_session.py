"""What a Python session shows: on a terminal, in a pipe, in a script that is interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_SECONDS, Run
from tests.terminals import Screen

OPEN = "import sys, jobpool_cli\npool = jobpool_cli.JobPool.open('p')\n"
SLOW = """
    import os, time

    def f(x: int) -> int:
        while x > 0 and not os.path.exists({gate!r}):
            time.sleep(0.01)
        if x == 2:
            raise ValueError("two")
        return x
"""

Session = Callable[..., Screen]


@pytest.fixture
def gate(tmp_path: Path, run: Run, udf_file: Callable[..., Path], args_file: Callable[..., Path]) -> Path:
    """A pool of three tasks, two of which wait until this file is there."""
    path = tmp_path / "gate"
    run("map", udf_file(SLOW.format(gate=str(path))), args_file("x\n0\n1\n2\n"), "--name", "p", "-j1", code=0)
    return path


@pytest.fixture
def session(command_line: tuple[list[str], dict[str, str]]) -> Iterator[Session]:
    """Run Python code on a terminal, with an opened pool."""
    _, env = command_line
    screens: list[Screen] = []

    def start(code: str) -> Screen:
        screens.append(Screen([sys.executable, "-c", OPEN + code], env))
        return screens[-1]

    yield start
    for each in screens:
        each.close()


def test_wait_shows_a_bar_on_a_terminal_and_leaves_nothing_behind(
    gate: Path, session: Session, until: Callable[..., None]
) -> None:
    wait = session("pool.wait()\nprint('end')")
    until(lambda: "1/3 done" in wait.text)
    gate.touch()
    assert wait.end() == 0
    assert wait.text.endswith("\x1b[2Kend\n")


def test_ctrl_c_in_wait_leaves_the_terminal_clean_and_the_pool_running(
    gate: Path, session: Session, until: Callable[..., None], run: Run
) -> None:
    wait = session("try:\n    pool.wait()\nexcept KeyboardInterrupt:\n    print('stopped')")
    until(lambda: "1/3 done" in wait.text)
    wait.process.send_signal(signal.SIGINT)
    assert wait.end() == 0
    assert wait.text.rindex("\x1b[?25h") > wait.text.rindex("\x1b[?25l")
    assert wait.text.endswith("\x1b[2Kstopped\n")
    run("is", "p", "running", code=0)
    gate.touch()


def test_tail_prints_a_line_for_each_task_above_a_bar(gate: Path, session: Session, until: Callable[..., None]) -> None:
    tail = session("pool.tail()")
    until(lambda: "1/3 done" in tail.text)
    gate.touch()
    assert tail.end() == 0
    assert "ValueError: two" in tail.text
    assert tail.text.count("task 1 ") == 1
    assert "2 succeeded" in tail.text


def test_bars_are_turned_off_by_a_setting(gate: Path, session: Session) -> None:
    gate.touch()
    off = session("jobpool_cli.options.show.enable_tqdm = False\npool.wait()\npool.tail()")
    assert off.end() == 0
    assert "━" not in off.text
    assert "\x1b[?25l" not in off.text
    assert "p is done after" in off.text


def test_in_a_script_there_are_no_bars_and_lines_are_plain(
    gate: Path, command_line: tuple[list[str], dict[str, str]]
) -> None:
    gate.touch()
    words = [sys.executable, "-c", OPEN + "pool.wait()\npool.tail()"]
    done = subprocess.run(
        words, capture_output=True, env=command_line[1], check=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert [line.split()[1:4] for line in lines[:2]] == [["task", "0", "success"], ["task", "1", "success"]]
    assert lines[2].endswith("ValueError: two")
    assert lines[3].endswith("2 succeeded, 1 failed")


def test_the_bar_of_a_coroutine_goes_when_the_coroutine_is_cancelled(
    gate: Path, session: Session, until: Callable[..., None], tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    wait = session(f"""
import asyncio, os

async def main():
    watching = asyncio.gather(pool.wait_async(), pool.tail_async())
    while not os.path.exists({str(stop)!r}):
        await asyncio.sleep(0.01)
    watching.cancel()
    try:
        await watching
    except asyncio.CancelledError:
        pass

asyncio.run(main())
print("end")
""")
    until(lambda: "1/3 done" in wait.text)
    stop.touch()
    assert wait.end() == 0
    assert wait.text.count("\x1b[?25l") == wait.text.count("\x1b[?25h")
    assert wait.text.endswith("\x1b[2Kend\n")
    gate.touch()
