"""Options that several verbs share, so that each means the same everywhere."""

from __future__ import annotations

import contextlib
import re
from typing import Annotated

import typer

from jobpool_cli.errors import JobPoolError, UsageError
from jobpool_cli.finding import by_age
from jobpool_cli.layout import home_folder

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
# Compiled when they are used: every command has this module, few have a length of time or a size.
_DURATION = r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m|h|d)?\s*"
_SIZE = r"(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(?:i?B)?"


def seconds(text: str) -> float:
    """Read a length of time: seconds, or ``500ms``, ``90s``, ``2m``, ``1h30m``, ``1d``.

    Raises:
        UsageError: it is none.
    """
    total, at = 0.0, 0
    duration = re.compile(_DURATION, re.IGNORECASE)
    while found := duration.match(text, at):
        total += float(found[1]) * _UNITS[(found[2] or "s").lower()]
        at = found.end()
        if found[2] is None:
            break
    if at != len(text) or not text.strip():
        raise UsageError(f"{text!r} is not a length of time", "write seconds, or for example 500ms, 90s, 2m, 1h30m")
    return total


def size(text: str) -> int:
    """Read a number of bytes: plain, or with K, M, G, T (powers of 1024).

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE)
    if found is None:
        raise UsageError(f"{text!r} is not a size", "write bytes, or for example 512M, 2G")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def _pool_names(incomplete: str) -> list[str]:
    """Complete a pool's name on the command line, the newest first."""
    with contextlib.suppress(JobPoolError, OSError):  # no place for messages
        return [root.name for root in reversed(by_age(home_folder())) if root.name.startswith(incomplete)]
    return []


Pool = Annotated[
    str, typer.Argument(metavar="POOL", help="The pool's name.", show_default=True, autocompletion=_pool_names)
]
Home = Annotated[
    str | None,
    typer.Option(
        "--home", metavar="FOLDER", help="Where pools are kept; JOBPOOL_HOME does the same.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Return when the pool is done.", show_default=False)]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="TIME",
        parser=seconds,
        help="Wait no longer than this (90, 2m, 1h); then exit 124.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on the way.", show_default=False)]
