"""``jobpool retry``: run failed tasks again."""

from __future__ import annotations

from typing import Annotated

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.cli.waiting import check_success, wait_for
from jobpool_cli.errors import UsageError
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import count


def command(
    pool: options.Pool = LAST,
    *,
    tasks: Annotated[
        list[int] | None,
        typer.Option("--task", metavar="N", help="Only this task; may be repeated.", show_default=False),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Only what failed with this exception, as errors names it.",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="FILE:LINE",
            help="Only what failed at this place of your code; - is none in your code.",
            show_default=False,
        ),
    ] = None,
    cancelled: Annotated[
        bool, typer.Option("--cancelled", help="Take up cancelled tasks, too.", show_default=False)
    ] = False,
    udf: Annotated[
        str | None,
        typer.Option("--udf", metavar="FILE", help="With mended code: file.py, or file.py:name.", show_default=False),
    ] = None,
    damaged: Annotated[
        bool,
        typer.Option("--damaged", help="Run what had succeeded and cannot be read any more.", show_default=False),
    ] = False,
    wait: options.Wait = False,
    home: options.Home = None,
) -> None:
    """Run failed tasks again in the same pool, also while others run; earlier attempts and their logs are kept.

    With --udf, what is yet to run runs the mended code; what succeeded stays as it is. With --type and --at, only one
    of the groups that `jobpool errors` shows. With --damaged, files of results are read through, and only the tasks of
    those that are damaged or missing run again; what is damaged is kept in the pool's folder aside.
    """
    if damaged and (tasks or kind or at or cancelled or udf):
        raise UsageError("--damaged goes with none of the other ways to choose tasks, nor with --udf")
    alike = kind is not None or at is not None
    if cancelled and alike:
        raise UsageError("--cancelled goes with neither --type nor --at: what was cancelled has not failed")
    opened = JobPool.open(pool, home=home)
    chosen = sorted(set(tasks)) if tasks else None
    answer = opened.retry(chosen, cancelled=cancelled, udf=udf, kind=kind, at=at, damaged=damaged)
    again, taken_up = int(answer["retried"]), int(answer["cancelled"])
    if not again and not taken_up:
        why = "no task failed" + (" or was cancelled" if cancelled else " like that" if alike else "")
        why = "all results are whole" if damaged else why
        render.say(f"nothing to retry in {opened.name}: {why}")
    else:
        parts = (
            [f"the tasks of {count(again, 'damaged result')}" if damaged else count(again, "failed task")]
            if again
            else []
        )
        parts += [count(taken_up, "cancelled task")] if taken_up else []
        render.say(f"{opened.name}: {' and '.join(parts)} taken up again")
        if answer.get("pending"):
            render.say(f"{count(int(answer['pending']), 'pending task')} will run the new code as well")
    if wait:
        check_success(wait_for(opened))
