"""Whole processes measured from the outside, and contenders measured in turn.

The figures of two contenders can be compared because they were taken in one run, in alternation: a machine that slows
down for a minute slows down both. So a comparison is a ratio within a round, and what is shown is the median of those.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).parent.parent
TIME_LIMIT_SECONDS = 900.0
SHOWN_OUTPUT = 400

# What one run of one contender yields: seconds, rates, bytes, by name. Plain numbers, so that JSON holds them.
Figures = dict[str, float]


class Row(TypedDict):
    """What became of one contender on one work, as results.json keeps it."""

    contender: str
    name: str
    tasks: int
    rounds: list[Figures]
    failed: str


class MeasureError(Exception):
    """A contender did not do its work, so there is no figure; the text is the reason that the table shows."""


@dataclass(frozen=True)
class Contender:
    """One who is measured: a key for goals to name it by, a name for people, and what measures it once."""

    key: str
    name: str
    measure: Callable[[], Figures]
    tasks: int = 0


@dataclass(frozen=True)
class Ran:
    """A command that came to its end."""

    wall: float
    peak_rss: int
    """Bytes of the largest single process among the command and those of its descendants that it waited for.

    Linux counts from the fork on, so it is never less than what the measuring process itself holds: keep that small.
    """
    stdout: str
    stderr: str

    def figures(self) -> Figures:
        """Return the JSON object of numbers that the command printed as its last line.

        One that says ``{"skipped": "the reason"}`` could not run on this machine: that is no figure either.
        """
        lines = self.stdout.strip().splitlines()
        try:
            found = json.loads(lines[-1])
        except (IndexError, ValueError) as error:
            raise MeasureError(f"its last line is no JSON: {self.stdout[-SHOWN_OUTPUT:]!r}") from error
        if not isinstance(found, dict):
            raise MeasureError(f"its last line is no JSON object: {lines[-1][:SHOWN_OUTPUT]!r}")
        if "skipped" in found:
            raise MeasureError(str(found["skipped"]))
        try:
            return {str(name): float(value) for name, value in found.items()}
        except (TypeError, ValueError) as error:
            raise MeasureError(f"its last line holds more than numbers: {lines[-1][:SHOWN_OUTPUT]!r}") from error


def run_process(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    time_limit: float = TIME_LIMIT_SECONDS,
    stdin: Path | None = None,
) -> Ran:
    """Run a command to its end as a shell would, and measure it.

    Output goes to files, so that no reader of ours takes a turn on a core while the command runs.

    Raises:
        MeasureError: it could not start, ended with anything but 0, or took longer than the limit.
    """
    words = [str(word) for word in command]
    with (
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
        Path(stdin or os.devnull).open("rb") as given,
    ):
        before = time.perf_counter()
        try:
            process = subprocess.Popen(
                words, stdin=given, stdout=stdout, stderr=stderr, env=env, cwd=cwd, start_new_session=True
            )
        except OSError as error:
            raise MeasureError(f"{words[0]}: {error.strerror}") from error
        try:
            code, peak = _wait(process, time_limit)
            wall = time.perf_counter() - before
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode(errors="backslashreplace"))
    if code != 0:
        said = (texts[1].strip() or texts[0].strip()).splitlines()
        raise MeasureError(f"{Path(words[0]).name} ended with {code}: {said[-1][:SHOWN_OUTPUT] if said else 'no word'}")
    return Ran(wall, peak, texts[0], texts[1])


def _wait(process: subprocess.Popen[bytes], time_limit: float) -> tuple[int, int]:
    """Wait for a process; return its exit code and peak memory, which only ``wait4`` tells."""
    expired = False

    def expire(_number: int, _frame: object) -> None:
        nonlocal expired
        expired = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    former = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, time_limit)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    process.returncode = os.waitstatus_to_exitcode(status)
    if expired:
        raise MeasureError(f"stopped after {time_limit:g} s")
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return process.returncode, usage.ru_maxrss * unit


def in_turn(
    contenders: Sequence[Contender], rounds: int, *, tell: Callable[[str], None] = lambda _line: None
) -> list[Row]:
    """Measure the contenders in alternation, each once in every round; one that fails is out, with its reason."""
    rows = {
        each.key: Row(contender=each.key, name=each.name, tasks=each.tasks, rounds=[], failed="") for each in contenders
    }
    for number in range(rounds):
        for each in turn_order(contenders, number):
            row = rows[each.key]
            if row["failed"]:
                continue
            try:
                figures = each.measure()
            except (MeasureError, AssertionError) as error:
                # Rounds are compared with each other by their number, so a half-measured contender has none.
                reason = str(error) if isinstance(error, MeasureError) else f"wrong results: {error}"
                row["failed"], row["rounds"] = reason, []
                tell(f"  round {number + 1}: {each.name}: no figure: {reason}")
            else:
                row["rounds"].append(figures)
                shown = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
                tell(f"  round {number + 1}: {each.name}: {shown}")
    return list(rows.values())


def turn_order(contenders: Sequence[Contender], number: int) -> list[Contender]:
    """Return the order of a round: each begins with another contender, so that none always follows the same one."""
    start = number % len(contenders) if contenders else 0
    return [*contenders[start:], *contenders[:start]]


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of some measurements."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, lowest and highest."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Context:
    """What a work is measured with: passed to ``run(context)`` of a work that has a flow of its own."""

    python: Path
    """The interpreter of the benchmarks' environment: jobpool and its peers are importable."""
    jobpool: tuple[str, ...]
    """The jobpool command, as the first words of a command line."""
    scratch: Path
    """A folder to make files and pools in; emptied by its owner, deleted at the end of the run."""
    rounds: int
    quick: bool
    """True: only to see that everything works, in seconds; the figures mean nothing."""
    workers: int
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    def env(self, home: Path | None = None) -> dict[str, str]:
        """Return an environment for commands: jobpool's pools lie in ``home``, ``benchmarks`` can be imported."""
        found = {name: value for name, value in os.environ.items() if not name.startswith(("JOBPOOL_", "PYTHON"))}
        return found | {"PYTHONPATH": str(ROOT), "JOBPOOL_HOME": str(home or self.scratch / "home")}

    def run(self, *words: str | Path, home: Path | None = None, cwd: Path = ROOT, stdin: Path | None = None) -> Ran:
        """Run any command to its end, and measure it."""
        return run_process(words, env=self.env(home), cwd=cwd, stdin=stdin)

    def run_jobpool(self, *words: str | Path, home: Path | None = None, stdin: Path | None = None) -> Ran:
        """Run a jobpool command to its end, and measure it."""
        return self.run(*self.jobpool, *words, home=home, stdin=stdin)

    def map(self, function: str, table: Path, *options: str, home: Path) -> Ran:
        """Run ``jobpool map --wait`` with as many workers as everybody has, and measure it."""
        return self.run_jobpool("map", function, table, "--wait", "--workers", str(self.workers), *options, home=home)

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """Make a folder that lasts as long as the block."""
        with tempfile.TemporaryDirectory(dir=self.scratch, ignore_cleanup_errors=True) as name:
            yield Path(name)

    def in_turn(self, contenders: Sequence[Contender]) -> list[Row]:
        """Measure contenders in alternation, as many rounds as were asked for."""
        return in_turn(contenders, self.rounds, tell=self.tell)
