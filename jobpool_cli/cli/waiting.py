"""Waiting for a pool with something to look at meanwhile; `wait` and every ``--wait`` do it here."""

from __future__ import annotations

import sys
from typing import Any

import typer

from jobpool_cli.cli import render
from jobpool_cli.errors import ExitCode, TasksFailedError
from jobpool_cli.model import PoolStatus
from jobpool_cli.pool import JobPool
from jobpool_cli.show.progress import progress
from jobpool_cli.show.text import is_terminal


def wait_for(pool: JobPool[Any], *, timeout: float | None = None, quiet: bool = False) -> PoolStatus:
    """Wait until a pool is done, with progress on stderr.

    Raises:
        WaitTimeoutError: the time is over.
        ConflictError: nobody works on the pool.
        typer.Exit: Ctrl-C; the pool goes on.
    """
    try:
        with progress(sys.stderr, quiet=quiet) as shown:
            return pool.follow(timeout, on_look=shown.update, look_every=shown.look_every)
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


def end_quietly(name: str) -> None:
    """Tell whoever pressed Ctrl-C that only the watching ended."""
    if is_terminal(sys.stderr):
        render.say("")
    render.say(f"jobpool: stopped watching; {name} goes on (jobpool cancel {name} would stop it)")
