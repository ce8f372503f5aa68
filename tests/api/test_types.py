"""mypy and pyright know what a pool of a typed function gives; the file that both check is run, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXAMPLE = Path(__file__).parent / "typed_example.py"


@pytest.mark.parametrize(
    "checker",
    [["mypy", "--strict", "--explicit-package-bases"], ["pyright", "--pythonpath", sys.executable]],
    ids=lambda words: words[0],
)
def test_the_type_checker_agrees(checker: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *checker, str(EXAMPLE)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_checked_file_runs(own_home: Path, command_line: tuple[list[str], dict[str, str]]) -> None:
    _, environment = command_line
    subprocess.run([sys.executable, EXAMPLE], cwd=own_home.parent, env=environment, check=True, timeout=60)


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "jobpool_cli" / "py.typed").exists()
