"""Importing a user's file inside a command: what it prints, and how it may try to end, must not become the command's.

The command's standard output is a pool's name, or data; whatever the file writes while it is imported, from Python, C
or a child process, goes to standard error instead.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

# Heavy imports from a cold network file system take tens of seconds; an endless one must end at some time.
IMPORT_SECONDS = 120.0
# Another number of seconds, for `map` and for the workers.
IMPORT_SECONDS_VARIABLE = "JOBPOOL_IMPORT_SECONDS"


def import_seconds() -> float:
    """Return how long an import may take, in this process and in the workers that it starts."""
    try:
        given = float(os.environ.get(IMPORT_SECONDS_VARIABLE, ""))
    except ValueError:
        return IMPORT_SECONDS
    return given if 0 < given < math.inf else IMPORT_SECONDS


class ImportTookTooLongError(Exception):
    """The file was still being imported when its time was over."""


@contextlib.contextmanager
def guarded_import() -> Iterator[None]:
    """Run an import with standard output turned to standard error, ``os._exit`` disarmed, and an end to patience.

    Should it crash the process, where it was is written to standard error.
    """
    with (
        _crashes_shown(),
        contextlib.redirect_stdout(sys.stderr),
        _stdout_to_stderr(),
        _no_hard_exit(),
        limited_import(),
    ):
        yield


@contextlib.contextmanager
def _crashes_shown() -> Iterator[None]:
    if faulthandler.is_enabled():
        yield
        return
    try:
        faulthandler.enable(file=2, all_threads=False)
    except (OSError, ValueError):  # closed
        yield
        return
    try:
        yield
    finally:
        faulthandler.disable()


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
def limited_import() -> Iterator[None]:
    """Run an import with an end to patience: an error is raised inside of it, as far as its code lets signals in."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can be interrupted
        return

    seconds = import_seconds()
    with time_limit(seconds, ImportTookTooLongError(f"it was not imported within {seconds:g} s")):
        yield


@contextlib.contextmanager
def time_limit(seconds: float, error: BaseException) -> Iterator[None]:
    """Raise an error inside of a block that takes longer; in the main thread only."""

    def give_up(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise error

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
