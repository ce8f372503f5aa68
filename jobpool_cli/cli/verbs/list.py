"""``jobpool list``: what pools there are."""

from __future__ import annotations

import sys
from pathlib import PurePath

from jobpool_cli.cli import options, render
from jobpool_cli.cli.render import status_json
from jobpool_cli.errors import JobPoolError
from jobpool_cli.layout import home_folder, pools_folder
from jobpool_cli.model import PoolStatus
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import clock, is_terminal, iso

HEADERS = ["pool", "state", "tasks", "finished", "failed", "created", "function"]
DAMAGED = "damaged"


def command(*, json: options.Json = False, home: options.Home = None) -> None:
    """List the pools, the newest last; a damaged one is listed as such."""
    pools = pools_folder(home_folder(home))
    looks: list[tuple[str, PoolStatus | JobPoolError]] = []
    for name in JobPool.list(home=home):
        try:
            looks.append((name, JobPool(pools / name).snapshot()))
        except JobPoolError as error:
            # One that was removed since its name was read is none.
            if (pools / name).exists():
                looks.append((name, error))
    if json:
        for name, look in looks:
            if isinstance(look, PoolStatus):
                render.write_json(status_json(look))
            else:
                render.write_json({"pool": name, "state": DAMAGED, "reason": look.message})
        return
    if not looks:
        render.say(f"there is no pool in {pools}; make one: jobpool map UDF ARGS")
        return
    people = is_terminal(sys.stdout)
    render.write_table(
        HEADERS,
        [_row(name, look, people=people) for name, look in looks],
        right=["tasks", "finished", "failed"],
        states="state",
    )


def _row(name: str, look: PoolStatus | JobPoolError, *, people: bool) -> list[str]:
    if isinstance(look, JobPoolError):
        return [name, DAMAGED, "", "", "", "", ""]
    numbers = [f"{many:,}" if people else str(many) for many in (look.n_jobs, look.finished, look.failed)]
    created = clock(look.created) if people else iso(look.created) or ""
    # `status` tells the function's folder.
    return [name, look.state.value, *numbers, created, PurePath(look.udf).name]
