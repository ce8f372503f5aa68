"""What tests share: a home of their own for pools, which ends every process that they start, and the command line."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import hypothesis
import pytest

from jobpool_cli.errors import JobPoolError
from jobpool_cli.layout import pools_folder
from jobpool_cli.pool import JobPool
from tests.helpers import Bench

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 60.0

# How long an example takes says something of the machine and its other tenants, nothing of the program.
hypothesis.settings.register_profile("jobpool", deadline=None)
hypothesis.settings.load_profile("jobpool")


class Run(Protocol):
    """Run a jobpool command to its end."""

    def __call__(
        self,
        *arguments: str | Path,
        input: str | bytes | None = None,  # noqa: A002 - as subprocess.run calls it
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        code: int | None = None,
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home for pools; at the end of the test none of their processes is left."""
    folder = tmp_path / "home"
    yield folder
    with contextlib.suppress(FileNotFoundError):
        for root in pools_folder(folder).iterdir():
            with contextlib.suppress(JobPoolError, FileNotFoundError):
                JobPool(root).remove(force=True)


@pytest.fixture
def command_line(home: Path) -> tuple[list[str], dict[str, str]]:
    """The command's first words and its environment: no terminal's settings, no home but the test's."""
    env = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    env |= {"JOBPOOL_HOME": str(home), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
    return [sys.executable, "-m", "jobpool_cli"], env


@pytest.fixture
def run(command_line: tuple[list[str], dict[str, str]], tmp_path: Path) -> Run:
    """Run a command in the test's folder; with ``code``, its exit code must be that."""
    words, environment = command_line

    def run(
        *arguments: str | Path,
        input: str | bytes | None = None,  # noqa: A002
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        code: int | None = None,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*words, *map(str, arguments)],
            input=input.encode() if isinstance(input, str) else input if input is not None else b"",
            capture_output=True,
            cwd=cwd or tmp_path,
            env=environment | (env or {}),
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        stdout, stderr = done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="surrogateescape")
        if code is not None:
            assert done.returncode == code, f"exit {done.returncode}\nstdout: {stdout}\nstderr: {stderr}"
        return subprocess.CompletedProcess(done.args, done.returncode, stdout, stderr)

    return run


@pytest.fixture
def udf_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a user's code, ``udf_file("def f(x): ...", name="udf.py")``, and return its path."""

    def write(source: str, name: str = "udf.py") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    return write


@pytest.fixture
def args_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a table of arguments, by default as ``args.csv``, and return its path."""

    def write(text: str, name: str = "args.csv") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


def until(question: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until the answer is yes; a test polls, it does not sleep for a guess."""
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@pytest.fixture(name="until")
def _until() -> Callable[..., None]:
    return until


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Make pools in the test's own process; at its end none of theirs is left."""
    made = Bench(tmp_path)
    yield made
    made.close()
