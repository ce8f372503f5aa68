"""All that a task writes, by whatever means, goes to the worker's log; and the next task finds the world as it was.

The log is file descriptors 1 and 2, opened for appending: output of Python, C and subprocesses lands in it in the
order of the writes, and the descriptor's offset is the end of what was written.

Python's lines are written one by one, so that a task that kills its worker leaves its last words. Only where tasks
print so fast that this would cost them half their time, lines are gathered: until the task ends or starts a process,
a buffer is full, or a tenth of a second has passed.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import io
import os
import signal
import sys
import threading
import time

# What `signal.getsignal` wraps: looked at after every task, and the wrapper takes ten times as long for nothing.
from _signal import getsignal  # type: ignore[import-not-found]
from types import FrameType

STDOUT, STDERR = 1, 2
C_UNBUFFERED = 2  # _IONBF of <stdio.h> on Linux

# Some tens of lines from one task, and ten thousand a second: what prints more, and faster, is gathered, for so long at
# most.
GATHER_ABOVE_BYTES = 1000
GATHER_ABOVE_BYTES_PER_SECOND = 200_000
GATHERED_SECONDS = 0.1
# Before these, what is gathered must be written: a child's own output follows it, and no child inherits it.
STARTS_OF_PROCESSES = frozenset(
    {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"}
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)


class StopTask(BaseException):
    """Raised inside the running task by SIGTERM: a time limit or a cancellation; ``finally`` blocks still run."""


class OutputCapture:
    """Owner of descriptors 1 and 2, of the standard streams, and of what a task may have changed in the process."""

    def __init__(self) -> None:
        """Take over the descriptors, which are the log already."""
        self._log = os.dup(STDOUT)
        os.dup2(STDOUT, STDERR)
        self._inode = os.fstat(self._log).st_ino
        self._gatherer: threading.Thread | None = None
        self._streams()
        self._measured, self._measured_at = self._offset(), time.monotonic()
        with contextlib.suppress(OSError, AttributeError, ValueError):
            # C's stdout buffers when it is a file: then printf would come out of order, in another task's range.
            libc = ctypes.CDLL(None)
            libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, C_UNBUFFERED, 0)
        signal.signal(signal.SIGTERM, self._on_sigterm)
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
        elif event in STARTS_OF_PROCESSES and self._gathers:
            self._gather(on=False)

    def _on_sigterm(self, _signal: int, _frame: FrameType | None) -> None:
        self._gather(on=False)
        raise StopTask

    def _streams(self) -> None:
        # One stream under both names, as both are one file: nothing can come out of order, and there is one to flush.
        self._raw = io.FileIO(STDOUT, "w", closefd=False)
        # The buffer of bytes has a lock: the thread that flushes and the task's end cannot overtake each other.
        self._stream = io.TextIOWrapper(io.BufferedWriter(self._raw), "utf-8", "backslashreplace", line_buffering=True)
        self._gathers = False
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
        end, now = self._offset(), time.monotonic()
        written = end - self._measured
        fast = written > GATHER_ABOVE_BYTES and written > (now - self._measured_at) * GATHER_ABOVE_BYTES_PER_SECOND
        if fast is not self._gathers:
            self._gather(on=fast)
        self._measured, self._measured_at = end, now
        return end

    def _gather(self, *, on: bool) -> None:
        """Write line by line from now on, or gather lines."""
        # The task may have closed its streams; and a signal may come amid a write, which cannot be entered again.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self._stream.reconfigure(line_buffering=not on)
            self._gathers = on
            if on and self._gatherer is None:
                self._gatherer = threading.Thread(target=self._flush_gathered, name="jobpool-output", daemon=True)
                self._gatherer.start()

    def _flush_gathered(self) -> None:
        """Show what a running task has printed, and go back to single lines once they are slow."""
        seen = 0
        while True:
            time.sleep(GATHERED_SECONDS)
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                self._flush()
                end = self._offset()
                if self._gathers and end - seen < GATHERED_SECONDS * GATHER_ABOVE_BYTES_PER_SECOND:
                    self._gather(on=False)
                seen = end

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
