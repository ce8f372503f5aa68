"""Logs as no program should write them: giants, logs that the disk has cut short, bytes that a terminal would obey."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jobpool_cli.pool import JobPool
from tests.faults.harness import Faults
from tests.faults.hostile import BYTES, unharmed
from tests.faults.ledger import scaled
from tests.terminals import Screen

GIANT = """
def f(x: int) -> int:
    _audit()
    if x == 0:
        os.ftruncate(1, 5 << 30)
    for line in range(100):
        print("line", line, flush=True)
    return x * x
"""
RAW = """
def f(x: int) -> int:
    _audit()
    os.write(1, {data!r})
    return x * x
"""


MEASURE = """
import resource, subprocess, sys, time
began = time.monotonic()
subprocess.run(sys.argv[1:], check=True)
print(time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
"""


class _Run(NamedTuple):
    seconds: float
    megabytes: float
    output: bytes


def _measured(faults: Faults, *words: str) -> _Run:
    """Run a command and return what it took at its peak; counted from a small process, as exec keeps the peak."""
    env = faults.env | {"JOBPOOL_HOME": str(faults.home)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, *faults.command(*words)],
        capture_output=True,
        env=env,
        check=True,
        timeout=60,
    )
    seconds, kilobytes = done.stderr.split()[-2:]
    return _Run(float(seconds), int(kilobytes) / 1024, done.stdout)


def _log_of(pool: JobPool[Any], task: int) -> Path:
    (log,) = pool.task_logs([task])
    return log.path


@pytest.mark.scenario(45)
def test_the_last_lines_of_a_giant_log_take_no_time_and_no_memory(faults: Faults) -> None:
    """Scenario 45: 5 GB before the last lines; ``logs --tail 10`` takes under 1 s and 150 MB."""
    pool = faults.map(GIANT, 2, "-j", "1")
    faults.ended(pool)
    faults.injected()
    assert _log_of(pool, 0).stat().st_size > 5 << 30
    small = min(_measured(faults, "logs", "pool", "1", "--tail", "10").seconds for _ in range(2))
    runs = [_measured(faults, "logs", "pool", "0", "--tail", "10") for _ in range(3)]
    assert {run.output for run in runs} == {b"".join(b"line %d\n" % line for line in range(90, 100))}
    assert min(run.seconds for run in runs) < small + 1.0
    assert max(run.megabytes for run in runs) < 150
    faults.check(pool)


@pytest.mark.scenario(46)
def test_what_a_log_has_lost_is_said_and_the_rest_is_shown(faults: Faults) -> None:
    """Scenario 46: a byte range past the end of the file, or zeros instead of its end: what exists, and what is cut."""
    pool = faults.map(RAW.format(data=b"0123456789abcdef" * 4 + b"\n"), 3, "-j", "1")
    faults.ended(pool)
    *_, last = pool.task_logs([0, 1, 2])
    for kept, nuls in ((4, 0), (4, 60), (0, 64), (0, 0)):
        os.truncate(last.path, last.start + kept)
        os.truncate(last.path, last.start + kept + nuls)
        faults.injected()
        shown = faults.jobpool("logs", "pool", "2", *scaled((), ("--tail", "1")))
        assert shown.stdout == "0123456789abcdef"[:kept]
        assert f"[log cut short] task 2: {65 - kept} bytes are not in {last.path}" in shown.stderr
        (log,) = pool.task_logs([2], tail=1)
        assert (b"".join(log.chunks()).decode(), log.missing) == (shown.stdout, 65 - kept)
        (whole,) = pool.task_logs([1])
        assert (len(b"".join(whole.chunks())), whole.missing) == (65, 0)
    assert '"missing_bytes": 65' in faults.jobpool("logs", "pool", "2", "--json").stdout
    faults.check(pool)


@pytest.mark.scenario(46)
def test_a_log_that_is_gone_hides_no_other(faults: Faults) -> None:
    """Scenario 46: the file of one worker deleted."""
    pool = faults.map(RAW.format(data=b"some text\n"), 3, "-j", "1")
    faults.ended(pool)
    _log_of(pool, 0).unlink()
    faults.injected()
    shown = faults.jobpool("logs", "pool")
    assert shown.stdout.count("some text") == 0
    assert shown.stderr.count("[log cut short]") == 3
    faults.check(pool)


@pytest.mark.scenario(47)
def test_a_log_is_escaped_on_a_terminal_and_byte_for_byte_elsewhere(faults: Faults) -> None:
    """Scenario 47: ESC, OSC, C1, invalid UTF-8, markup, bidi in a log: nothing of it acts on a terminal."""
    pool = faults.map(RAW.format(data=BYTES), 1, "-j", "1")
    faults.ended(pool)
    faults.injected()
    env = faults.env | {"JOBPOOL_HOME": str(faults.home)}
    # Colour that is forced adds nothing to what a task wrote.
    piped = subprocess.run(
        faults.command("logs", "pool", "0"), env=env | {"FORCE_COLOR": "1"}, capture_output=True, check=True, timeout=60
    )
    assert piped.stdout == BYTES
    verbs = (["logs", "pool"], ["logs", "pool", "0", "--json"], ["logs", "pool", "0", "--follow"])
    for more in scaled(verbs[:2], verbs):
        for colour in scaled([{"FORCE_COLOR": "1"}], [{}, {"FORCE_COLOR": "1"}]):
            screen = Screen(faults.command(*more), env | colour)
            try:
                assert screen.end() == 0
                text = unharmed(screen.text)
            finally:
                screen.close()
            assert "[/foo]" in text
            assert "\\x1b]0;" in text or "\\u001b]0;" in text
    faults.check(pool)
