"""Waiting for a pool with something to look at meanwhile; `wait` and every ``--wait`` do it here."""

from __future__ import annotations

import sys

import typer

from jobpool_cli.cli.live import end_quietly, progress
from jobpool_cli.errors import ExitCode, TasksFailedError
from jobpool_cli.model import PoolStatus
from jobpool_cli.pool import JobPool


def wait_for(pool: JobPool, *, timeout: float | None = None, quiet: bool = False) -> PoolStatus:
    """Wait until a pool is done, with progress on stderr.

    Raises:
        WaitTimeoutError: the time is over.
        ConflictError: nobody works on the pool.
        typer.Exit: Ctrl-C; the pool goes on.
    """
    try:
        with progress(sys.stderr, quiet=quiet) as shown:
            return pool.wait(timeout, on_look=shown.update, look_every=shown.look_every)
    except KeyboardInterrupt:
        end_quietly(pool.name)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def check_success(status: PoolStatus) -> None:
    """Make failed tasks the command's exit code.

    Raises:
        TasksFailedError: tasks failed.
    """
    if status.failed:
        raise TasksFailedError(
            f"{status.failed:,} of {status.n_jobs:,} tasks of {status.pool} failed",
            f"see why: jobpool errors {status.pool}",
        )
