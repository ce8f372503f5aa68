"""The front door: a pool on disk, and one method for each thing that a user can do with it.

Heavy libraries are imported by the methods that need them; asking how a pool is doing needs none.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobpool_cli.errors import (
    ConflictError,
    MachineError,
    TasksFailedError,
    UsageError,
    WaitTimeoutError,
)
from jobpool_cli.finding import LAST, by_age, find
from jobpool_cli.layout import PoolPaths, home_folder
from jobpool_cli.model import Failure, PoolState, PoolStatus, RunningTask, TaskState
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.slots import read_running
from jobpool_cli.store.state.look import look
from jobpool_cli.store.state.reader import FailureGroup, StateReader
from jobpool_cli.supervisor.lock import is_held

if TYPE_CHECKING:
    import pyarrow as pa

    from jobpool_cli.store.changes import Watch
    from jobpool_cli.store.logs import TaskLog, WorkerOutput
    from jobpool_cli.store.outcomes.collect import Collected

# Waiting looks often at first, for pools that end at once, and then at a human pace.
FIRST_LOOK_SECONDS = 0.01
SLOWEST_LOOK_SECONDS = 0.2
# A live supervisor answers within a turn of its loop; one that is stopped or starved gets this long.
ANSWER_SECONDS = 30.0


class JobPool:
    """One pool.

    Example:
        >>> pool = JobPool.open("last")  # doctest: +SKIP
        >>> pool.snapshot().state  # doctest: +SKIP
        <PoolState.DONE: 'done'>
    """

    def __init__(self, root: Path) -> None:
        """Bind to a pool directory; use ``open`` to find one by name."""
        self.paths = PoolPaths(root)
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

    # --- finding pools

    @classmethod
    def open(cls, name: str = LAST, *, home: str | None = None) -> JobPool:
        """Open a pool by its name; ``last`` is the newest.

        Raises:
            NoSuchPoolError: there is none; names the nearest.
            DamagedPoolError: it is there, and unreadable.
        """
        return cls(find(name, home_folder(home)))

    @classmethod
    def list(cls, *, home: str | None = None) -> list[str]:
        """Return the names of all pools, oldest first."""
        return [root.name for root in by_age(home_folder(home))]

    # --- how it is doing

    def is_live(self) -> bool:
        """Return whether a supervisor works on the pool."""
        return is_held(self.paths.lock)

    def snapshot(self) -> PoolStatus:
        """Return one look at the pool; costs the same for three tasks as for ten million."""
        # Whoever holds the lock is asked for first: a supervisor that ends right afterwards has left its counters.
        live = self.is_live()
        with self._reader() as reader:
            return look(self.paths, self.manifest, reader, live=live)

    def running_tasks(self) -> Sequence[RunningTask]:
        """Return what the workers run right now."""
        return read_running(self.paths.slots) if self.is_live() else []

    def wait(self, timeout: float | None = None, *, on_look: Callable[[PoolStatus], None] | None = None) -> PoolStatus:
        """Wait until all tasks are finished and every result is in ``results/``.

        Args:
            timeout: seconds.
            on_look: called with each look at the pool.

        Raises:
            WaitTimeoutError: the time is over; the pool goes on.
            ConflictError: nobody works on the pool: it would never end. On a paused pool the wait goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_LOOK_SECONDS
        while True:
            status = self.snapshot()
            if on_look is not None:
                on_look(status)
            if status.state is PoolState.DONE and self._is_sealed():
                return status
            if status.state is PoolState.INTERRUPTED and not self.is_live():
                raise ConflictError(
                    f"{self.name} is interrupted with {status.n_jobs - status.finished} tasks unfinished: "
                    f"{status.reason or 'nobody works on it'}",
                    f"go on with: jobpool resume {self.name}",
                )
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(
                    f"{self.name} was not done within {timeout:g} s: {status.finished} of {status.n_jobs} tasks are"
                    " finished",
                    "it goes on; wait again, or see: jobpool status " + self.name,
                )
            time.sleep(pause if deadline is None else min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 1.5, SLOWEST_LOOK_SECONDS)

    def watch(self) -> Watch:
        """Return a watch, which tells with each look what ended since the one before."""
        from jobpool_cli.store.changes import Watch  # noqa: PLC0415 - `status` and `is` do without

        return Watch(self.paths)

    def _is_sealed(self) -> bool:
        if not self.is_live():
            return True
        with self._reader() as reader:
            return reader.inbox_rows() == 0

    # --- acting on it

    def cancel(self, *, running: bool = False, wait: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """Cancel what is pending; ``running`` tasks too if asked. Returns the numbers cancelled and still running."""
        if self.snapshot().state is PoolState.DONE:
            return {"cancelled": 0, "running": 0}
        deadline = None if timeout is None else time.monotonic() + timeout
        answer = self._ask("cancel", {"running": running}, timeout)
        if wait:
            self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return answer

    def pause(self) -> dict[str, Any]:
        """Hand out no further task; running ones end. Returns how many those are."""
        status = self.snapshot()
        if status.state is not PoolState.RUNNING and status.state is not PoolState.PAUSED:
            raise ConflictError(f"{self.name} is {status.state}, there is nothing to pause")
        return self._ask("pause", {})

    def resume(self) -> PoolStatus:
        """Go on after an interruption or a pause; only what is unfinished runs."""
        status = self.snapshot()
        if status.state is PoolState.DONE:
            raise ConflictError(f"{self.name} is done", f"to run failed tasks again: jobpool retry {self.name}")
        if status.state is PoolState.RUNNING:
            raise ConflictError(f"{self.name} is running already", f"watch it: jobpool tail {self.name}")
        if status.state is PoolState.INTERRUPTED:
            # Of two that resume at once, one finds the lock taken: that is a conflict, and is said.
            self._check_owner()
            _launch(self.paths)
            status = self.snapshot()
        if status.state is PoolState.PAUSED:
            self._ask("resume", {})
        return self.snapshot()

    def retry(
        self, tasks: Sequence[int] | None = None, *, cancelled: bool = False, udf: str | None = None
    ) -> dict[str, Any]:
        """Run failed tasks again, in the same pool; also cancelled ones if asked, with mended code if given.

        Args:
            tasks: only these; they must be failed or cancelled.
            cancelled: take up cancelled tasks, too.
            udf: mended code, ``file.py`` or ``file.py:name``.

        Returns:
            the numbers ``retried`` and ``cancelled`` of tasks taken up.
        """
        self._check_owner()
        with self._reader() as reader, reader.snapshot():
            failed = reader.failed_tasks()
            given_up = reader.cancelled_ranges()
        if tasks is not None:
            self._check_retryable(tasks, set(failed), given_up)
            cancelled = True
        details: dict[str, Any] = {"tasks": list(tasks) if tasks is not None else None, "cancelled": cancelled}
        if udf is not None:
            from jobpool_cli.submit import mend  # noqa: PLC0415 - pyarrow and pydantic, only for this

            again = list(tasks) if tasks is not None else failed
            details["udf"] = mend(udf, self.paths, again)
        elif not failed and not (cancelled and given_up):
            return {"retried": 0, "cancelled": 0}
        return self._ask("retry", details)

    def _check_retryable(self, tasks: Sequence[int], failed: set[int], cancelled: Sequence[tuple[int, int]]) -> None:
        self.check_tasks(tasks)
        for task in tasks:
            if task not in failed and not any(low <= task < high for low, high in cancelled):
                raise ConflictError(
                    f"task {task} is not failed or cancelled; what succeeded is final",
                    f"see its state: jobpool tasks {self.name} --task {task}",
                )

    def shutdown(self, *, wait: bool = True, timeout: float | None = None) -> None:
        """Stop working on the pool: running tasks end (or, without ``wait``, are stopped); the rest stays pending."""
        if not self.is_live():
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        self._ask("shutdown", {"kill": not wait}, timeout)
        while self.is_live():
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"{self.name} did not end within {timeout:g} s", "its running tasks go on")
            time.sleep(FIRST_LOOK_SECONDS)

    def remove(self, *, force: bool = False) -> None:
        """Delete the pool and everything in it; a running one only by force, its processes first."""
        from jobpool_cli.engines.processes import kill_marked  # noqa: PLC0415
        from jobpool_cli.submit import remove  # noqa: PLC0415

        if self.is_live():
            if not force:
                raise ConflictError(
                    f"{self.name} is being worked on",
                    f"wait for it, or stop and delete it: jobpool rm --force {self.name}",
                )
            with contextlib.suppress(WaitTimeoutError):
                self.shutdown(wait=False, timeout=10.0)
        kill_marked(self.manifest.id)
        remove(self.paths.root)

    def _ask(self, action: str, details: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Post a request and wait for its answer; start a supervisor where none lives to read it."""
        self._check_owner()
        limit = ANSWER_SECONDS if timeout is None else timeout
        deadline = time.monotonic() + limit
        from jobpool_cli.store import requests  # noqa: PLC0415 - only for those who ask for something

        request = requests.post(self.paths.requests, action, details)
        while True:
            with self._reader() as reader:
                answer = reader.answer(request.id)
            if answer is not None:
                break
            if not self.is_live():
                with contextlib.suppress(ConflictError):
                    _launch(self.paths)
            elif time.monotonic() >= deadline:
                raise WaitTimeoutError(
                    f"the supervisor of {self.name} did not answer within {limit:g} s",
                    "the request is kept and will be honoured as soon as it can",
                )
            time.sleep(FIRST_LOOK_SECONDS)
        if "error" in answer:
            raise MachineError(str(answer["error"]))
        if action in ("retry", "resume"):
            self._make_sure_it_runs()
        return answer

    def _make_sure_it_runs(self) -> None:
        # The supervisor that answered may have been on its way out.
        while self.snapshot().state is PoolState.INTERRUPTED and not self.is_live():
            with contextlib.suppress(ConflictError):
                _launch(self.paths)

    def _check_owner(self) -> None:
        """Refuse to run, or load pickles from, a pool that is somebody else's.

        Raises:
            MachineError: the pool belongs to another user.
        """
        owner = self.paths.root.stat().st_uid
        if owner != os.geteuid():
            raise MachineError(
                f"{self.name} belongs to user {owner}, you are user {os.geteuid()}",
                "its code and its pickles run with the rights of whoever loads them; let its owner do this",
            )

    # --- what came of it

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
        """Return the arguments that are the same for every task."""
        from jobpool_cli.store.arguments.stored import stored_constants  # noqa: PLC0415

        return stored_constants(self.paths.args)

    def arguments(self, tasks: Sequence[int] | None = None) -> pa.Table:
        """Return the arguments, a row per task."""
        from jobpool_cli.store.arguments.stored import read_table  # noqa: PLC0415

        self.check_tasks(tasks or ())
        return read_table(self.paths.args, tasks)

    def calls(self, tasks: Sequence[int] | None = None) -> tuple[pa.Table, pa.Table]:
        """Return the numbers of tasks and, in as many rows, all that their calls are given, constants included."""
        from jobpool_cli.store.tasks import with_constants  # noqa: PLC0415

        arguments = self.arguments(tasks)
        return with_constants(arguments, self.constants(), range(self.n_jobs) if tasks is None else tasks)

    def task_table(self, tasks: Sequence[int] | None = None, states: Sequence[TaskState] | None = None) -> pa.Table:
        """Return one row per task with its state, attempt, times, worker and error."""
        from jobpool_cli.store.tasks import task_table  # noqa: PLC0415

        self.check_tasks(tasks or ())
        with self._reader() as reader:
            return task_table(self.paths, reader, self.n_jobs, self.running_tasks(), tasks, states)

    def logs(
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
        """Yield what a task writes, as it writes it, until it has ended."""
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

    def _is_over(self) -> bool:
        return not self.is_live() or self.snapshot().state is PoolState.DONE

    def results_now(self, tasks: Sequence[int] | None = None) -> Iterator[tuple[int, object]]:
        """Yield (task, result) of the tasks that have succeeded so far, ascending."""
        from jobpool_cli.store.outcomes.results import read_results  # noqa: PLC0415

        self.check_tasks(tasks or ())
        self._check_owner()
        with self._reader() as reader:
            yield from read_results(self.paths, reader, tasks)

    def collect(
        self,
        *,
        ignore_exceptions: bool = False,
        flatten: bool = True,
        drop_index: bool = False,
        partial: bool = False,
        timeout: float | None = None,
    ) -> Collected:
        """Wait for all tasks and gather their results into one table.

        Args:
            ignore_exceptions: leave failed tasks out instead of raising.
            flatten: where every result is a table, the rows of all; otherwise one column ``result``.
            drop_index: index by position instead of by the arguments.
            partial: take what there is now instead of waiting.
            timeout: wait no longer than so many seconds.

        Raises:
            TasksFailedError: tasks failed or were cancelled, and neither option allows that.
            WaitTimeoutError: the pool was not done in time.
        """
        from jobpool_cli.store.outcomes.collect import assemble  # noqa: PLC0415
        from jobpool_cli.store.outcomes.segments import read_outcomes  # noqa: PLC0415

        status = self.snapshot() if partial else self.wait(timeout)
        if not (ignore_exceptions or partial):
            self._check_complete(status)
        self._check_owner()
        with self._reader() as reader:
            parts = [*read_outcomes(self.paths, reader, ["task", "result", "result_pickle"])]
        return assemble(parts, self.arguments(), flatten=flatten, drop_index=drop_index)

    def _check_complete(self, status: PoolStatus) -> None:
        cancelled = status.counts[TaskState.CANCELLED]
        first = self.first_failure()
        if first is not None:
            raise TasksFailedError(
                f"{status.failed} of {status.n_jobs} tasks failed; the first is task {first.task}:"
                f" {first.type}: {first.message}",
                f"see all: jobpool errors {self.name}; leave them out: --ignore-exceptions",
            )
        if cancelled:
            raise TasksFailedError(
                f"{cancelled} of {status.n_jobs} tasks were cancelled",
                f"run them: jobpool retry --cancelled {self.name}; leave them out: --ignore-exceptions",
            )

    def _reader(self) -> StateReader:
        try:
            return StateReader(self.paths.state_db)
        except PermissionError as error:
            raise MachineError(f"{self.paths.state_db} may not be read: {error.strerror}") from error


def _launch(paths: PoolPaths) -> None:
    from jobpool_cli.supervisor.launch import launch  # noqa: PLC0415 - `status` starts nothing

    launch(paths)
