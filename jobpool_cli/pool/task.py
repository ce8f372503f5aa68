"""One task of a pool, as Python sees it: ``pool[17]``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from jobpool_cli.errors import ConflictError, DamagedPoolError, TaskCancelled
from jobpool_cli.model import FAILED_STATES, FINISHED_STATES, TaskState

if TYPE_CHECKING:
    from jobpool_cli.pool.outcomes import PoolOutcomes

Result = TypeVar("Result", covariant=True)  # noqa: PLC0105 - one name for one thing throughout

FACTS_AT_ONCE = 50_000
_STATES = {state.value: state for state in TaskState}


@dataclass(frozen=True)
class Task(Generic[Result]):
    """One task, as it was when it was asked for; ask the pool again for how it is now.

    Attributes:
        index: position in the arguments, from 0.
        status: its state.
        attempts: how many attempts were begun; 0 before the first.
        pool: the pool to which it belongs.
    """

    index: int
    status: TaskState
    attempts: int
    _seconds: float | None = field(repr=False)
    pool: PoolOutcomes[Result] = field(repr=False, compare=False)
    # The result, once it was read; a dictionary, since None is a result like any other.
    _read: dict[str, Result] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        """Tell which task it is and how it is doing."""
        return f"<Task {self.index} of {self.pool.name}: {self.status}>"

    @property
    def time(self) -> timedelta | None:
        """How long its last attempt took, or has taken so far; None before the first and where it is not known.

        Example:
            >>> pool[2].time.total_seconds() < 1
            True
        """
        return None if self._seconds is None else timedelta(seconds=self._seconds)

    @property
    def result(self) -> Result:
        """What the function returned.

        Raises:
            Exception: what the function raised, if the task failed; ``TaskCancelled`` if it was cancelled.
            ConflictError: the task has not finished.

        Example:
            >>> pool[2].result
            9
        """
        if self.status is TaskState.SUCCESS:
            if not self._read:
                ((_, result),) = self.pool.iter_results([self.index])
                self._read["result"] = cast("Result", result)
            return self._read["result"]
        error = self.exception
        if error is not None:
            raise error
        raise ConflictError(
            f"task {self.index} of {self.pool.name} is {self.status} and has no result yet", "wait for it: pool.wait()"
        )

    @property
    def exception(self) -> Exception | None:
        """The exception that the result would raise; None of a task that succeeded or has not finished.

        Example:
            >>> quotients[1].exception
            ZeroDivisionError('division by zero')
        """
        if self.status is TaskState.CANCELLED:
            return TaskCancelled(f"task {self.index} of {self.pool.name} was cancelled")
        return self.pool.exceptions([self.index]).get(self.index) if self.status in FAILED_STATES else None

    @property
    def logs(self) -> str | None:
        r"""What its last attempt wrote, of a running one so far; None of a task that has not run.

        Example:
            >>> pool[0].logs
            'squaring 1\n'
        """
        found = self.pool.log_texts([self.index]).get(self.index)
        if found is None and self.status in FINISHED_STATES - {TaskState.CANCELLED}:
            return ""
        return found

    @property
    def arguments(self) -> dict[str, Any]:
        """What its row of arguments holds, by name; constants are the same for all tasks, and no part of it.

        Example:
            >>> pool[2].arguments
            {'x': 3}
        """
        return self.pool.call_arguments([self.index])[0]


def tasks_at(pool: PoolOutcomes[Any], numbers: range) -> list[Task[Any]]:
    """Return tasks of a pool by their positions, as they are now; read all at once."""
    if not numbers:
        return []
    table = pool.task_table(numbers)
    states = [_STATES[state] for state in table["state"].cast("string").to_pylist()]
    columns = (table[name].to_pylist() for name in ("task", "attempt", "duration"))
    # The table is in the order of the tasks, which is not that of a slice with a negative step.
    rows = zip(states, *columns, strict=True)
    tasks = [Task(number, state, attempt or 0, seconds, pool) for state, number, attempt, seconds in rows]
    return tasks if numbers.step > 0 else tasks[::-1]


def all_tasks(pool: PoolOutcomes[Any]) -> Iterator[Task[Any]]:
    """Yield all tasks of a pool in order, each with its result if it had one when this began.

    Results are read as one stream, a few thousand in memory at a time, instead of one by one.
    """
    results = pool.iter_results()
    ahead = _next(results)
    for start in range(0, pool.n_jobs, FACTS_AT_ONCE):
        for task in tasks_at(pool, range(start, min(start + FACTS_AT_ONCE, pool.n_jobs))):
            while ahead is not None and ahead[0] < task.index:
                ahead = _next(results)
            if ahead is not None and ahead[0] == task.index:
                task._read["result"] = ahead[1]  # noqa: SLF001 - its own module
            yield task


def _next(results: Iterator[tuple[int, Any]]) -> tuple[int, Any] | None:
    try:
        return next(results, None)
    except DamagedPoolError:
        # Of a result that cannot be read the others know nothing; its own task tells when it is asked.
        return None
