"""Requests: how commands ask the supervisor for something, through small files renamed into a folder.

A request's answer is a row of the state database, written in the transaction that carries the request out; the file
is removed afterwards. So a request is carried out once, whenever either side is killed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobpool_cli.errors import has_no_room
from jobpool_cli.layout import TEMPORARY_PREFIX, PoolPaths
from jobpool_cli.store import durable

SUFFIX = ".json"
LARGEST_BYTES = 64 << 20
ATTEMPTS = 3
# Beyond every number of a task, and every version of the code.
END = 2**53
# Names and actions go into the state database and into supervisor.log.
_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


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
    """Put a request where the supervisor, now or at its next start, finds it.

    Raises:
        OSError: the disk has no room for it, or it cannot be written.
    """
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
        except OSError as error:
            if not has_no_room(error) or not set(map(type, details.values())) <= {bool}:
                raise
            return _post_name(folder, request)
    return request


def _post_name(folder: Path, request: Request) -> Request:
    """Put a request into the name of an empty file, for which there is room on a full disk."""
    words = [request.id, request.action, *(name for name, value in request.details.items() if value)]
    named = Request("-".join(words), request.action, request.details)
    os.close(durable.open_new(folder / f"{named.id}{SUFFIX}"))
    return named


def _read_name(identity: str) -> Request:
    """Read a request that is all in its name."""
    _, _, action, *details = f"{identity}--".split("-")
    if not action:
        raise ValueError("it is empty")
    return Request(identity, action, {name: True for name in details if name})


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
    identity = path.name.removesuffix(SUFFIX)
    if not _ID.fullmatch(identity):
        raise ValueError("its name is none that a request has")
    data = _content(path)
    if not data:
        return _read_name(identity)
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict) or not isinstance(content.get("action"), str):
        raise ValueError("it names no action")  # noqa: TRY004 - one kind of error for all that is wrong with a file
    action = content.pop("action")
    if not _ID.fullmatch(action):
        raise ValueError("its action is no word")
    return Request(identity, action, content)


def _content(path: Path) -> bytes:
    """Read a file that may be anything by now, without waiting for whoever made it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        is_other = error.errno in {errno.ELOOP, errno.ENXIO}  # a link, a socket
        raise ValueError("it is not a plain file" if is_other else str(error)) from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a plain file")
        if found.st_size > LARGEST_BYTES:
            raise ValueError("it is too large")
        with open(fd, "rb", closefd=False) as file:
            return file.read(LARGEST_BYTES)
    finally:
        os.close(fd)


def check_details(details: dict[str, Any], paths: PoolPaths) -> None:
    """Make sure that what a request asks for can be looked up, whatever program has written it.

    Raises:
        ValueError: it names what cannot be tasks, or a version of the code that the pool does not have.
    """
    tasks, udf = details.get("tasks"), details.get("udf")
    if (tasks is not None and not isinstance(tasks, list)) or not all(map(_is_number, tasks or ())):
        raise ValueError("its tasks are no numbers of tasks")
    if udf is not None and not (_is_number(udf) and paths.udf_version(udf).is_dir()):
        raise ValueError("its version of the code is none of the pool's")


def _is_number(given: object) -> bool:
    return type(given) is int and 0 <= given < END


def withdraw(folder: Path, request: Request) -> None:
    """Take back a request that nobody carried out."""
    with contextlib.suppress(FileNotFoundError):
        (folder / f"{request.id}{SUFFIX}").unlink()
