"""``jobpool pause``: hand out no further task for now."""

from __future__ import annotations

from jobpool_cli.cli import options, render
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import count


def command(pool: options.Pool = LAST, *, home: options.Home = None) -> None:
    """Hand out no further task for now; what runs ends, and `resume` goes on."""
    opened = JobPool.open(pool, home=home)
    running = int(opened.pause()["running"])
    ending = f"; {count(running)} in hand will still end" if running else ""
    render.say(f"{opened.name} is paused{ending}; go on with: jobpool resume {opened.name}")
