"""``jobpool wait``: block until a pool is done."""

from __future__ import annotations

from jobpool_cli.cli import options, render
from jobpool_cli.cli.render import status_json
from jobpool_cli.cli.waiting import check_success, wait_for
from jobpool_cli.errors import ConflictError, WaitTimeoutError
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool


def command(
    pool: options.Pool = LAST,
    *,
    timeout: options.Timeout = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Wait until all tasks are finished and every result is on the disk.

    Exits 0 if no task failed, 1 if some did, 124 when the time is over, 4 if nobody works on the pool. With --json the
    pool's status is printed at the end, whatever the exit code.
    """
    opened = JobPool.open(pool, home=home)
    try:
        status = wait_for(opened, timeout=timeout, quiet=quiet)
    except (WaitTimeoutError, ConflictError):
        if json:
            render.write_json(status_json(opened.snapshot()))
        raise
    if json:
        render.write_json(status_json(status))
    check_success(status)
