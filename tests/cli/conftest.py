"""Pools for tests of the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobpool_cli.pool import JobPool
from tests.conftest import PATIENCE_SECONDS, ROOT
from tests.terminals import terminal

__all__ = ["terminal"]

# Every task but those of a negative number waits for the gate.
GATED = """
import os, time
from pathlib import Path

GATE = Path({gate!r})

def f(x: int) -> int:
    print("task", x)
    while x >= 0 and not GATE.exists():
        time.sleep(0.01)
    if x % 10 == 3:
        raise ValueError(f"{{x}} ends in 3")
    return x * x
"""


@dataclass(frozen=True)
class Gate:
    """Holds the tasks of a pool until it is opened."""

    path: Path
    udf: Path

    def open(self) -> None:
        """Let the tasks end."""
        self.path.touch()


@pytest.fixture
def gate(tmp_path: Path, udf_file: Callable[..., Path]) -> Gate:
    """A function whose tasks wait for the gate; those of negative numbers do not."""
    path = tmp_path / "gate"
    return Gate(path, udf_file(GATED.format(gate=str(path)), "gated.py"))


@pytest.fixture
def numbers(args_file: Callable[..., Path]) -> Callable[..., Path]:
    """Write a table with a column x."""

    def write(*values: int) -> Path:
        return args_file("".join(f"{line}\n" for line in ("x", *values)), "numbers.csv")

    return write


@pytest.fixture(scope="session")
def finished_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pool of three tasks that succeeded; made once, for tests to copy."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "square.py").write_text("def square(x: int) -> int:\n    return x * x\n")
    (folder / "numbers.csv").write_text("x\n1\n2\n3\n")
    words = [
        sys.executable,
        "-m",
        "jobpool_cli",
        "map",
        "square.py",
        "numbers.csv",
        "--name",
        "done-pool",
        "-j1",
        "--wait",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JOBPOOL_HOME": str(folder / "home")}
    subprocess.run(words, cwd=folder, env=env, stdout=subprocess.DEVNULL, check=True, timeout=PATIENCE_SECONDS)
    pool = JobPool.open("done-pool", home=str(folder / "home"))
    pool.shutdown(timeout=PATIENCE_SECONDS)
    return pool.paths.root


@pytest.fixture
def one_pool(finished_pool: Path, home: Path) -> str:
    """A pool of three tasks that succeeded, for the test to do with as it likes."""
    shutil.copytree(finished_pool, home / "pools" / finished_pool.name)
    return finished_pool.name
