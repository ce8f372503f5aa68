"""The pages about Python are run, each in a folder and a notebook's kernel of its own, and show what they print."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_SECONDS, ROOT
from tests.notebooks import Notebook, text_of

# Its clusters are elsewhere; tests/engines does on loopback what it says.
ELSEWHERE = ROOT / "docs" / "how-to" / "clusters.md"
PAGES = [
    *sorted((ROOT / "docs" / "tutorial").glob("*.md")),
    *sorted({*(ROOT / "docs" / "how-to").glob("*.md")} - {ELSEWHERE}),
    ROOT / "docs" / "reference" / "arguments-and-results.md",
    ROOT / "docs" / "reference" / "python.md",
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w.]+\.py)\n")
COMMAND = re.compile(r"^\$ (.+)\n", re.MULTILINE)
TIME = re.compile(r"\b[\d.]+ (s|ms|µs)\b")

Shell = Callable[[str], str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The reader's folder."""
    path = tmp_path / "folder"
    path.mkdir()
    return path


@pytest.fixture
def environment(tmp_path: Path, command_line: tuple[list[str], dict[str, str]]) -> dict[str, str]:
    """The reader's environment, in which jobpool and Python are commands."""
    _, env = command_line
    for name, words in (("jobpool", f"{sys.executable} -m jobpool_cli"), ("python", sys.executable)):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        command.chmod(0o700)
    return env | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{env['PATH']}"}


@pytest.fixture
def notebook(folder: Path, environment: dict[str, str]) -> Iterator[Notebook]:
    """A notebook in the reader's folder."""
    made = Notebook(folder, environment)
    yield made
    made.close()


@pytest.fixture
def shell(folder: Path, environment: dict[str, str]) -> Shell:
    """Run a command in the reader's folder and return what it shows on a terminal that does nothing but print."""

    def run(command: str) -> str:
        outer, inner = pty.openpty()
        words = ["sh", "-c", command]
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=inner, stderr=inner, cwd=folder, env=environment | {"TERM": "dumb"}
        ) as process:
            os.close(inner)
            parts = []
            # A terminal whose last writer has gone ends with an error.
            with contextlib.suppress(OSError):
                while part := os.read(outer, 1 << 16):
                    parts.append(part)
            process.wait(PATIENCE_SECONDS)
        os.close(outer)
        return b"".join(parts).decode().replace("\r\n", "\n")

    return run


def same(shown: str, found: str) -> bool:
    """Whether a page shows what was found; ``…`` stands for anything, on a line of its own for any number of lines."""
    lines = [" ".join(TIME.sub("<time>", line).split()) for line in shown.strip().splitlines()]
    patterns = [r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in lines if line]
    text = "".join(f"{' '.join(TIME.sub('<time>', line).split())}\n" for line in found.splitlines() if line.strip())
    return re.fullmatch("".join(patterns), text) is not None


@pytest.mark.parametrize(
    ("shown", "found", "expected"),
    [
        ("a\n", "a\n", True),
        ("a\n", "b\n", False),
        ("a\n", "a\nb\n", False),
        ("…\nb\n", "a\na\nb\n", True),
        ("…\nb\n", "b\n", True),
        ("a … c\n", "a b c\n", True),
        ("took 1.2 s\n", "took   35 ms\n", True),
        ("1 2\n", "1   2  \n\n", True),
    ],
)
def test_a_page_is_compared_line_by_line_but_for_blanks_and_times(shown: str, found: str, *, expected: bool) -> None:
    assert same(shown, found) is expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_every_block_of_a_page_runs_and_gives_what_the_page_shows(
    page: Path, folder: Path, notebook: Notebook, shell: Shell
) -> None:
    blocks = BLOCK.findall(page.read_text())
    for number, (language, text) in enumerate(blocks):
        file = FILE.match(text)
        if language == "python" and file is not None:
            (folder / file[1]).write_text(text)
        elif language == "python":
            found = text_of(notebook.run(text))
            kind, shown = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
            if kind == "text" and not COMMAND.match(shown):
                assert same(shown, found), f"{text}\nshows\n{found}"
            else:
                assert "Traceback" not in found, f"{text}\nshows\n{found}"
        elif COMMAND.match(text):
            _, *session = COMMAND.split(text)
            for command, output in zip(session[::2], session[1::2], strict=True):
                found = shell(command)
                assert same(output, found), f"{command}\nshows\n{found}"
        else:
            assert language == "text", f"a block that is not run: {text}"


def test_the_first_lines_of_python_that_one_meets_run_as_they_stand(notebook: Notebook) -> None:
    (block,) = re.findall(r"```python\n(from jobpool_cli import .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "Traceback" not in text_of(notebook.run(block))
