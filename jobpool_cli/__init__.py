"""jobpool: run a Python function over every row of a table, in worker processes that outlive the terminal.

The public names are loaded when they are first used, so that ``import jobpool_cli`` costs next to nothing.
"""

from __future__ import annotations

from jobpool_cli.version import __version__

# Type checkers take a name such as this for true; `typing` alone would cost as much as all of Python's start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jobpool_cli.decorator import Udf, udf
    from jobpool_cli.errors import (
        ConflictError,
        DamagedPoolError,
        InputError,
        JobPoolError,
        MachineError,
        MemoryLimitExceeded,
        NoSuchPoolError,
        RemoteError,
        ResultNotStorable,
        TaskCancelled,
        TaskFailure,
        TaskTimeout,
        UsageError,
        WaitTimeoutError,
        WorkerCrashed,
    )
    from jobpool_cli.model import Cluster
    from jobpool_cli.pool import JobPool
    from jobpool_cli.pool.task import Task
    from jobpool_cli.settings import options
    from jobpool_cli.worker.context import TaskContext, current_task

_HOMES = {
    "Cluster": "jobpool_cli.model",
    "ConflictError": "jobpool_cli.errors",
    "DamagedPoolError": "jobpool_cli.errors",
    "InputError": "jobpool_cli.errors",
    "JobPool": "jobpool_cli.pool",
    "JobPoolError": "jobpool_cli.errors",
    "MachineError": "jobpool_cli.errors",
    "MemoryLimitExceeded": "jobpool_cli.errors",
    "NoSuchPoolError": "jobpool_cli.errors",
    "RemoteError": "jobpool_cli.errors",
    "ResultNotStorable": "jobpool_cli.errors",
    "Task": "jobpool_cli.pool.task",
    "TaskCancelled": "jobpool_cli.errors",
    "TaskContext": "jobpool_cli.worker.context",
    "TaskFailure": "jobpool_cli.errors",
    "TaskTimeout": "jobpool_cli.errors",
    "Udf": "jobpool_cli.decorator",
    "UsageError": "jobpool_cli.errors",
    "WaitTimeoutError": "jobpool_cli.errors",
    "WorkerCrashed": "jobpool_cli.errors",
    "current_task": "jobpool_cli.worker.context",
    "options": "jobpool_cli.settings",
    "udf": "jobpool_cli.decorator",
}

__all__ = [  # noqa: RUF022 - the order in which one meets them
    "udf",
    "Udf",
    "JobPool",
    "Task",
    "Cluster",
    "options",
    "current_task",
    "TaskContext",
    "JobPoolError",
    "UsageError",
    "InputError",
    "NoSuchPoolError",
    "ConflictError",
    "WaitTimeoutError",
    "DamagedPoolError",
    "MachineError",
    "TaskFailure",
    "WorkerCrashed",
    "TaskTimeout",
    "TaskCancelled",
    "MemoryLimitExceeded",
    "ResultNotStorable",
    "RemoteError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Load a public name on its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jobpool_cli' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - nobody who only imports this needs it

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """Name what the package offers."""
    return sorted(__all__)
