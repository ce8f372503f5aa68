"""What is left to do in a pool, worked out from its state: at first everything, after an interruption the rest."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable

from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.slots import create_slots
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.supervisor.events import TasksAdded
from jobpool_cli.supervisor.scheduler import Scheduler


def clean_up(paths: PoolPaths, reader: StateReader) -> None:
    """Remove what a killed supervisor or command left half done: temporaries, and segments that were never recorded."""
    for folder in (paths.root, paths.results, paths.requests):
        durable.remove_temporaries(folder)
    known = {segment.file for segment in reader.segments()}
    for path in paths.results.glob("segment-*.parquet"):
        if path.name not in known:
            path.unlink()
    create_slots(paths.slots)


def next_worker(paths: PoolPaths) -> int:
    """Return the first worker number that no log bears."""
    names = [path.stem.removeprefix("worker-") for path in paths.logs.glob("worker-*.log")]
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


def fill(scheduler: Scheduler, reader: StateReader, n_jobs: int) -> TasksAdded:
    """Queue the tasks without an outcome; return those at their first attempt as the event that adds them.

    Tasks beyond their first attempt are queued here, with the crashes and failures that count against their limits.
    """
    settled = [*reader.success_ranges(), *reader.cancelled_ranges()]
    settled += [(task, task + 1) for task in reader.failed_tasks()]
    pending = gaps(settled, n_jobs)
    attempts = reader.attempts()
    if not attempts:
        return TasksAdded(pending)
    later = [task for task in sorted(attempts) if _contains(pending, task)]
    counts: dict[int, Counter[bool]] = defaultdict(Counter)
    for failure in reader.failures(history=True):
        if failure.task in attempts and failure.attempt >= attempts[failure.task][1]:
            counts[failure.task][failure.type == "WorkerCrashed"] += 1
    for task in later:
        attempt, since = attempts[task]
        scheduler.restore_history(
            task, attempt=attempt, since=since, crashes=counts[task][True], failures=counts[task][False]
        )
    return TasksAdded(gaps([*settled, *((task, task + 1) for task in later)], n_jobs))


def gaps(ranges: Iterable[tuple[int, int]], size: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges of 0..size that none of the given half-open ranges covers."""
    found = []
    start = 0
    for low, high in sorted(each for each in ranges if each[0] < each[1]):
        if low > start:
            found.append((start, low))
        start = max(start, high)
    if start < size:
        found.append((start, size))
    return tuple(found)


def _contains(ranges: tuple[tuple[int, int], ...], task: int) -> bool:
    index = bisect_right(ranges, (task, 2**63)) - 1
    return index >= 0 and ranges[index][0] <= task < ranges[index][1]
