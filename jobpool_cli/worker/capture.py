"""All that a task writes, by whatever means, goes to the worker's log; and the next task finds the world as it was.

The log is file descriptors 1 and 2, opened for appending: output of Python, C and subprocesses lands in it in the
order of the writes, and the descriptor's offset is the end of what was written.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import io
import os
import signal
import sys

# What `signal.getsignal` wraps: looked at after every task, and the wrapper takes ten times as long for nothing.
from _signal import getsignal  # type: ignore[import-not-found]
from types import FrameType

STDOUT, STDERR = 1, 2
C_UNBUFFERED = 2  # _IONBF of <stdio.h> on Linux

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)


class StopTask(BaseException):
    """Raised inside the running task by SIGTERM: a time limit or a cancellation; ``finally`` blocks still run."""


def _on_sigterm(_signal: int, frame: FrameType | None) -> None:
    del frame
    raise StopTask


class OutputCapture:
    """Owner of descriptors 1 and 2, of the standard streams, and of what a task may have changed in the process."""

    def __init__(self) -> None:
        """Take over the descriptors, which are the log already."""
        self._log = os.dup(STDOUT)
        os.dup2(STDOUT, STDERR)
        self._inode = os.fstat(self._log).st_ino
        self._streams()
        with contextlib.suppress(OSError, AttributeError, ValueError):
            # C's stdout buffers when it is a file: then printf would come out of order, in another task's range.
            libc = ctypes.CDLL(None)
            libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, C_UNBUFFERED, 0)
        signal.signal(signal.SIGTERM, _on_sigterm)
        # Ctrl-C in the terminal of `map` is not meant for the pool; and hang-ups belong to the terminal.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        faulthandler.enable(file=self._log, all_threads=True)
        # Also for a task that loops in C and never comes back to the handler above: where it is, goes to the log.
        faulthandler.register(signal.SIGTERM, file=self._log, all_threads=False, chain=True)
        self._changed_folder = False
        sys.addaudithook(self._audit)

    def remember(self) -> None:
        """Take the present state as the one that every task finds; call once the UDF is loaded."""
        self._handlers = [(int(number), getsignal(number)) for number in SIGNALS]
        self._path = list(sys.path)
        self._folder = os.getcwd()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._changed_folder = False

    def _audit(self, event: str, _arguments: tuple[object, ...]) -> None:
        if event == "os.chdir":
            self._changed_folder = True

    def _streams(self) -> None:
        # One stream under both names, as both are one file: nothing can come out of order, and there is one to flush.
        self._raw = io.FileIO(STDOUT, "w", closefd=False)
        # Line by line, as on a terminal: a running task's log can be followed, a task that kills its worker leaves its
        # last words, and what children and C code write comes in between where it belongs. No buffer of bytes below,
        # as with `python -u`: a line is one write anyway, and passes one layer less.
        self._stream = io.TextIOWrapper(self._raw, "utf-8", "backslashreplace", line_buffering=True)
        sys.stdout = sys.stderr = self._stream
        for name in ("__stdout__", "__stderr__"):
            setattr(sys, name, self._stream)
        self._flush, self._offset = self._stream.flush, self._raw.tell

    def end_of_output(self) -> int:
        """Push out what the task wrote, mend the cheap things, and return the log's length in bytes."""
        if sys.stdout is not self._stream or sys.stderr is not self._stream:
            for stream in (sys.stdout, sys.stderr):
                # The task put a stream of its own there; what it holds back is the task's business.
                with contextlib.suppress(Exception):
                    stream.flush()
            sys.stdout = sys.stderr = self._stream
        if self._changed_folder:
            self._mend_folder()
        try:
            self._flush()
            return self._offset()
        except (OSError, ValueError):
            self._mend_descriptors()
            return self._offset()

    def sure_end_of_output(self) -> int:
        """Return the log's length once `end_of_output` has changed: the task wrote, or turned descriptor 1 elsewhere.

        A short task that turns only descriptor 2 elsewhere, or 1 to where the offset happens to be the same, goes
        unnoticed until `restore`: what C code of the next short tasks writes is lost until then, no more.
        """
        self._restore_descriptors()
        return self._offset()

    def restore(self) -> None:
        """Undo what a task may have changed: descriptors, working directory, umask, signal handlers, sys.path.

        A few microseconds; the loop calls it after every task that took long enough to have done anything costly.
        """
        self._restore_descriptors()
        self._mend_folder()
        if os.umask(self._umask) != self._umask:
            os.umask(self._umask)
        for number, handler in self._handlers:
            if getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
        if sys.path != self._path:
            sys.path[:] = self._path

    def _restore_descriptors(self) -> None:
        for fd in (STDOUT, STDERR):
            try:
                if os.fstat(fd).st_ino != self._inode:
                    os.dup2(self._log, fd)
            except OSError:
                os.dup2(self._log, fd)

    def _mend_folder(self) -> None:
        self._changed_folder = False
        try:
            if os.getcwd() == self._folder:
                return
        except FileNotFoundError:
            pass
        with contextlib.suppress(OSError):
            os.chdir(self._folder)
        self._changed_folder = False

    def _mend_descriptors(self) -> None:
        for fd in (STDOUT, STDERR):
            os.dup2(self._log, fd)
        self._streams()
