"""The front door: a pool on disk, and one method for each thing that a user can do with it.

Heavy libraries are imported by the methods that need them; asking how a pool is doing needs none.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from jobpool_cli.errors import (
    ConflictError,
    JobPoolError,
    MachineError,
    TasksFailedError,
    WaitTimeoutError,
)
from jobpool_cli.finding import LAST, by_age, find
from jobpool_cli.layout import PoolPaths, home_folder, pools_folder
from jobpool_cli.model import PoolOptions, PoolState, PoolStatus, TaskState
from jobpool_cli.store.state.look import SHUTTING_DOWN
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.view import PoolView

if TYPE_CHECKING:
    from jobpool_cli.store.outcomes.collect import Collected
    from jobpool_cli.submit import Submission
    from jobpool_cli.supervisor.launch import Standby

# Waiting looks often at first, for pools that end at once, and then at a human pace.
FIRST_LOOK_SECONDS = 0.01
SLOWEST_LOOK_SECONDS = 0.2
# The end is seen late by about this part of the wait, however wrong the guess of when it comes.
LATE_BY = 0.01
# A live supervisor answers within a turn of its loop; one that is stopped or starved gets this long.
ANSWER_SECONDS = 30.0


class JobPool(PoolView):
    """One pool.

    Example:
        >>> pool = JobPool.open("last")  # doctest: +SKIP
        >>> pool.snapshot().state  # doctest: +SKIP
        <PoolState.DONE: 'done'>
    """

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

    # --- making and deleting pools

    @staticmethod
    def check(
        udf: str,
        source: str,
        *,
        constants: Mapping[str, str] | None = None,
        options: PoolOptions | None = None,
        input_format: str | None = None,
        stdin: BinaryIO | None = None,
    ) -> Submission:
        """Check a UDF and its arguments without changing anything.

        Args:
            udf: ``file.py`` or ``file.py:name``.
            source: a file of arguments, or ``-`` for ``stdin``.
            constants: arguments that are the same for every task.
            options: how the pool shall run.
            input_format: of the source, where neither its name nor its content tells.
            stdin: read for ``-``.

        Raises:
            InputError: says what does not fit, where, and what to do.
        """
        from jobpool_cli.submit import check  # noqa: PLC0415 - pyarrow and pydantic, only for this

        return check(
            udf,
            source,
            constants=constants or {},
            options=options or PoolOptions(),
            input_format=input_format,
            stdin=stdin,
        )

    @staticmethod
    def stand_by(options: PoolOptions) -> Standby:
        """Start supervisor and workers ahead of a pool that is checked and submitted in the ``with`` block of it."""
        from jobpool_cli.supervisor.launch import Standby  # noqa: PLC0415 - `status` starts nothing

        return Standby(options.processes)

    @classmethod
    def submit(
        cls,
        submission: Submission,
        *,
        name: str | None = None,
        home: str | None = None,
        standby: Standby | None = None,
    ) -> JobPool:
        """Make a pool of what was checked, and start it.

        Args:
            submission: from ``check``.
            name: the pool's name; by default the function's name with a number.
            home: where pools are kept.
            standby: from ``stand_by``.

        Raises:
            ConflictError: there is a pool of that name.
            InputError: the UDF does not load in a worker; no pool is left.
            MachineError: the disk or the machine refuses.
        """
        from jobpool_cli.submit import submit  # noqa: PLC0415

        return cls(submit(submission, home_folder(home), name, standby=standby).root)

    @staticmethod
    def remove_remains(name: str, *, home: str | None = None, force: bool = False) -> bool:
        """Delete a pool that cannot be opened, or that a killed `rm` left half deleted; False if there is none.

        Raises:
            ConflictError: it is being worked on, and ``force`` is not given.
        """
        from jobpool_cli.submit import finish_removal, remove  # noqa: PLC0415

        pools = pools_folder(home_folder(home))
        if not (pools / name).exists():
            return finish_removal(pools, name)
        remove(pools / name, force=force)
        return True

    # --- waiting

    def wait(
        self,
        timeout: float | None = None,
        *,
        on_look: Callable[[PoolStatus], None] | None = None,
        look_every: float = SLOWEST_LOOK_SECONDS,
    ) -> PoolStatus:
        """Wait until all tasks are finished and every result is in ``results/``.

        Args:
            timeout: seconds.
            on_look: called with each look at the pool.
            look_every: seconds from one look to the next while the end is far; a look takes a core a millisecond.

        Raises:
            WaitTimeoutError: the time is over; the pool goes on.
            ConflictError: nobody works on the pool: it would never end. On a paused pool the wait goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        began = time.monotonic()
        while True:
            status = self.snapshot()
            if on_look is not None:
                on_look(status)
            if status.state is PoolState.DONE and self._is_sealed():
                return status
            if status.state is PoolState.INTERRUPTED and not self.is_live():
                left = status.n_jobs - status.finished
                raise ConflictError(
                    f"{self.name} is interrupted{f' with {left} tasks unfinished' if left else ''}: "
                    f"{status.reason or 'nobody works on it'}",
                    f"go on with: jobpool resume {self.name}",
                )
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(
                    f"{self.name} was not done within {timeout:g} s: {status.finished} of {status.n_jobs} tasks are"
                    " finished",
                    "it goes on; wait again, or see: jobpool status " + self.name,
                )
            now = time.monotonic()
            pause = _pause(now - began, status, look_every)
            time.sleep(pause if deadline is None else min(pause, max(0.0, deadline - now)))

    # --- acting on it

    def cancel(self, *, running: bool = False, wait: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """Cancel what is pending; what ended stays readable.

        Args:
            running: stop the running tasks, too.
            wait: return when the pool is done.
            timeout: seconds, for the answer and the wait together.

        Returns:
            the numbers of tasks ``cancelled`` and of those still in hand (``running``).

        Raises:
            WaitTimeoutError: the time is over; the request stands.
        """
        if self.snapshot().state is PoolState.DONE:
            return {"cancelled": 0, "running": 0}
        deadline = None if timeout is None else time.monotonic() + timeout
        answer = self._ask("cancel", {"running": running}, timeout)
        if wait:
            self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return answer

    def pause(self) -> dict[str, Any]:
        """Hand out no further task; running ones end. Returns under ``running`` how many those are.

        Raises:
            ConflictError: the pool is done or interrupted.
        """
        status = self.snapshot()
        if status.state is not PoolState.RUNNING and status.state is not PoolState.PAUSED:
            raise ConflictError(f"{self.name} is {status.state}, there is nothing to pause")
        return self._ask("pause", {})

    def resume(self) -> PoolStatus:
        """Go on after an interruption or a pause; only what is unfinished runs.

        A shutdown that is under way is called off.

        Raises:
            ConflictError: it runs already, or is done.
        """
        status = self.snapshot()
        if status.state is PoolState.DONE:
            raise ConflictError(f"{self.name} is done", f"to run failed tasks again: jobpool retry {self.name}")
        if status.reason == SHUTTING_DOWN:
            self._ask("resume", {})
            return self.snapshot()
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
        self,
        tasks: Sequence[int] | None = None,
        *,
        cancelled: bool = False,
        udf: str | None = None,
        kind: str | None = None,
        at: str | None = None,
    ) -> dict[str, Any]:
        """Run failed tasks again, in the same pool; also cancelled ones if asked, with mended code if given.

        Args:
            tasks: only these; they must be failed or cancelled.
            cancelled: take up cancelled tasks, too.
            udf: mended code, ``file.py`` or ``file.py:name``.
            kind: only what failed with this exception type.
            at: only what failed at this place: ``file``, ``file:line``, or ``-`` for none in the user's code.

        Returns:
            the numbers ``retried`` and ``cancelled`` of tasks taken up; with ``udf`` also of those that were
            ``pending`` anyway and will run the mended code. Where no task is taken up, nothing changes.

        Raises:
            ConflictError: a task of ``tasks`` is neither failed nor cancelled.
            InputError: the mended code does not load, or does not take the arguments.
            UsageError: there is no such task.
        """
        self._check_owner()
        with self._reader() as reader, reader.snapshot():
            failed = reader.failed_tasks()
            given_up = reader.cancelled_ranges()
            alike = None if kind is None and at is None else _tasks_alike(reader, kind, at)
        if alike is not None:
            tasks = alike if tasks is None else sorted(set(alike).intersection(tasks))
            if not tasks:
                return {"retried": 0, "cancelled": 0}
        if tasks is not None:
            self._check_retryable(tasks, set(failed), given_up)
            cancelled = True
        if tasks is None and not failed and not (cancelled and given_up):
            return {"retried": 0, "cancelled": 0}
        details: dict[str, Any] = {"tasks": list(tasks) if tasks is not None else None, "cancelled": cancelled}
        if udf is not None:
            from jobpool_cli.submit import mend  # noqa: PLC0415 - pyarrow and pydantic, only for this

            details["udf"] = mend(udf, self.paths, self.n_jobs, tasks, cancelled=cancelled)
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
        """Stop working on the pool: running tasks end (or, without ``wait``, are stopped); the rest stays pending.

        Args:
            wait: let the running tasks end.
            timeout: seconds until they must have.

        Raises:
            WaitTimeoutError: the time is over; the shutdown goes on.
            ConflictError: somebody resumed the pool meanwhile.
        """
        if not self.is_live():
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        self._ask("shutdown", {"kill": not wait}, timeout)
        while self.is_live():
            status = self.snapshot()
            if status.state in (PoolState.RUNNING, PoolState.PAUSED) and status.reason != SHUTTING_DOWN:
                raise ConflictError(f"{self.name} goes on: it was resumed before it had shut down")
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"{self.name} did not end within {timeout:g} s", "its running tasks go on")
            time.sleep(FIRST_LOOK_SECONDS)

    def remove(self, *, force: bool = False) -> None:
        """Delete the pool and everything in it; a running one only by force, its processes first.

        Raises:
            ConflictError: it is being worked on.
        """
        from jobpool_cli.submit import remove  # noqa: PLC0415

        if force and self.is_live():
            # Tasks get their grace period; whoever does not end by then is killed.
            with contextlib.suppress(JobPoolError):
                self.shutdown(wait=False, timeout=self.manifest.options.grace + 2.0)
        remove(self.paths.root, force=force)

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

    # --- what came of it

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
            ignore_exceptions: leave failed and cancelled tasks out instead of raising.
            flatten: where every result is a table, the rows of all; otherwise one column ``result``.
            drop_index: index by position instead of by the arguments.
            partial: take what there is now instead of waiting.
            timeout: wait no longer than so many seconds.

        Raises:
            ConflictError: nobody works on the pool, which is not done.
            InputError: the results' columns do not unite.
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
        return assemble(
            parts,
            self.arguments(),
            flatten=flatten,
            drop_index=drop_index,
            leave_out_unreadable=ignore_exceptions,
        )

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


def _pause(waited: float, status: PoolStatus, longest: float) -> float:
    """Return how long to wait for the next look: half of what seems to be left, so that the end is soon seen."""
    done = status.finished / max(status.n_jobs, 1)
    left = waited * (1 - done) / done if done else waited
    return min(longest, max(FIRST_LOOK_SECONDS, waited * LATE_BY, left / 2))


def _tasks_alike(reader: StateReader, kind: str | None, at: str | None) -> list[int]:
    """Return the failed tasks to whose failure a description fits, ascending."""
    groups = [group for group in reader.failure_groups() if group.is_like(kind, at)]
    return sorted(task for group in groups for task in reader.tasks_of_group(group))


def _launch(paths: PoolPaths) -> None:
    from jobpool_cli.supervisor.launch import launch  # noqa: PLC0415 - `status` starts nothing

    launch(paths)
