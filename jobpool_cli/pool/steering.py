"""What one can do to a pool: wait for it, pause and resume it, cancel, retry, shut down, delete.

Whatever waits is written in steps (``twins``), so that the plain method and its coroutine are one piece of code. A
request is a small file that the supervisor finds; its answer is in the state database.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from jobpool_cli.errors import ConflictError, JobPoolError, MachineError, UsageError, WaitTimeoutError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import PoolState, PoolStatus
from jobpool_cli.pool.view import PoolView
from jobpool_cli.store import ownership
from jobpool_cli.store.state.look import SHUTTING_DOWN
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.twins import Steps, both

# Waiting looks often at first, for pools that end at once, and then at a human pace.
FIRST_LOOK_SECONDS = 0.01
SLOWEST_LOOK_SECONDS = 0.2
# The end is seen late by about this part of the wait, however wrong the guess of when it comes.
LATE_BY = 0.01
# A live supervisor answers within a turn of its loop; one that is stopped or starved gets this long.
ANSWER_SECONDS = 30.0
# After the last task a supervisor has little left to do.
LEAVING_SECONDS = 5.0
# A supervisor that has no room for its answer carries the request out all the same, as far as that is possible.
HELD_SECONDS = 1.0
HELD_HINT = "free some space there; the request is kept, and its answer is written as soon as there is room"


class PoolSteering(PoolView):
    """One pool, and what acts on it."""

    def _follow(
        self,
        timeout: float | None = None,
        *,
        on_look: Callable[[PoolStatus], None] | None = None,
        look_every: float = SLOWEST_LOOK_SECONDS,
    ) -> Steps[PoolStatus]:
        """Look at the pool again and again until all tasks are finished and every result is in ``results/``.

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
                    f"go on with: jobpool resume {self.name}, or pool.resume()",
                )
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(
                    f"{self.name} was not done within {timeout:g} s: {status.finished} of {status.n_jobs} tasks are"
                    " finished",
                    f"it goes on; wait again, or see: jobpool status {self.name}, or pool.status()",
                )
            now = time.monotonic()
            pause = _until_next_look(now - began, status, look_every)
            yield pause if deadline is None else min(pause, max(0.0, deadline - now))

    follow, follow_async = both(_follow)

    def _cancel(
        self,
        wait: bool = False,
        *,
        running: bool = False,
        timeout: float | None = None,
    ) -> Steps[dict[str, Any]]:
        """Cancel what is pending; what ended stays readable.

        Args:
            running: stop the running tasks, too.
            wait: return when the pool is done.
            timeout: seconds, for the answer and the wait together.

        Returns:
            the numbers of tasks ``cancelled`` and of those still in hand (``running``).

        Raises:
            WaitTimeoutError: the time is over; the request stands.

        Example:
            >>> pool.cancel()
            {'cancelled': 0, 'running': 0}
        """
        if self.snapshot().state is PoolState.DONE:
            return {"cancelled": 0, "running": 0}
        deadline = None if timeout is None else time.monotonic() + timeout
        answer = yield from self._ask("cancel", {"running": running}, timeout)
        if wait:
            yield from self._follow(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return answer

    cancel, cancel_async = both(_cancel)

    def _pause(self) -> Steps[dict[str, Any]]:
        """Hand out no further task; running ones end. Returns under ``running`` how many those are.

        Raises:
            ConflictError: the pool is done or interrupted.

        Example:
            >>> naps = nap.map([0.2] * 5, max_workers=1)
            >>> naps.pause()["running"] in (0, 1)
            True
            >>> naps.resume().state
            <PoolState.RUNNING: 'running'>
        """
        status = self.snapshot()
        if status.state is not PoolState.RUNNING and status.state is not PoolState.PAUSED:
            raise ConflictError(f"{self.name} is {status.state}, there is nothing to pause")
        return (yield from self._ask("pause", {}))

    pause, pause_async = both(_pause)

    def _resume(self) -> Steps[PoolStatus]:
        """Go on after an interruption or a pause; only what is unfinished runs.

        A shutdown that is under way is called off.

        Raises:
            ConflictError: it runs already, or is done.

        Example:
            >>> naps = nap.map([0.2] * 5, max_workers=1)
            >>> naps.shutdown()
            >>> naps.done(), naps.resume().state
            (False, <PoolState.RUNNING: 'running'>)
        """
        status = self.snapshot()
        if status.state is PoolState.DONE:
            raise ConflictError(
                f"{self.name} is done", f"to run failed tasks again: jobpool retry {self.name}, or pool.retry()"
            )
        if status.reason == SHUTTING_DOWN:
            yield from self._ask("resume", {})
            return self.snapshot()
        if status.state is PoolState.RUNNING:
            raise ConflictError(
                f"{self.name} is running already", f"watch it: jobpool tail {self.name}, or pool.tail()"
            )
        if status.state is PoolState.INTERRUPTED:
            # Of two that resume at once, one finds the lock taken: that is a conflict, and is said.
            self._check_code()
            _launch(self.paths)
            status = self.snapshot()
        if status.state is PoolState.PAUSED:
            yield from self._ask("resume", {})
        return self.snapshot()

    resume, resume_async = both(_resume)

    def _retry(
        self,
        tasks: Sequence[int] | None = None,
        *,
        cancelled: bool = False,
        udf: str | Callable[..., Any] | None = None,
        kind: str | None = None,
        at: str | None = None,
        damaged: bool = False,
    ) -> Steps[dict[str, Any]]:
        """Run failed tasks again, in the same pool; also cancelled ones if asked, with mended code if given.

        Args:
            tasks: only these; they must be failed or cancelled.
            cancelled: take up cancelled tasks, too.
            udf: mended code: a function, or ``file.py`` or ``file.py:name``.
            kind: only what failed with this exception type.
            at: only what failed at this place: ``file``, ``file:line``, or ``-`` for none in the user's code.
            damaged: instead of failed tasks, those that succeeded and whose results cannot be read any more.

        Returns:
            the numbers ``retried`` and ``cancelled`` of tasks taken up; with ``udf`` also of those that were
            ``pending`` anyway and will run the mended code. Where no task is taken up, nothing changes.

        Raises:
            ConflictError: a task of ``tasks`` is neither failed nor cancelled.
            InputError: the mended code does not load, or does not take the arguments.
            UsageError: there is no such task; or ``damaged`` goes together with something else.

        Example:
            >>> quotients.retry()
            {'retried': 1, 'cancelled': 0}
            >>> quotients.wait()
            >>> quotients.retry(udf=lambda x: 1 / x if x else float("inf"))
            {'retried': 1, 'cancelled': 0, 'pending': 0}
            >>> quotients.results()
            [1.0, inf]
        """
        self._check_owner()
        if damaged:
            if tasks is not None or cancelled or udf is not None or kind is not None or at is not None:
                raise UsageError("damaged results are taken up alone: no other choice of tasks, and no mended code")
            return (yield from self._retry_damaged())
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
        if udf is None:
            self._check_code()
        details: dict[str, Any] = {"tasks": list(tasks) if tasks is not None else None, "cancelled": cancelled}
        if udf is not None:
            from jobpool_cli.submit import mend  # noqa: PLC0415 - pyarrow and pydantic, only for this

            details["udf"] = mend(udf, self.paths, self.n_jobs, tasks, cancelled=cancelled)
        return (yield from self._ask("retry", details))

    retry, retry_async = both(_retry)

    def _retry_damaged(self) -> Steps[dict[str, Any]]:
        from jobpool_cli.store.outcomes.opening import damaged_segments  # noqa: PLC0415 - pyarrow, only for this

        with self._reader() as reader:
            found = damaged_segments(self.paths, reader.segments())
            if not found and not reader.damaged_blobs():
                return {"retried": 0, "cancelled": 0}
        return (yield from self._ask("retry", {"damaged": True, "segments": found}))

    def _check_retryable(self, tasks: Sequence[int], failed: set[int], cancelled: Sequence[tuple[int, int]]) -> None:
        self.check_tasks(tasks)
        for task in tasks:
            if task not in failed and not any(low <= task < high for low, high in cancelled):
                raise ConflictError(
                    f"task {task} is not failed or cancelled; what succeeded is final",
                    f"see its state: jobpool tasks {self.name} --task {task}, or pool[{task}]",
                )

    def _shutdown(
        self,
        wait: bool = True,
        *,
        timeout: float | None = None,
    ) -> Steps[None]:
        """Stop working on the pool: running tasks end (or, without ``wait``, are stopped); the rest stays pending.

        Args:
            wait: let the running tasks end.
            timeout: seconds until they must have.

        Raises:
            WaitTimeoutError: the time is over; the shutdown goes on.
            ConflictError: somebody resumed the pool meanwhile.

        Example:
            >>> pool.shutdown()
        """
        if not self.is_live():
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        yield from self._ask("shutdown", {"kill": not wait}, timeout)
        while self.is_live():
            status = self.snapshot()
            goes_on = status.state in (PoolState.RUNNING, PoolState.PAUSED) and status.reason != SHUTTING_DOWN
            if goes_on and not self._is_held():
                raise ConflictError(f"{self.name} goes on: it was resumed before it had shut down")
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"{self.name} did not end within {timeout:g} s", "its running tasks go on")
            yield FIRST_LOOK_SECONDS

    shutdown, shutdown_async = both(_shutdown)

    def _remove(self, *, force: bool = False) -> Steps[None]:
        """Delete the pool and everything in it; a running one only by force, its processes first.

        Raises:
            ConflictError: it is being worked on.
            NoSuchPoolError: it is gone already.

        Example:
            >>> pool.remove()
            >>> JobPool.list()
            ['quotients']
        """
        from jobpool_cli.removal import remove  # noqa: PLC0415

        self._check_there()
        deadline = time.monotonic() + LEAVING_SECONDS
        while self._is_being_left() and time.monotonic() < deadline:
            yield FIRST_LOOK_SECONDS
        if force and self.is_live():
            # Tasks get their grace period; whoever does not end by then is killed.
            with contextlib.suppress(JobPoolError):
                yield from self._shutdown(wait=False, timeout=self.manifest.options.grace + 2.0)
        remove(self.paths.root, force=force)

    remove, remove_async = both(_remove)

    def _check_code(self) -> None:
        """Refuse to run code that is not what was submitted; its workers would refuse it, too, but only later.

        Raises:
            DamagedPoolError: it was altered.
            MachineError: the pool is not the user's alone.
        """
        from jobpool_cli.store.snapshot import verify_snapshot  # noqa: PLC0415 - only where something runs

        self._check_owner()
        with self._reader() as reader:
            version = reader.counters().udf
        verify_snapshot(self.paths.udf_version(version))

    def _is_being_left(self) -> bool:
        """Whether the pool is done, and its supervisor about to end."""
        try:
            return self.is_live() and self.snapshot().state is PoolState.DONE
        except JobPoolError:
            return False

    def _ask(self, action: str, details: dict[str, Any], timeout: float | None = None) -> Steps[dict[str, Any]]:
        """Post a request and wait for its answer; start a supervisor where none lives to read it."""
        # A pool that others were let into can still be stopped.
        ownership.check_owner(self.paths.root)
        limit = ANSWER_SECONDS if timeout is None else timeout
        deadline = time.monotonic() + limit
        from jobpool_cli.store import requests  # noqa: PLC0415 - only for those who ask for something

        asked = time.monotonic()
        request = requests.post(self.paths.requests, action, details)
        while True:
            with self._reader() as reader:
                answer = reader.answer(request.id)
            if answer is not None:
                break
            if not self.is_live():
                if action == "shutdown":
                    # It ended, and could not say so: the disk is full. The next one shall not end at once, too.
                    requests.withdraw(self.paths.requests, request)
                    return {}
                with contextlib.suppress(ConflictError):
                    _launch(self.paths)
            elif time.monotonic() >= asked + HELD_SECONDS and self._is_held():
                # What was asked for is done, and cannot be written down.
                if action == "shutdown":
                    return {}
                raise MachineError(f"{self.name} cannot write its answer: {self.snapshot().reason}", HELD_HINT)
            elif time.monotonic() >= deadline:
                raise WaitTimeoutError(
                    f"the supervisor of {self.name} did not answer within {limit:g} s",
                    "the request is kept and will be honoured as soon as it can",
                )
            yield FIRST_LOOK_SECONDS
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


def _until_next_look(waited: float, status: PoolStatus, longest: float) -> float:
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
