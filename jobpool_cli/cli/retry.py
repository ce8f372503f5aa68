"""``jobpool retry``: run failed tasks again."""

from __future__ import annotations

from typing import Annotated

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.cli.waiting import check_success, wait_for
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool


def command(
    pool: options.Pool = LAST,
    *,
    tasks: Annotated[
        list[int] | None,
        typer.Option("--task", metavar="N", help="Only this task; may be repeated.", show_default=False),
    ] = None,
    cancelled: Annotated[
        bool, typer.Option("--cancelled", help="Take up cancelled tasks, too.", show_default=False)
    ] = False,
    udf: Annotated[
        str | None,
        typer.Option("--udf", metavar="FILE", help="With mended code: file.py, or file.py:name.", show_default=False),
    ] = None,
    wait: options.Wait = False,
    home: options.Home = None,
) -> None:
    """Run failed tasks again in the same pool, also while others run; earlier attempts and their logs are kept.

    With --udf, what is yet to run runs the mended code; what succeeded stays as it is.
    """
    opened = JobPool.open(pool, home=home)
    answer = opened.retry(sorted(set(tasks)) if tasks else None, cancelled=cancelled, udf=udf)
    again, taken_up = int(answer["retried"]), int(answer["cancelled"])
    if not again and not taken_up:
        render.say(f"nothing to retry in {opened.name}: no task failed" + (" or was cancelled" if cancelled else ""))
    else:
        parts = [render.count(again, "failed task")] if again else []
        parts += [render.count(taken_up, "cancelled task")] if taken_up else []
        render.say(f"{opened.name}: {' and '.join(parts)} taken up again")
    if wait:
        check_success(wait_for(opened))
