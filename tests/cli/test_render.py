from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from jobpool_cli.cli import render
from tests.terminals import Terminal

if TYPE_CHECKING:
    import pytest


def test_a_table_is_aligned_on_a_terminal_with_wide_characters_counted_as_two(terminal: Terminal) -> None:
    rows = [["漢字", "1", "done"], ["a\nb", "1000", "error"]]
    with contextlib.redirect_stdout(terminal):
        render.write_table(["name", "n", "state"], rows, right=["n"], states="state")
    assert terminal.getvalue() == (
        "\x1b[2mname     n  state\x1b[0m\n漢字     1  \x1b[32mdone \x1b[0m\na\\nb  1000  \x1b[31merror\x1b[0m\n"
    )


def test_a_row_that_is_wider_than_the_terminal_is_cut(terminal: Terminal) -> None:
    with contextlib.redirect_stdout(terminal):
        render.write_table(["text"], [["x" * 100]])
    assert terminal.getvalue().splitlines()[1] == "x" * 39 + "…"


def test_a_table_in_a_pipe_has_a_record_per_line_and_a_tab_per_cell(capsys: pytest.CaptureFixture[str]) -> None:
    render.write_table(["a", "b"], iter([["1\t2", "3\n4"], ["\\", "\x1b"]]))
    assert capsys.readouterr().out == "a\tb\n1\\t2\t3\\n4\n\\\\\t\x1b\n"
