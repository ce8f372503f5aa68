"""``jobpool status``: how a pool is doing."""

from __future__ import annotations

from jobpool_cli.cli import options, render
from jobpool_cli.cli.render_status import status_json, write_status
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool


def command(pool: options.Pool = LAST, *, json: options.Json = False, home: options.Home = None) -> None:
    """Show how a pool is doing: its state, how many tasks stand where, and what one could do next."""
    status = JobPool.open(pool, home=home).snapshot()
    if json:
        render.write_json(status_json(status))
    else:
        write_status(status)
