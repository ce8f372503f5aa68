"""Results that are damaged, and states that are older than their results: named, run again, never made up."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.model import PoolState, TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.store.state.reader import Segment, StateReader
from tests.faults import inprocess, ledger
from tests.faults.harness import Faults, slow_square
from tests.helpers import square

PAGE = 4096
LOG = ("-wal", "-shm")
TASKS = 90
FIRST_PART = 30
IN_TWO_PARTS = f"def f(x: int) -> int:\n    _audit()\n    x < {FIRST_PART} or _wait_for('go')\n    return x * x\n"


def in_two_parts(faults: Faults) -> tuple[JobPool[Any], Segment, Segment]:
    """Return a finished pool whose results lie in two files."""
    pool = faults.map(IN_TWO_PARTS, TASKS)
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] == FIRST_PART)
    faults.jobpool("shutdown", "pool", "--no-wait")
    faults.release("go")
    faults.finish(pool)
    faults.look(pool)
    with StateReader(pool.paths.state_db) as reader:
        first, second = sorted(reader.segments(), key=lambda segment: segment.first)
    return pool, first, second


def cut(path: Path) -> None:
    """Take a file's last byte off."""
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path, offset: int) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def _bytes_of(path: Path, column: str) -> range:
    """Return where a column lies in a Parquet file."""
    group = pq.read_metadata(path).row_group(0)
    (chunk,) = [group.column(each) for each in range(group.num_columns) if group.column(each).path_in_schema == column]
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return range(start, start + chunk.total_compressed_size)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a byte shorter": cut,
    "a byte changed in its first values": lambda path: flip(path, _bytes_of(path, "task")[-1]),
    "a byte changed in its middle": lambda path: flip(path, path.stat().st_size // 2),
    "a byte changed in its footer": lambda path: flip(path, path.stat().st_size - 60),
    "missing": Path.unlink,
    "a folder": lambda path: (path.unlink(), path.mkdir())[1],  # type: ignore[func-returns-value]
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path))[1],  # type: ignore[func-returns-value]
}


@pytest.mark.scenario(13)
@pytest.mark.parametrize("damage", ledger.scaled(["a byte shorter", "a byte changed in its middle"], [*DAMAGES]))
def test_a_damaged_segment_is_named_with_its_tasks_and_retry_runs_those_alone(faults: Faults, damage: str) -> None:
    """Scenario 13: a segment shorter by a byte: collect exits 5, names file and tasks; retry --damaged mends it."""
    pool, first, second = in_two_parts(faults)
    ran = faults.ran()
    path = pool.paths.results / first.file
    DAMAGES[damage](path)
    faults.injected()
    for verb in ("collect", "results", "tasks"):
        told = inprocess.run(faults.home, verb, "pool")
        assert told.code == 5, (verb, told)
        assert first.file in told.err
        assert f"tasks 0 to {FIRST_PART - 1}" in told.err
        assert "retry --damaged" in told.err
    # What is whole can be had, alone and together with what is not.
    one = inprocess.run(faults.home, "results", "pool", str(second.first))
    assert (one.code, one.out) == (0, f"{second.first}\t{second.first**2}\n")
    assert inprocess.run(faults.home, "results", "pool").out.count("\n") == TASKS - FIRST_PART
    assert pool.snapshot().state is PoolState.DONE

    faults.jobpool("retry", "--damaged", "pool", "--wait")
    again = faults.ran() - ran
    assert set(again) == set(range(FIRST_PART))
    assert set(again.values()) == {1}
    assert {attempt for task, attempt in faults.audit() if task < FIRST_PART} == {1, 2}
    assert (pool.paths.aside / first.file).exists() == (damage != "missing")
    faults.check(pool)
    assert inprocess.run(faults.home, "collect", "pool", "--drop-index").out.count("\n") == TASKS + 1
    assert "all results are whole" in inprocess.run(faults.home, "retry", "--damaged", "pool").err


@pytest.mark.scenario(13)
def test_a_byte_changed_anywhere_in_a_segment_never_changes_a_result(faults: Faults) -> None:
    """Scenario 13: a flipped byte anywhere: the right results, or exit 5."""
    pool, first, _ = in_two_parts(faults)
    path = pool.paths.results / first.file
    whole = path.read_bytes()
    noticed = 0
    chance = random.Random(13)  # noqa: S311 - no secret
    # Where the results themselves lie, a flip would be a wrong result; everywhere else it may be anything.
    offsets = [*_bytes_of(path, "result"), *_bytes_of(path, "task")]
    offsets = chance.sample(offsets, min(len(offsets), ledger.scaled(80, 10_000)))
    for offset in [*offsets, *chance.sample(range(len(whole)), min(len(whole), ledger.scaled(30, 10_000)))]:
        flip(path, offset)
        faults.injected()
        try:
            found = pool.success()
        except DamagedPoolError:
            noticed += 1
        else:
            assert found == {task: square(task) for task in range(TASKS)}, offset
        path.write_bytes(whole)
    assert noticed > len(offsets) / 2
    faults.check(pool)


@pytest.mark.scenario(13)
def test_damaged_results_that_wait_to_be_sealed_are_run_again(faults: Faults) -> None:
    """Scenario 13: damage in the inbox: the supervisor stops and says so, retry --damaged runs these tasks alone."""
    pool = faults.map(IN_TWO_PARTS, TASKS)
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] == FIRST_PART)
    faults.kill_supervisor(pool)
    faults.look(pool)
    connection = sqlite3.connect(pool.paths.state_db)
    (number, text) = connection.execute("SELECT id, ranges FROM inbox ORDER BY rows DESC LIMIT 1").fetchone()
    connection.execute("UPDATE inbox SET outcomes = zeroblob(length(outcomes)) WHERE id = ?", (number,))
    connection.commit()
    connection.close()
    faults.injected()
    assert "retry --damaged" in faults.jobpool("results", "pool", code=5).stderr
    faults.release("go")
    faults.jobpool("resume", "pool", "--wait", code=None)
    faults.ended(pool)
    assert pool.snapshot().state is PoolState.INTERRUPTED
    assert "retry --damaged" in faults.jobpool("status", "pool").stdout
    ran = faults.ran()
    faults.jobpool("retry", "--damaged", "pool", "--wait")
    assert set(faults.ran() - ran) >= {task for low, high in json.loads(text) for task in range(low, high)}
    faults.check(pool)


# --- WAL and shared memory deleted


def lose_log(pool: JobPool[Any]) -> None:
    """Delete the write-ahead log and its index: all that was committed since the last checkpoint."""
    for suffix in LOG:
        Path(f"{pool.paths.state_db}{suffix}").unlink()


@pytest.mark.scenario(14)
@pytest.mark.parametrize("moment", ledger.scaled(["middle", "sealed"], ["early", "middle", "sealed"]))
def test_without_its_write_ahead_log_a_pool_is_as_old_as_its_last_checkpoint_and_goes_on(
    faults: Faults, moment: str
) -> None:
    """Scenario 14: WAL and shared memory deleted: an older state, or exit 5; never a result that is not there."""
    if moment == "sealed":
        pool = faults.map(IN_TWO_PARTS, TASKS)
        faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] == FIRST_PART)
        faults.jobpool("shutdown", "pool", "--no-wait")
        faults.ended(pool)
        faults.release("go")
        faults.jobpool("resume", "pool")
        faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > FIRST_PART)
    else:
        pool = faults.map(slow_square(0.002), 900)
        faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > (0 if moment == "early" else 450))
    faults.kill_supervisor(pool)
    # Files of results that the older state knows nothing of, and names that it may give again.
    with StateReader(pool.paths.state_db) as reader:
        known = len(reader.segments())
    stray = pool.paths.segment(known + 1)
    stray.write_bytes(next(iter(pool.paths.results.glob("segment-*")), pool.paths.args).read_bytes())
    lose_log(pool)
    faults.injected()
    told = inprocess.run(faults.home, "status", "pool")
    assert told.code in {0, 5}, told
    claimed = pool.snapshot().counts[TaskState.SUCCESS]
    readable = inprocess.run(faults.home, "results", "pool").out.splitlines()
    assert len(readable) == claimed
    faults.finish(pool)
    faults.check(pool)
    assert pool.snapshot().counts[TaskState.SUCCESS] == pool.n_jobs


@pytest.mark.scenario(14)
def test_a_checkpoint_cut_short_and_without_its_log_is_refused_and_not_believed(faults: Faults) -> None:
    """Scenario 14: half of the pages old and half new: exit 5 where it shows, and resume does not begin."""
    pool = faults.map(slow_square(0.002), 400)
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > 100)
    faults.kill_supervisor(pool)
    older = pool.paths.state_db.read_bytes()
    faults.finish(pool)
    faults.ended(pool)
    faults.look(pool)
    newer = pool.paths.state_db.read_bytes()
    refused = 0
    for base, others in ((newer, older), (older, newer)):
        for start in range(0, min(len(older), len(newer)), PAGE):
            mixed = base[:start] + others[start : start + PAGE] + base[start + PAGE :]
            if mixed in (newer, older):
                continue
            pool.paths.state_db.write_bytes(mixed)
            faults.injected()
            status = inprocess.run(faults.home, "status", "pool", "--json")
            read = inprocess.run(faults.home, "results", "pool")
            assert status.code in {0, 5}, status
            assert read.code in {0, 5}, read
            if status.code == 0:
                claimed = json.loads(status.out)["counts"]["success"]
                assert (read.code, read.out.count("\n")) == (0, claimed)
            else:
                refused += 1
                assert inprocess.run(faults.home, "resume", "pool").code == 5
            for suffix in LOG:
                Path(f"{pool.paths.state_db}{suffix}").unlink(missing_ok=True)
    assert refused
    pool.paths.state_db.write_bytes(newer)
    faults.check(pool)
