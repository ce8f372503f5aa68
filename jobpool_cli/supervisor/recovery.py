"""What is left to do in a pool, worked out from its state: at first everything, after an interruption the rest."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable

from jobpool_cli.layout import TEMPORARY_PREFIX, PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.ranges import contains, gaps
from jobpool_cli.store.slots import create_slots
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.state.writer import StateWriter
from jobpool_cli.supervisor.events import TasksAdded
from jobpool_cli.supervisor.scheduler import Scheduler

# A younger snapshot under a temporary name is being made by a `retry --udf` this very moment.
MENDING_SECONDS = 60.0


def clean_up(paths: PoolPaths, reader: StateReader) -> None:
    """Remove what a killed supervisor or command left half done: temporaries, and segments that were never recorded."""
    for folder in (paths.root, paths.results, paths.requests):
        durable.remove_temporaries(folder)
    for path in paths.udf.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > MENDING_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
    known = {segment.file for segment in reader.segments()}
    for path in paths.results.glob("segment-*.parquet"):
        if path.name not in known:
            path.unlink()
    create_slots(paths.slots)


def next_worker(paths: PoolPaths) -> int:
    """Return the first worker number that no log bears."""
    names = [path.stem.removeprefix("worker-") for path in paths.logs.glob("worker-*.log")]
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


def raise_attempts(reader: StateReader, writer: StateWriter, ran: Iterable[tuple[int, int, int]], n_jobs: int) -> None:
    """Put tasks that may have run before their supervisor died on a further attempt.

    Args:
        reader: of the pool's state.
        writer: of the pool's state.
        ran: (low, high, attempt), from ``store.slots.left_running``.
        n_jobs: how many tasks the pool has.
    """
    pending = gaps(_settled(reader), n_jobs)
    known = reader.attempts()
    raised = []
    for first, stop, attempt in ran:
        for low, high in pending:
            for task in range(max(first, low), min(stop, high)):
                present, since = known.get(task, (1, 1))
                if present == attempt:
                    raised.append((task, attempt + 1, since))
    with writer.transaction():
        writer.set_attempts(raised)


def fill(scheduler: Scheduler, reader: StateReader, n_jobs: int) -> TasksAdded:
    """Queue the tasks without an outcome; return those at their first attempt as the event that adds them.

    Tasks beyond their first attempt are queued here, with the crashes and failures that count against their limits.
    """
    settled = _settled(reader)
    pending = gaps(settled, n_jobs)
    later: list[tuple[int, int]] = []
    counted = reader.counted()
    scheduler.credit(reader.udf_versions().get(reader.counters().udf, 0))
    for task, (attempt, since) in reader.attempts().items():
        if not contains(pending, task):
            continue
        later.append((task, task + 1))
        crashes, failures = counted.get(task, (0, 0))
        scheduler.restore(task, attempt=attempt, since=since, crashes=crashes, failures=failures)
    return TasksAdded(gaps([*settled, *later], n_jobs))


def _settled(reader: StateReader) -> list[tuple[int, int]]:
    settled = [*reader.success_ranges(), *reader.cancelled_ranges()]
    return settled + [(task, task + 1) for task in reader.failed_tasks()]
