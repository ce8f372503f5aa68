"""Requests: how commands ask the supervisor for something, through small files renamed into a folder.

A request's answer is a row of the state database, written in the transaction that carries the request out; the file
is removed afterwards. So a request is carried out once, whenever either side is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobpool_cli.layout import TEMPORARY_PREFIX
from jobpool_cli.store import durable

SUFFIX = ".json"
LARGEST_BYTES = 64 << 20
ATTEMPTS = 3


@dataclass(frozen=True)
class Request:
    """What a command asks for.

    Attributes:
        id: names the file; rises with time, so that requests are carried out in their order.
        action: cancel, retry, pause, resume or shutdown.
        details: depends on the action; JSON-able.
    """

    id: str
    action: str
    details: dict[str, Any]


def post(folder: Path, action: str, details: dict[str, Any]) -> Request:
    """Put a request where the supervisor, now or at its next start, finds it."""
    request = Request(f"{time.time_ns():020d}-{os.urandom(4).hex()}", action, details)
    content = json.dumps({"action": action, **details}).encode()
    for left in reversed(range(ATTEMPTS)):
        try:
            durable.write_whole(folder / f"{request.id}{SUFFIX}", content)
            break
        except FileNotFoundError:
            # A supervisor that starts at this moment took the temporary file for one that was left behind.
            if not left:
                raise
    return request


def waiting(folder: Path) -> list[Path]:
    """Return the files of requests that wait, oldest first; cheap enough to call many times a second."""
    with contextlib.suppress(FileNotFoundError):
        names = sorted(os.listdir(folder))
        return [folder / name for name in names if name.endswith(SUFFIX) and name[0] != TEMPORARY_PREFIX[0]]
    return []


def read(path: Path) -> Request:
    """Read one request.

    Raises:
        ValueError: it is not one; says why.
    """
    if path.is_symlink() or not path.is_file():
        raise ValueError("it is not a plain file")
    if path.stat().st_size > LARGEST_BYTES:
        raise ValueError("it is too large")
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict) or not isinstance(content.get("action"), str):
        raise ValueError("it names no action")  # noqa: TRY004 - one kind of error for all that is wrong with a file
    return Request(path.name.removesuffix(SUFFIX), content.pop("action"), content)


def withdraw(folder: Path, request: Request) -> None:
    """Take back a request that nobody carried out."""
    with contextlib.suppress(FileNotFoundError):
        (folder / f"{request.id}{SUFFIX}").unlink()
