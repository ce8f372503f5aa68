"""``jobpool shutdown``: stop working on a pool."""

from __future__ import annotations

from typing import Annotated

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import count


def command(
    pool: options.Pool = LAST,
    *,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Stop running tasks instead of letting them end.", show_default=False)
    ] = False,
    timeout: options.Timeout = None,
    home: options.Home = None,
) -> None:
    """Stop working on a pool: running tasks end, what has not begun stays pending, and `resume` goes on."""
    opened = JobPool.open(pool, home=home)
    if not opened.is_live():
        render.say(f"nobody works on {opened.name}")
        return
    opened.shutdown(wait=not no_wait, timeout=timeout)
    status = opened.snapshot()
    left = status.n_jobs - status.finished
    rest = f"; {count(left)} left to do, go on with: jobpool resume {opened.name}" if left else ""
    render.say(f"{opened.name} is shut down{rest}")
