"""``jobpool rm``: delete pools."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.errors import ConflictError, DamagedPoolError, NoSuchPoolError, UsageError
from jobpool_cli.layout import home_folder, pools_folder
from jobpool_cli.pool import JobPool
from jobpool_cli.removal import is_worked_on
from jobpool_cli.show.text import count, is_terminal


def command(
    pools: Annotated[list[str], typer.Argument(metavar="POOL...", help="The pools' names.", show_default=False)],
    *,
    force: Annotated[
        bool,
        typer.Option("--force", "-f", help="Do not ask; a running pool's processes are stopped.", show_default=False),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False,
    home: options.Home = None,
) -> None:
    """Delete pools with their results and logs; asks first."""
    folder = pools_folder(home_folder(home))
    doomed: dict[str, JobPool[Any] | Path] = {}
    for name in pools:
        found = _find(name, folder, home)
        if found is not None:
            doomed[found.name] = found
    # All or none: what cannot be removed is told before anything is.
    for name, each in doomed.items():
        if not force and is_worked_on(_root(each)):
            raise ConflictError(
                f"{name} is being worked on", f"wait for it, or stop and delete it: jobpool rm --force {name}"
            )
        if not force and isinstance(each, Path):
            _refuse_damaged(name, home)
    if doomed and not (force or yes) and not _agreed(doomed):
        render.say("nothing was deleted")
        return
    for name, each in doomed.items():
        if isinstance(each, JobPool):
            each.remove(force=force)
        else:
            with contextlib.suppress(FileNotFoundError):
                JobPool.remove_remains(name, home=home, force=force)
        render.say(f"{name} is deleted")


def _refuse_damaged(name: str, home: str | None) -> None:
    try:
        JobPool.open(name, home=home)
    except DamagedPoolError as error:
        raise DamagedPoolError(
            f"{name} cannot be read: {error.message}", f"what is left of it is deleted by: jobpool rm --force {name}"
        ) from error


def _find(name: str, folder: Path, home: str | None) -> JobPool[Any] | Path | None:
    """Find a pool; the path of one that is damaged, None where a killed `rm` had already taken it out of sight."""
    try:
        return JobPool.open(name, home=home)
    except DamagedPoolError:
        return folder / name
    except NoSuchPoolError:
        if not JobPool.remove_remains(name, home=home):
            raise
        render.say(f"{name} is deleted")
        return None


def _root(each: JobPool[Any] | Path) -> Path:
    return each.paths.root if isinstance(each, JobPool) else each


def _agreed(doomed: dict[str, JobPool[Any] | Path]) -> bool:
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise UsageError("rm deletes results, and there is no terminal to ask on", "say so: jobpool rm --yes POOL")
    what = ", ".join(
        f"{name} ({count(each.n_jobs)})" if isinstance(each, JobPool) else name for name, each in doomed.items()
    )
    return typer.confirm(f"Delete {what} with all results and logs?", err=True)
