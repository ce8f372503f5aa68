"""Standard output that is closed or full: every reading verb ends quietly, or says what is wrong."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import Faults

TASKS = 4000
BODY = (
    "def f(x: int) -> int:\n    print('task', x)\n    if x % 100 == 7:\n        raise ValueError(x)\n    return x * x\n"
)
# Every verb whose work it is to show something; those with much to show come first.
LONG = [
    ["results", "pool"],
    ["tasks", "pool"],
    ["args", "pool"],
    ["logs", "pool"],
    ["collect", "pool", "--ignore-exceptions"],
]
SHORT = [
    ["tail", "pool"],
    ["errors", "pool"],
    ["errors", "pool", "--json"],
    ["status", "pool"],
    ["status", "pool", "--json"],
    ["list"],
    ["--version"],
    ["--help"],
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a pool lies that is done, with some failures."""
    faults = Faults(tmp_path_factory.mktemp("streams"), 48)
    pool = faults.map(BODY, TASKS)
    faults.ended(pool)
    faults.check(pool, audit=None)
    yield faults.home
    faults.close()


def names(words: object) -> str:
    return " ".join(words) if isinstance(words, list) else ""


@pytest.mark.scenario(48)
@pytest.mark.parametrize("words", LONG, ids=names)
def test_a_verb_whose_reader_has_seen_enough_ends_quietly(faults: Faults, home: Path, words: list[str]) -> None:
    """Scenario 48: `| head -1`: one line, nothing on stderr, exit 0."""
    script = '"$@" | head -1; exit ${PIPESTATUS[0]}'
    done = faults.jobpool(*words, prefix=["bash", "-c", script, "head"], home=home)
    faults.injected()
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.scenario(48)
@pytest.mark.parametrize("words", [*LONG, *SHORT], ids=names)
def test_a_verb_whose_reader_is_gone_ends_quietly(faults: Faults, home: Path, words: list[str]) -> None:
    """Scenario 48: a pipe that nobody reads from at all: nothing on stderr, exit 0."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            faults.command(*words), env=faults.env | {"JOBPOOL_HOME": str(home)}, stdin=subprocess.DEVNULL,
            stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(write_end)
    faults.injected()
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.scenario(48)
@pytest.mark.parametrize("words", [*LONG, *SHORT], ids=names)
def test_a_verb_whose_output_does_not_fit_says_so(faults: Faults, home: Path, words: list[str]) -> None:
    """Scenario 48: `> /dev/full`: exit 6, and one line that says why."""
    done = faults.jobpool(*words, prefix=["bash", "-c", 'exec "$@" > /dev/full', "full"], home=home, code=6)
    faults.injected()
    assert done.stderr == "jobpool: error: the output could not be written: No space left on device\n"
