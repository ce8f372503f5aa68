"""``jobpool cancel``: give up what has not begun."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.cli.waiting import wait_for
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import count


def command(
    pool: options.Pool = LAST,
    *,
    running: Annotated[
        bool, typer.Option("--running", help="Stop the running tasks, too.", show_default=False)
    ] = False,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    home: options.Home = None,
) -> None:
    """Give up what has not begun; what runs may end, and everything that ended stays readable.

    `jobpool retry --cancelled` takes up again what was cancelled.
    """
    opened = JobPool.open(pool, home=home)
    deadline = None if timeout is None else time.monotonic() + timeout
    answer = opened.cancel(running=running, timeout=timeout)
    left = int(answer["running"])
    ending = ""
    if left:
        ending = f"; stopping {count(left)} in hand" if running else f"; {count(left)} in hand will still end"
    render.say(f"cancelled {count(int(answer['cancelled']))} of {opened.name}{ending}")
    if wait:
        wait_for(opened, timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
