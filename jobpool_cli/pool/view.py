"""A pool as it can be read: how it is doing, what came of its tasks; nothing here changes anything.

Heavy libraries are imported by the methods that need them; asking how a pool is doing needs none.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobpool_cli.errors import MachineError, NoSuchPoolError, UsageError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import Failure, FailureGroup, PoolState, PoolStatus, RunningTask, TaskState
from jobpool_cli.store import durable, ownership
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.slots import read_running, refusals
from jobpool_cli.store.state.look import look
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.supervisor.lock import is_held

if TYPE_CHECKING:
    import pyarrow as pa

    from jobpool_cli.store.changes import Watch
    from jobpool_cli.store.logs import TaskLog, WorkerOutput


class PoolView:
    """One pool, read only; ``JobPool`` adds what acts on it."""

    def __init__(self, root: Path) -> None:
        """Bind to a pool directory; use ``open`` to find one by name."""
        self.paths = PoolPaths(root)
        ownership.check_readable(root)
        self._seen = self._file_of_manifest()
        self.manifest = Manifest.read(self.paths.pool_json)

    def __repr__(self) -> str:
        """Name the pool."""
        return f"<JobPool {self.name}: {self.n_jobs} tasks>"

    def __len__(self) -> int:
        """Return the number of tasks."""
        return self.n_jobs

    @property
    def name(self) -> str:
        """The pool's name: its folder's, so that a renamed folder is a renamed pool."""
        return self.paths.root.name

    @property
    def n_jobs(self) -> int:
        """The number of tasks."""
        return self.manifest.n_jobs

    def is_live(self) -> bool:
        """Return whether a supervisor works on the pool."""
        return is_held(self.paths.lock)

    def _is_held(self) -> bool:
        """Return whether a full disk keeps the pool's supervisor from going on."""
        return self.is_live() and refusals(self.paths.slots)[0] != 0

    def snapshot(self) -> PoolStatus:
        """Return one look at the pool; costs the same for three tasks as for ten million."""
        # Whoever holds the lock is asked for first: a supervisor that ends right afterwards has left its counters.
        live = self.is_live()
        with self._reader() as reader:
            return look(self.paths, self.manifest, reader, live=live)

    def running_tasks(self) -> Sequence[RunningTask]:
        """Return what the workers run right now."""
        running = read_running(self.paths.slots) if self.is_live() else []
        return [each for each in running if each.task < self.n_jobs]

    def watch(self) -> Watch:
        """Return a watch, which tells with each look what ended since the one before."""
        from jobpool_cli.store.changes import Watch  # noqa: PLC0415 - `status` and `is` do without

        return Watch(self.paths)

    def failures(self, tasks: Sequence[int] | None = None, *, history: bool = False) -> Sequence[Failure]:
        """Return the failures, by task; with ``history`` also those of attempts that were followed by another."""
        with self._reader() as reader:
            return reader.failures(tasks, history=history)

    def first_failure(self) -> Failure | None:
        """Return the failure of the first failed task, in the order of the arguments."""
        with self._reader() as reader:
            found = reader.failures(limit=1)
        return found[0] if found else None

    def failure_groups(self) -> Sequence[FailureGroup]:
        """Return the failures grouped by exception type and place in the user's code, most frequent first."""
        with self._reader() as reader:
            return reader.failure_groups()

    def tasks_of_group(self, group: FailureGroup, limit: int | None = None) -> Sequence[int]:
        """Return the tasks of a group of failures, ascending, at most so many."""
        with self._reader() as reader:
            return reader.tasks_of_group(group, limit)

    def constants(self) -> dict[str, object]:
        """Return the arguments that are the same for every task; those that are no plain values are described."""
        from jobpool_cli.store.arguments.stored import show_constants  # noqa: PLC0415

        return show_constants(self.paths.args)

    def arguments(self, tasks: Sequence[int] | None = None) -> pa.Table:
        """Return the arguments, a row per task; UsageError where there is no such task."""
        from jobpool_cli.store.arguments.stored import check_rows, read_table  # noqa: PLC0415

        self._check_there()
        self.check_tasks(tasks or ())
        table = read_table(self.paths.args, tasks)
        return table if tasks is not None else check_rows(table, self.n_jobs)

    def calls(self, tasks: Sequence[int] | None = None) -> tuple[pa.Table, pa.Table]:
        """Return the numbers of tasks and, in as many rows, all that their calls are given, constants included."""
        from jobpool_cli.store.tasks import with_constants  # noqa: PLC0415

        arguments = self.arguments(tasks)
        return with_constants(arguments, self.constants(), range(self.n_jobs) if tasks is None else tasks)

    def task_table(
        self,
        tasks: Sequence[int] | None = None,
        states: Sequence[TaskState] | None = None,
        limit: int | None = None,
    ) -> pa.Table:
        """Return one row per task, at most so many, with its state, attempt, times, worker and error."""
        from jobpool_cli.store.tasks import task_table  # noqa: PLC0415

        self.check_tasks(tasks or ())
        with self._reader() as reader:
            return task_table(self.paths, reader, self.n_jobs, self.running_tasks(), tasks, states, limit)

    def task_logs(
        self, tasks: Sequence[int] | None = None, *, attempt: int | None = None, tail: int | None = None
    ) -> Iterator[TaskLog]:
        """Yield what tasks wrote, ascending; of running tasks what they have written so far.

        Args:
            tasks: only these, also if they wrote nothing; without it all that wrote anything.
            attempt: only this one, instead of each task's latest.
            tail: only so many last lines of each.
        """
        from jobpool_cli.store.logs import STILL_OPEN, end_of_running, find_logs  # noqa: PLC0415

        self.check_tasks(tasks or ())
        running = self.running_tasks()
        with self._reader() as reader:
            for found in find_logs(self.paths, reader, running, tasks, attempt):
                log = found
                if log.end == STILL_OPEN:
                    log = end_of_running(log, self.paths, reader, self.running_tasks)
                log = log.existing()
                yield log if tail is None else log.last_lines(tail)

    def follow_log(self, task: int, *, tail: int | None = None) -> Iterator[tuple[TaskLog, bytes]]:
        """Yield what a task writes, as it writes it, until it has ended; ``tail``: from its last N lines on."""
        from jobpool_cli.store.logs import follow_task  # noqa: PLC0415

        self.check_tasks([task])
        with self._reader() as reader:
            yield from follow_task(self.paths, reader, task, self.running_tasks, self._is_over, tail)

    def follow_logs(self) -> Iterator[WorkerOutput]:
        """Yield what all workers write, as they write it, until the pool is done or interrupted."""
        from jobpool_cli.store.logs import follow_workers  # noqa: PLC0415

        return follow_workers(self.paths, self.running_tasks, self._is_over)

    def check_tasks(self, tasks: Sequence[int]) -> None:
        """Make sure that there are such tasks.

        Raises:
            UsageError: names the first that is not there.
        """
        for task in tasks:
            if not 0 <= task < self.n_jobs:
                there = f"has tasks 0 to {self.n_jobs - 1}" if self.n_jobs else "has no tasks"
                raise UsageError(f"there is no task {task}: {self.name} {there}")

    def iter_results(self, tasks: Sequence[int] | None = None) -> Iterator[tuple[int, object]]:
        """Yield (task, result) of the tasks that have succeeded so far, ascending."""
        return itertools.chain.from_iterable(each.items() for each in self.result_batches(tasks))

    def result_batches(self, tasks: Sequence[int] | None = None) -> Iterator[dict[int, object]]:
        """Yield the results of the tasks that have succeeded so far by task, ascending, some thousands at a time."""
        from jobpool_cli.store.outcomes.results import read_results  # noqa: PLC0415

        self.check_tasks(tasks or ())
        self._check_owner()
        with self._reader() as reader:
            yield from read_results(self.paths, reader, tasks)

    def _is_over(self) -> bool:
        return not self.is_live() or self.snapshot().state is PoolState.DONE

    def _is_sealed(self) -> bool:
        with self._reader() as reader:
            return reader.counters().unsealed == 0

    def _check_owner(self) -> None:
        """Refuse to run, or load pickles from, a pool that is not the user's alone.

        Raises:
            MachineError: it belongs to another user, or others may write to a part of it.
        """
        self._check_there()
        ownership.check_alone(self.paths.root)

    def _check_there(self) -> None:
        """Make sure that the folder still holds the pool that was opened; costs a look at one file.

        Raises:
            NoSuchPoolError: the pool was deleted, or its folder renamed; there may be another one of its name.
        """
        found = self._file_of_manifest()
        if found == self._seen:
            return
        if found is None:
            # Without its description alone a pool that is open can still be read.
            if self.paths.root.exists():
                return
            raise NoSuchPoolError(
                f"the pool {self.name} is gone: it was deleted, or its folder renamed",
                "see what there is: jobpool list, or JobPool.list()",
            )
        if Manifest.read(self.paths.pool_json).id != self.manifest.id:
            raise NoSuchPoolError(
                f"the pool {self.name} that was opened is gone, and another one has its name",
                f"open that one: JobPool.open({self.name!r})",
            )
        self._seen = found

    def _file_of_manifest(self) -> tuple[int, int, int] | None:
        """What tells one pool.json from another that took its place; None if there is none."""
        try:
            found = os.stat(self.paths.pool_json)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns

    def _reader(self) -> StateReader:
        self._check_there()
        if not self.is_live():
            durable.sync_commits(self.paths.state_db)
        try:
            return StateReader(self.paths.state_db)
        except PermissionError as error:
            raise MachineError(f"{self.paths.state_db} may not be read: {error.strerror}") from error
