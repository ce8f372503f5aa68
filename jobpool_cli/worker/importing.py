"""Importing a user's file inside a command: what it prints, and how it may try to end, must not become the command's.

The command's standard output is a pool's name, or data; whatever the file writes while it is imported, from Python, C
or a child process, goes to standard error instead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

# Heavy imports from a cold network file system take tens of seconds; an endless one must end at some time.
IMPORT_SECONDS = 120.0


class ImportTookTooLongError(Exception):
    """The file was still being imported when its time was over."""


@contextlib.contextmanager
def guarded_import() -> Iterator[None]:
    """Run an import with standard output turned to standard error, ``os._exit`` disarmed, and an end to patience."""
    with contextlib.redirect_stdout(sys.stderr), _stdout_to_stderr(), _no_hard_exit(), _time_limit():
        yield


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    try:
        kept = os.dup(1)
    except OSError:  # closed: then nothing can get into it either
        yield
        return
    try:
        with contextlib.suppress(OSError):
            os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _no_hard_exit() -> Iterator[None]:
    def refuse(code: int) -> NoReturn:
        raise SystemExit(code)

    original, os._exit = os._exit, refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = original


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can be interrupted
        return

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise ImportTookTooLongError(f"it was not imported within {IMPORT_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, IMPORT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
