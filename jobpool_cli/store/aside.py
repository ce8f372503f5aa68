"""Damaged files, moved out of the way and kept: perhaps somebody can still make something of them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable


def set_aside(paths: PoolPaths, path: Path) -> Path | None:
    """Move a file of a pool into its folder ``aside``, under a name that is free; None if it is missing."""
    if not os.path.lexists(path):
        return None
    with contextlib.suppress(FileExistsError):
        durable.make_folder(paths.aside)
        durable.sync_folder(paths.root)
    target, number = paths.aside / path.name, 1
    while os.path.lexists(target):
        number += 1
        target = paths.aside / f"{path.stem}-{number}{path.suffix}"
    os.rename(path, target)
    for folder in (paths.aside, path.parent):
        durable.sync_folder(folder)
    return target
