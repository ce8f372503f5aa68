"""``jobpool is``: a question about a pool, answered by the exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.errors import ExitCode, UsageError
from jobpool_cli.finding import LAST
from jobpool_cli.model import PoolState, PoolStatus, TaskState
from jobpool_cli.pool import JobPool

QUESTIONS: dict[str, Callable[[PoolStatus], bool]] = {
    "done": lambda status: status.is_done,
    "running": lambda status: status.state is PoolState.RUNNING,
    "paused": lambda status: status.state is PoolState.PAUSED,
    "interrupted": lambda status: status.state is PoolState.INTERRUPTED,
    "all-succeeded": lambda status: status.all_succeeded,
    "any-succeeded": lambda status: status.any_succeeded,
    "any-failed": lambda status: status.any_failed,
    "cancelled": lambda status: status.counts[TaskState.CANCELLED] > 0,
}


def command(
    pool: Annotated[str, typer.Argument(metavar="[POOL]", help="The pool's name; without one, the newest.")],
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help=", ".join(QUESTIONS), show_default=False)
    ] = None,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print yes or no, too.", show_default=False)] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Answer a question about a pool: exits 0 for yes, 1 for no, and prints nothing.

    For scripts: ``if jobpool is "$pool" done; then …``; ``cancelled`` asks whether any task was.
    """
    if question is None:
        pool, question = LAST, pool
    if question not in QUESTIONS:
        raise UsageError(f"{question!r} is no question that jobpool knows", f"ask one of: {', '.join(QUESTIONS)}")
    status = JobPool.open(pool, home=home).snapshot()
    answer = QUESTIONS[question](status)
    if json:
        render.write_json({"pool": status.pool, "question": question, "answer": answer})
    elif verbose:
        render.write("yes" if answer else "no")
    if not answer:
        # The exit code of a question's "no" is that of failed tasks: 1.
        raise typer.Exit(ExitCode.TASKS_FAILED)
