"""Options that several verbs share, so that each means the same everywhere."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from jobpool_cli.errors import JobPoolError
from jobpool_cli.finding import by_age
from jobpool_cli.layout import home_folder
from jobpool_cli.quantities import seconds


def pool_names(incomplete: str) -> list[str]:
    """Complete a pool's name on the command line, the newest first."""
    with contextlib.suppress(JobPoolError, OSError):  # no place for messages
        return [root.name for root in reversed(by_age(home_folder())) if root.name.startswith(incomplete)]
    return []


Pool = Annotated[
    str, typer.Argument(metavar="POOL", help="The pool's name.", show_default=True, autocompletion=pool_names)
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
