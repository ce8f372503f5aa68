"""The bar in a real notebook: what the kernel sends to the page while a cell waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.notebooks import Notebook, text_of

if TYPE_CHECKING:
    from nbformat import NotebookNode

START = """
import os, time
import jobpool_cli

@jobpool_cli.udf
def wait_at_gate(x: int) -> int:
    while x > 0 and not os.path.exists({gate!r}):
        time.sleep(0.01)
    return x

pool = wait_at_gate.map(range(3), name="gated", max_workers=1)
"""


@pytest.fixture
def notebook(tmp_path: Path, command_line: tuple[list[str], dict[str, str]]) -> Iterator[Notebook]:
    """A notebook with a pool of three tasks, two of which wait at a gate."""
    made = Notebook(tmp_path, command_line[1])
    assert made.run(START.format(gate=str(tmp_path / "gate"))).outputs == []
    yield made
    made.close()


def bars(cell: NotebookNode) -> list[str]:
    return [each.data["text/plain"] for each in cell.outputs if each.output_type == "display_data"]


def test_a_cell_that_waits_shows_one_bar_which_stays_when_the_pool_is_done(notebook: Notebook, tmp_path: Path) -> None:
    cell = notebook.begin("pool.wait()")
    notebook.until(lambda: bars(cell) == ["gated: 1 of 3 tasks finished, 1 running"])
    (tmp_path / "gate").touch()
    notebook.end()
    assert bars(cell) == ["gated: 3 of 3 tasks finished"]
    (bar,) = cell.outputs
    assert "3/3 done" in bar.data["text/html"]
    (shown,) = notebook.run("pool").outputs
    assert "3 of 3 tasks finished" in shown.data["text/html"]
    assert shown.data["text/plain"] == "<JobPool gated: done, 3 tasks: 3 success>"


def test_the_stop_button_ends_the_waiting_and_not_the_pool(notebook: Notebook, tmp_path: Path) -> None:
    pid = int(text_of(notebook.run("os.getpid()")))
    cell = notebook.begin("pool.wait()")
    notebook.until(lambda: bars(cell))
    os.kill(pid, signal.SIGINT)
    notebook.end()
    bar, error = cell.outputs
    assert "stopped watching" in bar.data["text/html"]
    assert error.ename == "KeyboardInterrupt"
    (tmp_path / "gate").touch()
    assert text_of(notebook.run("jobpool_cli.options.show.enable_tqdm = False\npool.results()")) == "[0, 1, 2]\n"
