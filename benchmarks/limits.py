"""What the machine allows: the bare cost of what each work cannot do without, measured with nothing of jobpool's.

    python -m benchmarks.limits

docs/explanation/performance.md says what follows from these for each work.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 5
CALLS = 500_000
LINES = 20_000
FRAMES = 2_000
MEGABYTE = 1 << 20
WRITTEN_MEGABYTES = 256


def square(x: int) -> int:
    """Do next to nothing."""
    return x * x


def calls() -> float:
    """Call a function; return the seconds of CPU of one call."""
    before = time.thread_time()
    for x in range(CALLS):
        square(x)
    return (time.thread_time() - before) / CALLS


def recorded_calls() -> float:
    """Call it between two readings of the clock, and keep both and the result, as every recorder of times must."""
    clock = time.monotonic_ns
    starts: list[int] = []
    ends: list[int] = []
    results: list[int] = []
    before = time.thread_time()
    for x in range(CALLS):
        started = clock()
        result = square(x)
        ends.append(clock())
        starts.append(started)
        results.append(result)
    return (time.thread_time() - before) / CALLS


def offsets() -> float:
    """Ask the kernel where a file descriptor stands: the one system call that tells what a task has written."""
    with tempfile.TemporaryFile() as file:
        fd = file.fileno()
        before = time.thread_time()
        for _ in range(CALLS):
            os.lseek(fd, 0, os.SEEK_CUR)
        return (time.thread_time() - before) / CALLS


def lines_one_by_one() -> float:
    """Write lines with a system call each."""
    with tempfile.TemporaryFile() as file:
        before = time.thread_time()
        for _ in range(LINES):
            os.write(file.fileno(), b"a line that a task has printed\n")
        return (time.thread_time() - before) / LINES


def frames() -> float:
    """Make a DataFrame of ten rows, which is work d's function."""
    import pandas as pd  # noqa: PLC0415 - half a second, for this one figure

    before = time.thread_time()
    for task in range(FRAMES):
        pd.DataFrame({"row": range(10), "value": [task * 0.5] * 10, "name": ["a"] * 10})
    return (time.thread_time() - before) / FRAMES


def synced_bytes() -> float:
    """Write to a file and have the disk confirm it; return the seconds of a megabyte."""
    block = os.urandom(MEGABYTE)
    with tempfile.NamedTemporaryFile(dir=Path.cwd()) as file:
        before = time.perf_counter()
        for _ in range(WRITTEN_MEGABYTES):
            os.write(file.fileno(), block)
        os.fsync(file.fileno())
        return (time.perf_counter() - before) / WRITTEN_MEGABYTES


def commits() -> float:
    """Have the disk confirm a page, which every durable transaction waits for."""
    with tempfile.NamedTemporaryFile(dir=Path.cwd()) as file:
        before = time.perf_counter()
        for number in range(100):
            os.pwrite(file.fileno(), bytes(4096), number * 4096)
            os.fdatasync(file.fileno())
        return (time.perf_counter() - before) / 100


def start_of(code: str) -> Callable[[], float]:
    """Return what times a fresh interpreter that runs some code."""

    def timed() -> float:
        before = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - before

    return timed


LIMITS: dict[str, Callable[[], float]] = {
    "call a function": calls,
    "call it, with both times and the result kept": recorded_calls,
    "ask for a descriptor's offset": offsets,
    "write a line with a system call": lines_one_by_one,
    "make a DataFrame of ten rows": frames,
    "write 1 MiB and have it confirmed (fsync)": synced_bytes,
    "have a page confirmed (fdatasync)": commits,
    "python -c pass": start_of("pass"),
    "python -c 'import typer'": start_of("import typer"),
    "python -c 'import pyarrow'": start_of("import pyarrow"),
}


def main() -> None:
    """Print each limit: the least of several rounds, since all that disturbs a measurement makes it longer."""
    print("| bare cost | microseconds |\n|---|---:|")
    for name, measure in LIMITS.items():
        least = min(measure() for _ in range(ROUNDS)) * 1e6
        print(f"| {name} | {least:,.2f} |" if least < 1000 else f"| {name} | {least:,.0f} |")  # noqa: PLR2004


if __name__ == "__main__":
    main()
