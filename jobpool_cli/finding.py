"""Finding pools: by name, or the newest, in jobpool's home."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from jobpool_cli.errors import NoSuchPoolError
from jobpool_cli.layout import check_name, is_name, pools_folder
from jobpool_cli.store.ownership import check_links, not_a_folder, not_yours

LAST = "last"


def find(name: str, home: Path) -> Path:
    """Return the folder of a pool; ``last`` is the newest.

    Raises:
        NoSuchPoolError: there is none; names the nearest.
        UsageError: no pool can bear such a name.
        MachineError: the pools may not be looked at, or a symbolic link stands where one would be.
    """
    pools = pools_folder(home)
    check_links(pools)
    if name == LAST:
        found = by_age(home)
        if not found:
            raise NoSuchPoolError(
                f"there is no pool in {pools}", "make one: jobpool map UDF ARGS, or function.map(args)"
            )
        return found[-1]
    names = list(_names(pools))
    if name not in names:
        if (pools / check_name(name)).is_symlink():
            raise not_a_folder(pools / name)
        raise NoSuchPoolError(f"there is no pool named {name}", _nearest(name, names))
    return pools / name


def by_age(home: Path) -> list[Path]:
    """Return the folders of all pools, oldest first."""
    pools = pools_folder(home)
    check_links(pools)
    return sorted((pools / name for name in _names(pools)), key=_made_at)


def _names(pools: Path) -> Iterator[str]:
    try:
        entries = os.scandir(pools)
    except FileNotFoundError:
        return
    except PermissionError:
        raise not_yours(pools) from None
    with entries:
        for entry in entries:
            # What could not have been made as a pool is none: a temporary one, a name with control characters.
            if is_name(entry.name) and entry.is_dir(follow_symlinks=False):
                yield entry.name


def _made_at(root: Path) -> float:
    try:
        return (root / "pool.json").stat().st_mtime
    except OSError:
        return 0.0


def _nearest(name: str, names: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415

    found = get_close_matches(name, names, 1)
    return f"did you mean {found[0]}?" if found else "see what there is: jobpool list, or JobPool.list()"
