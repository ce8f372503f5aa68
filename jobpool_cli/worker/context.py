"""What a running task may know of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


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


def provide(source: Callable[[], TaskContext | None]) -> None:
    """Tell this module how to find out; called once by the worker."""
    global _source  # noqa: PLW0603
    _source = source


def current_task() -> TaskContext | None:
    """Return the task that is running in this worker process, None outside of a pool.

    Useful for naming output files, seeding random numbers per task, or telling a retry from a first run::

        task = current_task()
        rng = random.Random(task.task if task else 0)
    """
    return _source()
