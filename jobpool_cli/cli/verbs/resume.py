"""``jobpool resume``: go on after a pause or an interruption."""

from __future__ import annotations

from jobpool_cli.cli import options, render
from jobpool_cli.cli.waiting import check_success, wait_for
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import count


def command(pool: options.Pool = LAST, *, wait: options.Wait = False, home: options.Home = None) -> None:
    """Go on after a pause or an interruption: only what is unfinished runs."""
    opened = JobPool.open(pool, home=home)
    # As it stood before: a short rest may be done by the time that `resume` returns.
    status = opened.snapshot()
    opened.resume()
    render.say(f"{opened.name} goes on: {count(status.n_jobs - status.finished)} to do")
    if wait:
        check_success(wait_for(opened))
