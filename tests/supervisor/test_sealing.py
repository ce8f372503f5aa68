"""When and how the inbox becomes segments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from jobpool_cli.store.outcomes.segments import seal
from jobpool_cli.store.outcomes.table import batch_of, blob_of
from jobpool_cli.store.values.codec import encode
from jobpool_cli.supervisor.sealing import SEAL_AT_LAST_BYTES, SEAL_AT_LAST_WHOLE_BYTES, _plan, worth_sealing


def blob(task: int, value: object) -> bytes:
    numbers = np.array([task])
    return bytes(
        blob_of(batch_of(
            tasks=numbers, started_us=numbers, duration_ns=numbers, cpu_ns={}, log_start=numbers, log_end=numbers,
            results=encode([value]), attempt=1, worker=1, udf=1,
        ))
    )  # fmt: skip


def segments_of(batches: int, rows: int, size: int) -> int:
    """Return how many segments a pool ends with, as the supervisor decides it."""
    segments, inbox, waiting = 0, [], 0
    for number in range(batches):
        inbox.append((number, "int64 {}", size))
        waiting += rows
        if worth_sealing(waiting, size * len(inbox)):
            segments += len(_plan(inbox))
            inbox, waiting = [], 0
    return segments + len(_plan(inbox))


def test_a_hundred_thousand_slow_tasks_end_in_a_handful_of_segments() -> None:
    assert segments_of(100_000, 1, len(blob(7, {"a": 7, "b": 0.5}))) <= 8


def test_a_million_quick_tasks_end_in_a_handful_of_segments_written_while_it_runs() -> None:
    assert 2 <= segments_of(16, 65_536, 1_300_000) <= 4


def test_no_segment_is_made_of_more_than_the_bytes_that_bound_memory() -> None:
    inbox = [(number, "int64 {}", 1 << 20) for number in range(100)]
    assert all(len(ids) << 20 <= SEAL_AT_LAST_BYTES for ids in _plan(inbox))


def test_a_segment_of_many_blobs_of_a_row_holds_them_all_in_order(tmp_path: Path) -> None:
    blobs = [blob(task, None if task < 300 or task % 5 == 0 else task * 2) for task in range(1000)]
    assert seal(blobs, tmp_path / "segment.parquet", SEAL_AT_LAST_WHOLE_BYTES)[0] == len(blobs)
    table = pq.read_table(tmp_path / "segment.parquet")
    assert table["task"].to_pylist() == list(range(1000))
    assert table["result"].to_pylist() == [None if task < 300 or task % 5 == 0 else task * 2 for task in range(1000)]


def test_a_segment_takes_blobs_only_until_they_fill_the_memory_that_they_may_take_uncompressed(tmp_path: Path) -> None:
    blobs = [blob(task, bytes(1 << 20)) for task in range(10)]
    assert sum(map(len, blobs)) < 1 << 20
    sealed: list[int] = []
    while len(sealed) < len(blobs):
        taken, _ = seal(blobs[len(sealed) :], tmp_path / f"{len(sealed)}.parquet", 3 << 20)
        tasks = pq.read_table(tmp_path / f"{len(sealed)}.parquet")["task"].to_pylist()
        assert len(tasks) == taken <= 3
        sealed += tasks
    assert sealed == list(range(10))
