"""``jobpool wait``: block until a pool is done."""

from __future__ import annotations

from jobpool_cli.cli import options
from jobpool_cli.cli.waiting import check_success, wait_for
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool


def command(
    pool: options.Pool = LAST,
    *,
    timeout: options.Timeout = None,
    quiet: options.Quiet = False,
    home: options.Home = None,
) -> None:
    """Wait until all tasks are finished and every result is on the disk.

    Exits 0 if no task failed, 1 if some did, 124 when the time is over, 4 if nobody works on the pool.
    """
    check_success(wait_for(JobPool.open(pool, home=home), timeout=timeout, quiet=quiet))
