"""Results of gigabytes: stored, or refused with the limit named, and never in the supervisor's memory."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobpool_cli.model import TaskState
from jobpool_cli.pool import JobPool
from tests.faults.harness import Faults
from tests.faults.ledger import scaled
from tests.helpers import supervisors

MOST_KILOBYTES = 500_000


def peak_of_supervisor(faults: Faults, pool: JobPool[object], seconds: float) -> int:
    """Wait for the pool; return the most memory that its supervisor ever held, in kilobytes."""
    pids = supervisors(pool.paths.root)
    peak, deadline = 0, time.monotonic() + seconds
    while pool.is_live():
        if time.monotonic() > deadline:
            raise faults.hang(f"the pool is not done after {seconds:g} s")
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pids[0]}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]))
        time.sleep(0.02)
    return peak


@pytest.mark.scenario(40)
def test_a_result_beyond_the_limit_is_an_error_that_names_the_limit(faults: Faults) -> None:
    """Scenario 40: 2 GB and more in one piece: ResultTooLarge; the neighbours are stored; little memory."""
    body = (
        "def f(x: int) -> bytes:\n    _audit()\n    _wait_for('go')\n"
        f"    return bytes({scaled(2_000_000_100, 2_200_000_000)}) if x == 1 else b'small'\n"
    )
    pool = faults.map(body, 4, "-j", "1")
    faults.release("go")
    faults.injected()
    assert peak_of_supervisor(faults, pool, 120) < MOST_KILOBYTES
    (failure,) = pool.failures()
    assert (failure.task, failure.type) == (1, "ResultTooLarge")
    assert "at most 2,000,000,000" in failure.message
    assert pool.snapshot().counts[TaskState.SUCCESS] == 3
    faults.check(pool, lambda _: b"small")


@pytest.mark.scenario(40)
def test_large_results_side_by_side_are_stored_and_the_supervisor_stays_small(faults: Faults) -> None:
    """Scenario 40: results up to the limit: stored whole, memory of the supervisor bounded."""
    # The smaller ones go by way of the supervisor, since they shrink to nothing.
    sizes = [20_000_000] * 30 + scaled([150_000_000] * 2, [2_000_000_000, 700_000_000, 700_000_000, 700_000_000])
    body = f"def f(x: int) -> bytes:\n    _audit()\n    _wait_for('go')\n    return bytes([x]) * {sizes}[x]\n"
    pool = faults.map(body, len(sizes))
    faults.release("go")
    assert 0 < peak_of_supervisor(faults, pool, 240) < MOST_KILOBYTES
    assert pool.snapshot().counts[TaskState.SUCCESS] == len(sizes)
    for path in pool.paths.results.iterdir():
        # Not all at once: what reads them need not be small, but this machine may be.
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, ["task", "result"])
                for task, value in zip(rows["task"].to_pylist(), rows["result"], strict=True):
                    data = value.as_buffer()
                    assert data.size == sizes[task]
                    assert data.slice(data.size - 3).to_pybytes() == bytes([task]) * 3
    assert sorted(faults.ran()) == list(range(len(sizes)))
    faults.injected()
