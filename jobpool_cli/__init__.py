"""jobpool: run a Python function over every row of a table, in worker processes that outlive the terminal.

The public names are loaded when they are first used, so that ``import jobpool_cli`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobpool_cli.version import __version__

if TYPE_CHECKING:
    from jobpool_cli.errors import JobPoolError, TaskFailure
    from jobpool_cli.pool import JobPool
    from jobpool_cli.udf import udf
    from jobpool_cli.worker.context import TaskContext, current_task

_HOMES = {
    "JobPool": "jobpool_cli.pool",
    "JobPoolError": "jobpool_cli.errors",
    "TaskContext": "jobpool_cli.worker.context",
    "TaskFailure": "jobpool_cli.errors",
    "current_task": "jobpool_cli.worker.context",
    "udf": "jobpool_cli.udf",
}

__all__ = [  # noqa: RUF022 - the order in which one meets them
    "udf",
    "JobPool",
    "current_task",
    "TaskContext",
    "JobPoolError",
    "TaskFailure",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Load a public name on its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jobpool_cli' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    # The submodule `udf` is set as an attribute by its import: the function of that name is what the package offers.
    globals()[name] = value
    return value
