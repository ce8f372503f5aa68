"""A pool's books, written without a supervisor: what readers of the store are tested against."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from jobpool_cli.layout import PoolPaths
from jobpool_cli.store.outcomes.segments import seal
from jobpool_cli.store.outcomes.table import batch_of, blob_of, kind_of
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.state.writer import FailureRecord, StateWriter, create_database
from jobpool_cli.store.values.codec import encode


class Books:
    """Writes outcomes as the supervisor would."""

    def __init__(self, root: Path) -> None:  # noqa: D107
        root.mkdir()
        self.paths = PoolPaths(root)
        self.paths.results.mkdir()
        self.paths.logs.mkdir()
        create_database(self.paths.state_db)
        self.writer = StateWriter(self.paths.state_db)
        self._segments = 0

    def succeed(
        self,
        tasks: Sequence[int],
        values: Sequence[object],
        *,
        attempt: int = 1,
        worker: int = 1,
        log: tuple[Sequence[int], Sequence[int]] | None = None,
        cpu_ns: dict[int, int] | None = None,
    ) -> None:
        """Put a batch into the inbox; task t started at t seconds and took t microseconds."""
        numbers = np.array(tasks, np.int64)
        nothing = np.zeros(len(tasks), np.int64)
        results = encode(list(values))
        blob = blob_of(
            batch_of(
                tasks=numbers,
                started_us=numbers * 1_000_000,
                duration_ns=numbers * 1000,
                cpu_ns=cpu_ns or {},
                log_start=nothing if log is None else np.array(log[0], np.int64),
                log_end=nothing if log is None else np.array(log[1], np.int64),
                results=results,
                attempt=attempt,
                worker=worker,
                udf=1,
            )
        )
        ranges = tuple((task, task + 1) for task in tasks)
        with self.writer.transaction():
            self.writer.add_successes(ranges, len(tasks), kind_of(results.field), blob.to_pybytes(), 1)

    def fail(
        self,
        task: int,
        *,
        state: str = "error",
        attempt: int = 1,
        message: str = "no",
        current: bool = True,
        log: tuple[int, int] | None = None,
        worker: int = 1,
        line: int = 7,
    ) -> None:
        """Record a failure."""
        record = FailureRecord(
            task,
            attempt,
            state,
            "ValueError",
            message,
            1,
            where=("/code/udf.py", line, "f"),
            started=5_000_000,
            duration=2_000_000_000,
            worker=worker,
            log=log,
        )
        with self.writer.transaction():
            self.writer.add_failures([record], current=current)

    def seal(self) -> None:
        """Make one segment of each kind in the inbox."""
        kinds: dict[str, list[int]] = {}
        for each, kind, _ in self.writer.inbox_sizes():
            kinds.setdefault(kind, []).append(each)
        for ids in kinds.values():
            self._segments += 1
            path = self.paths.segment(self._segments)
            with self.reader() as reader:
                _, size = seal(reader.blobs(ids), path, sys.maxsize)
            with self.writer.transaction():
                self.writer.replace_by_segment(ids, path.name, size)

    def reader(self) -> StateReader:
        """Open the books for reading."""
        return StateReader(self.paths.state_db)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    """Empty books."""
    written = Books(tmp_path / "pool")
    yield written
    written.writer.close()
