"""What came of a pool's tasks, as Python objects: results, errors, logs, arguments, times.

Names, arguments and defaults are those of the JobPool class that this one re-creates. Dictionaries are keyed by the
task's position in the arguments, from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from jobpool_cli.errors import TaskCancelled
from jobpool_cli.model import FAILED_STATES, FINISHED_STATES, TaskState
from jobpool_cli.pool.steering import PoolSteering
from jobpool_cli.twins import Steps, both, drive, in_thread, run, twin

if TYPE_CHECKING:
    from jobpool_cli.store.logs import TaskLog

Result = TypeVar("Result")

TEXT_ENCODING = "utf-8"


class PoolOutcomes(PoolSteering, Generic[Result]):
    """One pool, and what came of its tasks."""

    # --- how it is doing

    def done(self) -> bool:
        """Return whether all tasks have finished, with whatever outcome.

        Example:
            >>> pool.done()
            True
        """
        return self.snapshot().is_done

    done_async = twin(done)

    def all_succeeded(self) -> bool:
        """Return whether all tasks finished with success.

        Example:
            >>> pool.all_succeeded(), quotients.all_succeeded()
            (True, False)
        """
        return self.snapshot().all_succeeded

    all_succeeded_async = twin(all_succeeded)

    def any_failed(self) -> bool:
        """Return whether any task finished with an error or a timeout.

        Example:
            >>> pool.any_failed(), quotients.any_failed()
            (False, True)
        """
        return self.snapshot().any_failed

    any_failed_async = twin(any_failed)

    def any_succeeded(self) -> bool:
        """Return whether any task finished with success.

        Example:
            >>> quotients.any_succeeded()
            True
        """
        return self.snapshot().any_succeeded

    any_succeeded_async = twin(any_succeeded)

    def times(self) -> list[timedelta | None]:
        """Return how long each task took, its last attempt; None for those that have not finished.

        Example:
            >>> [time < timedelta(seconds=1) for time in pool.times()]
            [True, True, True]
        """
        table = self.task_table(states=list(FINISHED_STATES)).select(["task", "duration"])
        times: list[timedelta | None] = [None] * self.n_jobs
        for task, seconds in zip(table["task"].to_pylist(), table["duration"].to_pylist(), strict=True):
            times[task] = None if seconds is None else timedelta(seconds=seconds)
        return times

    times_async = twin(times)

    def total_time(self, since_retry: bool = False) -> timedelta:
        """Return the time from `map` to the last task that has finished so far.

        Args:
            since_retry: measure from the last retry, if there was one.

        Example:
            >>> pool.total_time().total_seconds() > 0
            True
        """
        status = self.snapshot()
        retried = status.retry_time if since_retry else None
        return timedelta(seconds=status.total_time if retried is None else retried)

    total_time_async = twin(total_time)

    # --- results

    @overload
    def results(self, return_exceptions: Literal[False] = False) -> list[Result]: ...

    @overload
    def results(self, return_exceptions: bool) -> list[Result | Exception]: ...

    def results(self, return_exceptions: bool = False) -> list[Result] | list[Result | Exception]:
        """Wait until all tasks are finished and return all results, in the order of the arguments.

        Args:
            return_exceptions: where a task failed or was cancelled, its exception stands in the list; otherwise the
                first of them is raised.

        Raises:
            Exception: what the function raised, of its own type where that can be imported; it has the attributes
                ``task``, ``arguments`` and ``remote_traceback``.
            TaskCancelled: a task was cancelled.
            ConflictError: the pool is interrupted, so that it would never end.

        Example:
            >>> pool.results()
            [1, 4, 9]
            >>> quotients.results(return_exceptions=True)
            [1.0, ZeroDivisionError('division by zero')]
        """
        return run(self._results(return_exceptions))

    @overload
    async def results_async(self, return_exceptions: Literal[False] = False) -> list[Result]: ...

    @overload
    async def results_async(self, return_exceptions: bool) -> list[Result | Exception]: ...

    async def results_async(self, return_exceptions: bool = False) -> list[Result] | list[Result | Exception]:
        """Return what ``results`` does."""
        return await drive(self._results(return_exceptions))

    def _results(self, return_exceptions: bool) -> Steps[list[Any]]:
        yield from self._wait()
        found = self.results_now(return_exceptions)
        if len(found) < self.n_jobs:
            raise self._cancellation(next(task for task in range(self.n_jobs) if task not in found))
        return list(found.values())

    @overload
    def results_now(self, return_exceptions: Literal[False] = False) -> dict[int, Result]: ...

    @overload
    def results_now(self, return_exceptions: bool) -> dict[int, Result | Exception]: ...

    def results_now(self, return_exceptions: bool = False) -> dict[int, Result] | dict[int, Result | Exception]:
        """Return the results there are so far, by position, ascending; waits for nothing.

        Args:
            return_exceptions: also the exceptions of tasks that failed or were cancelled; otherwise the first failure
                is raised.

        Raises:
            Exception: as ``results`` does.

        Example:
            >>> pool.results_now()
            {0: 1, 1: 4, 2: 9}
        """
        if not return_exceptions:
            error = self.first_error()
            if error is not None:
                raise error
            return self.success()
        found: dict[int, Any] = {**self.success(), **self.errors()}
        found |= {task: self._cancellation(task) for task in self._tasks_in(TaskState.CANCELLED)}
        return dict(sorted(found.items()))

    @overload
    async def results_now_async(self, return_exceptions: Literal[False] = False) -> dict[int, Result]: ...

    @overload
    async def results_now_async(self, return_exceptions: bool) -> dict[int, Result | Exception]: ...

    async def results_now_async(
        self, return_exceptions: bool = False
    ) -> dict[int, Result] | dict[int, Result | Exception]:
        """Return what ``results_now`` does."""
        return await in_thread(self.results_now, return_exceptions)

    def success(self) -> dict[int, Result]:
        """Return the results of the tasks that have succeeded so far, by position, ascending.

        Example:
            >>> quotients.success()
            {0: 1.0}
        """
        found: dict[int, Any] = {}
        for batch in self.result_batches():
            found |= batch
        return found

    success_async = twin(success)

    # --- errors

    def exceptions(self, tasks: Sequence[int] | None = None) -> dict[int, Exception]:
        """Return the exceptions of failed tasks, by position, ascending; of all by default."""
        from jobpool_cli.store.outcomes.exceptions import exceptions_of  # noqa: PLC0415 - pyarrow, for the arguments

        self._check_owner()
        with self._reader() as reader:
            return exceptions_of(self.paths, reader, tasks)

    def errors(self) -> dict[int, Exception]:
        """Return the exceptions of the tasks that are in error or timeout now, by position, ascending.

        Each is of the function's own type where that can be imported, and has the attributes ``task``, ``arguments``
        and ``remote_traceback``. What no exception stands for (a killed worker, a timeout) comes as a ``TaskFailure``.

        Example:
            >>> quotients.errors()
            {1: ZeroDivisionError('division by zero')}
            >>> quotients.errors()[1].arguments
            {'x': 0}
        """
        return self.exceptions()

    errors_async = twin(errors)

    def first_error(self) -> Exception | None:
        """Return the exception of the first task, in the order of the arguments, that failed; None if none did.

        Example:
            >>> quotients.first_error()
            ZeroDivisionError('division by zero')
        """
        first = self.first_failure()
        return None if first is None else self.exceptions([first.task]).get(first.task)

    first_error_async = twin(first_error)

    # --- logs

    def logs(self) -> list[str | None]:
        r"""Return what each task wrote to stdout and stderr, with its traceback if it failed; None before it has ended.

        What is not UTF-8 shows as escapes.

        Example:
            >>> pool.logs()
            ['squaring 1\n', 'squaring 2\n', 'squaring 3\n']
        """
        found = self.log_texts()
        texts: list[str | None] = [None] * self.n_jobs
        for task in self._tasks_in(TaskState.SUCCESS, *FAILED_STATES):
            texts[task] = found.get(task, "")
        return texts

    logs_async = twin(logs)

    def first_log(self) -> str | None:
        r"""Return what the first task, in the order of the arguments, that wrote anything has written so far.

        Example:
            >>> pool.first_log()
            'squaring 1\n'
        """
        for log in self.task_logs():
            return _text_of(log)
        return None

    first_log_async = twin(first_log)

    def log_texts(self, tasks: Sequence[int] | None = None) -> dict[int, str]:
        """Return what tasks wrote, by position; of all that wrote anything by default, of running ones so far."""
        return {log.task: _text_of(log) for log in self.task_logs(tasks)}

    # --- arguments

    def pending(self) -> dict[int, Any]:
        """Return the arguments of the tasks that have not begun, by position: as they were given to `map`.

        Example:
            >>> pool.pending()
            {}
        """
        return self._given(self._tasks_in(TaskState.PENDING))

    pending_async = twin(pending)

    def running(self) -> dict[int, Any]:
        """Return the arguments of the tasks that run right now, by position: as they were given to `map`.

        Example:
            >>> pool.running()
            {}
        """
        return self._given(self._tasks_in(TaskState.RUNNING))

    running_async = twin(running)

    def cancelled(self) -> dict[int, Any]:
        """Return the arguments of the tasks that were cancelled, by position: as they were given to `map`.

        Example:
            >>> pool.cancelled()
            {}
        """
        return self._given(self._tasks_in(TaskState.CANCELLED))

    cancelled_async = twin(cancelled)

    def call_arguments(self, tasks: Sequence[int]) -> list[dict[str, Any]]:
        """Return the arguments of tasks by name, without constants, in the order of their positions in ``tasks``."""
        from jobpool_cli.store.arguments.stored import read_calls  # noqa: PLC0415

        self._check_owner()
        return read_calls(self.paths.args, tasks)

    def _given(self, tasks: Sequence[int]) -> dict[int, Any]:
        from jobpool_cli.store.arguments.stored import read_values  # noqa: PLC0415

        self._check_owner()
        return dict(zip(tasks, read_values(self.paths.args, tasks), strict=True))

    # --- shared by the above

    def _wait(self, timeout: float | str | timedelta | None = None) -> Steps[None]:
        """Wait until all tasks are finished, with a progress bar on a terminal and in a notebook.

        ``options.show.enable_tqdm = False`` turns the bar off.

        Args:
            timeout: seconds, a timedelta, or a text such as ``"2m"``; forever by default.

        Raises:
            WaitTimeoutError: the time is over; the pool goes on.
            ConflictError: the pool is interrupted, so that it would never end.

        Example:
            >>> pool.wait()
        """
        from jobpool_cli.quantities import as_seconds  # noqa: PLC0415 - not for commands
        from jobpool_cli.settings import options  # noqa: PLC0415
        from jobpool_cli.show.progress import progress_here  # noqa: PLC0415

        limit = None if timeout is None else as_seconds(timeout, "timeout")
        with progress_here(enabled=options.show.enable_tqdm) as shown:
            yield from self._follow(limit, on_look=shown.update, look_every=shown.look_every)

    wait, wait_async = both(_wait)

    def _raise_first(self) -> None:
        """Raise the exception of the first task that failed, else of the first that was cancelled."""
        error = self.first_error()
        if error is not None:
            raise error
        for task in self._tasks_in(TaskState.CANCELLED):
            raise self._cancellation(task)

    def _cancellation(self, task: int) -> TaskCancelled:
        cancelled = TaskCancelled(f"task {task} of {self.name} was cancelled")
        cancelled.add_note("hint: run it with pool.retry(cancelled=True), or leave it out: ignore_exceptions=True")
        return cancelled

    def _tasks_in(self, *states: TaskState) -> list[int]:
        """Return the positions of the tasks in these states, ascending."""
        tasks: list[int] = self.task_table(states=states)["task"].to_pylist()
        return tasks


def _text_of(log: TaskLog) -> str:
    return b"".join(log.chunks()).decode(TEXT_ENCODING, "backslashreplace")
