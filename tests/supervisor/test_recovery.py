from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobpool_cli.layout import TEMPORARY_PREFIX, PoolPaths
from jobpool_cli.store.slots import MAX_SLOTS, SLOT_BYTES
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.state.writer import FailureRecord, StateWriter, create_database
from jobpool_cli.supervisor.events import LossCause, RecordLoss, Send, TasksAdded, WorkerLost, WorkerReady
from jobpool_cli.supervisor.recovery import clean_up, fill, next_worker, raise_attempts
from jobpool_cli.supervisor.scheduler import Scheduler


@pytest.fixture
def paths(tmp_path: Path) -> PoolPaths:
    made = PoolPaths(tmp_path)
    for folder in (made.results, made.logs, made.requests, made.udf):
        folder.mkdir()
    create_database(made.state_db)
    return made


@pytest.fixture
def writer(paths: PoolPaths) -> Iterator[StateWriter]:
    made = StateWriter(paths.state_db)
    yield made
    made.close()


def failure(task: int, attempt: int, kind: str = "ValueError", state: str = "error") -> FailureRecord:
    return FailureRecord(task, attempt, state, kind, "", 1)


def test_the_first_start_has_everything_to_do(paths: PoolPaths) -> None:
    scheduler = Scheduler(slots=1, udf=1, retries=0, max_crashes=3)
    with StateReader(paths.state_db) as reader:
        assert fill(scheduler, reader, 10) == TasksAdded(((0, 10),))
        assert fill(scheduler, reader, 0) == TasksAdded(())


def test_what_is_settled_is_not_run_again_and_what_counts_against_the_rest_still_does(
    paths: PoolPaths, writer: StateWriter
) -> None:
    with writer.transaction():
        writer.add_successes(((0, 3),), 3, "", b"", 1)
        writer.cancel(((5, 7),))
        writer.add_failures([failure(8, 1)], current=True)
        # Task 9 failed in an earlier round and crashed twice since.
        writer.add_failures([failure(9, 1), failure(9, 2, "WorkerCrashed", "crash")], current=False)
        writer.add_failures([failure(9, 3, "WorkerCrashed", "crash")], current=False)
        writer.set_attempts([(9, 4, 2), (2, 2, 1)])
    scheduler = Scheduler(slots=1, udf=1, retries=0, max_crashes=3)
    with StateReader(paths.state_db) as reader:
        assert fill(scheduler, reader, 12) == TasksAdded(((3, 5), (7, 8), (10, 12)))
    scheduler.handle(TasksAdded(), 0.0)
    sends = [each for each in scheduler.handle(WorkerReady(0), 0.0) if isinstance(each, Send)]
    assert [(each.order.ranges, each.order.attempt) for each in sends] == [(((9, 10),), 4)]
    lost = scheduler.handle(WorkerLost(0, LossCause.CRASH, sends[0].order.batch, 0), 0.0)
    assert [(each.task, each.again) for each in lost if isinstance(each, RecordLoss)] == [(9, False)]


def test_leftovers_go_and_everything_else_stays(paths: PoolPaths, writer: StateWriter) -> None:
    with writer.transaction():
        writer.add_segment_of_batch("segment-000001.parquet", ((0, 1),), 1, 1, 1)
    litter = [folder / f"{TEMPORARY_PREFIX}x" for folder in (paths.root, paths.results, paths.requests)]
    litter.append(paths.segment(2))
    kept = [paths.segment(1), paths.results / "mine.parquet", paths.requests / "1.json", paths.worker_log(1)]
    for path in [*litter, *kept]:
        path.write_bytes(b"")
    with StateReader(paths.state_db) as reader:
        clean_up(paths, reader)
    assert not [path for path in litter if path.exists()]
    assert not [path for path in kept if not path.exists()]
    assert paths.slots.stat().st_size == MAX_SLOTS * SLOT_BYTES


def test_worker_numbers_go_on_after_the_highest_and_stray_files_do_not_matter(paths: PoolPaths) -> None:
    assert next_worker(paths) == 1
    for name in ("worker-0009.log", "worker-12345.log", "worker-0001 (copy).log", "worker-.log", "notes.txt"):
        (paths.logs / name).touch()
    assert next_worker(paths) == 12346


def test_what_may_have_run_before_the_supervisor_died_is_at_a_further_attempt(
    paths: PoolPaths, writer: StateWriter
) -> None:
    with writer.transaction():
        writer.add_successes(((0, 3),), 3, "", b"", 1)
        writer.set_attempts([(5, 3, 2)])
    with StateReader(paths.state_db) as reader:
        raise_attempts(reader, writer, [(-4, 5, 1), (5, 6, 3), (7, 8, 9)], 10)
        assert reader.attempts() == {3: (2, 1), 4: (2, 1), 5: (4, 2)}
        scheduler = Scheduler(slots=1, udf=1, retries=0, max_crashes=3)
        assert fill(scheduler, reader, 10) == TasksAdded(((6, 10),))
    # Neighbours at one attempt are one range, and nothing is remembered of tasks against which nothing counts.
    assert [(each.low, each.high, each.attempt) for each in scheduler._pending] == [(3, 5, 2), (5, 6, 4)]
    assert not scheduler._histories
