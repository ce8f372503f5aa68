"""What a running task may know of itself, and what code may know that jobpool is just importing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobpool_cli.store.reentry import importing

__all__ = ["TaskContext", "current_task", "importing", "provide"]


@dataclass(frozen=True)
class TaskContext:
    """The task that this process runs right now.

    Attributes:
        pool: name of the pool.
        task: position in the arguments, from 0.
        attempt: from 1; higher when the task runs again after a failure, a crash or a retry.
    """

    pool: str
    task: int
    attempt: int


_source: Callable[[], TaskContext | None] = lambda: None  # noqa: E731


def provide(source: Callable[[], TaskContext | None]) -> Callable[[], TaskContext | None]:
    """Tell this module how to find out, and return how it did before; called once by a worker."""
    global _source
    before, _source = _source, source
    return before


def current_task() -> TaskContext | None:
    """Return the task that is running in this worker process, None outside of a pool.

    Useful for naming output files, seeding random numbers per task, or telling a retry from a first run::

        task = current_task()
        rng = random.Random(task.task if task else 0)
    """
    return _source()
