"""Whether a file of the user's is being imported by jobpool at this moment.

A file that starts pools while it is imported would start them again in every process that imports it, without end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_importing: ContextVar[str | None] = ContextVar("jobpool_importing", default=None)


@contextlib.contextmanager
def importing_now(file: str) -> Iterator[None]:
    """Let ``importing`` tell, inside the block, that jobpool is importing this file of the user's."""
    before = _importing.set(file)
    try:
        yield
    finally:
        _importing.reset(before)


def importing() -> str | None:
    """Return the user's file that jobpool is importing in this thread right now; None if there is none."""
    return _importing.get()
