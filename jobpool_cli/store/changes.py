"""What ended since one last looked: for whoever watches a pool, at a cost that does not grow with the pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import Changes, Ended, Failure, TaskState
from jobpool_cli.store.ranges import merged, without
from jobpool_cli.store.state.reader import StateReader, to_datetime

# Where more than this end between two looks, nobody reads them one by one.
LISTED_SUCCESSES = 50
LISTED_FAILURES = 10


class Watch:
    """Looks at a pool again and again; the first look tells what had ended before it."""

    def __init__(self, paths: PoolPaths) -> None:
        """Watch a pool."""
        self._paths = paths
        self._failures = 0
        self._counts: Counter[TaskState] = Counter()
        # Successes that were told already; None where they were too many to be kept track of.
        self._seen: list[tuple[int, int]] | None = []

    def look(self) -> Changes:
        """Return what ended since the last look."""
        with StateReader(self._paths.state_db) as reader:
            others: Counter[TaskState] = Counter()
            with reader.snapshot():
                counters = reader.counters()
                (n_failed, n_again), self._failures, failures = reader.failures_since(self._failures, LISTED_FAILURES)
                n_succeeded = counters.success - self._counts[TaskState.SUCCESS]
                fresh = self._fresh_successes(reader, n_succeeded)
            listed = [_of_failure(failure) for failure in failures]
            if fresh:
                listed += _successes(self._paths, reader, fresh)
            elif n_succeeded > 0:
                others[TaskState.SUCCESS] = n_succeeded
        listed_again = sum(not failure.current for failure in failures)
        if n_failed > len(failures) - listed_again:
            others[TaskState.ERROR] = n_failed - (len(failures) - listed_again)
        n_cancelled = counters.cancelled - self._counts[TaskState.CANCELLED]
        if n_cancelled > 0:
            others[TaskState.CANCELLED] = n_cancelled
        self._counts = Counter({TaskState.SUCCESS: counters.success, TaskState.CANCELLED: counters.cancelled})
        listed.sort(
            key=lambda ended: (ended.finished is not None and ended.finished.timestamp(), ended.task, ended.attempt)
        )
        return Changes(tuple(listed), others, n_again - listed_again)

    def _fresh_successes(self, reader: StateReader, many: int) -> list[tuple[int, int]]:
        """Return the ranges of new successes if they are few enough to be listed."""
        if many == 0:
            return []
        if many > LISTED_SUCCESSES:
            self._seen = None
            return []
        before, self._seen = self._seen, merged(reader.success_ranges())
        return without(self._seen, before) if before is not None else []


def _of_failure(failure: Failure) -> Ended:
    known = failure.started is not None and failure.duration is not None
    return Ended(
        failure.task,
        failure.attempt,
        failure.state,
        failure.started + timedelta(seconds=failure.duration) if known else failure.started,  # type: ignore[operator, arg-type]
        failure.duration,
        f"{failure.type}: {failure.message}" if failure.message else failure.type,
        failure.where,
        again=not failure.current,
    )


def _successes(paths: PoolPaths, reader: StateReader, ranges: Sequence[tuple[int, int]]) -> list[Ended]:
    """Look the times of a few successes up; most still wait in the inbox."""
    from jobpool_cli.store.outcomes.segments import read_outcomes  # noqa: PLC0415
    from jobpool_cli.store.outcomes.table import table_of  # noqa: PLC0415 - pyarrow, only when there is something to list

    columns = ["task", "attempt", "started", "duration_ns"]
    wanted = {task for low, high in ranges for task in range(low, high)}
    span = (ranges[0][0], ranges[-1][1])
    found: dict[int, Ended] = {}

    def take(table: object) -> None:
        rows = table.select(columns)  # type: ignore[attr-defined]
        started = rows.column("started").cast("int64")
        for task, attempt, begun, took in zip(
            *(rows.column(name).to_pylist() for name in ("task", "attempt")),
            started.to_pylist(),
            rows.column("duration_ns").to_pylist(),
            strict=True,
        ):
            if task in wanted:
                finished = to_datetime(begun + took // 1000)
                found[task] = Ended(task, attempt, TaskState.SUCCESS, finished, took / 1e9)

    for blob in reader.inbox_blobs(span):
        take(table_of(blob))
    if len(found) < len(wanted):
        missing = sorted(wanted - found.keys())
        for table in read_outcomes(paths, reader, columns, (missing[0], missing[-1] + 1)):
            take(table)
    return list(found.values())
