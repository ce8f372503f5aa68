"""All that a task writes, by whatever means, goes to the worker's log.

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
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from jobpool_cli.worker.patience import Patience
from jobpool_cli.worker.surroundings import Surroundings

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

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

# What a worker that does not heed SIGTERM is sent before it is killed: it writes down where its threads are. Nobody
# else uses the last of the real-time signals, and a function that ignores the well-known ones leaves it alone.
TRACE_SIGNAL = signal.SIGRTMAX


class StopTask(BaseException):
    """Raised inside the running task by SIGTERM: a time limit or a cancellation; ``finally`` blocks still run."""


class _Log(io.FileIO):
    """The log as Python writes to it: what is refused is tried again for as long as the capture says so."""

    def __init__(self, again: Callable[[OSError], bool]) -> None:
        super().__init__(STDOUT, "w", closefd=False)
        self._again = again

    def write(self, data: ReadableBuffer, /) -> int:
        while True:
            try:
                return super().write(data)
            except OSError as error:
                if not self._again(error):
                    raise


class OutputCapture:
    """Owner of descriptors 1 and 2 and of the standard streams."""

    def __init__(self, patience: Patience | None = None) -> None:
        """Take over the descriptors, which are the log already; ``patience`` is for the disk that the log is on."""
        self._patience = patience
        self._log = os.dup(STDOUT)
        os.dup2(STDOUT, STDERR)
        self._inode = os.fstat(self._log).st_ino
        self._gatherer: threading.Thread | None = None
        # A child that is forked while that thread writes would wait for ever for the lock of the stream.
        self._flushing = threading.Lock()
        release = self._flushing.release
        os.register_at_fork(before=self._flushing.acquire, after_in_parent=release, after_in_child=release)
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
        faulthandler.register(TRACE_SIGNAL, file=self._log, all_threads=True, chain=False)
        self.surroundings = Surroundings()
        sys.addaudithook(self._audit)

    def _audit(self, event: str, _arguments: tuple[object, ...]) -> None:
        if event in STARTS_OF_PROCESSES and self._gathers:
            self._gather(on=False)

    def _on_sigterm(self, _signal: int, _frame: FrameType | None) -> None:
        self._gather(on=False)
        raise StopTask

    def _streams(self) -> None:
        # One stream under both names, as both are one file: nothing can come out of order, and there is one to flush.
        self._raw = _Log(self._write_again)
        # The buffer of bytes has a lock: the thread that flushes and the task's end cannot overtake each other.
        self._stream = io.TextIOWrapper(io.BufferedWriter(self._raw), "utf-8", "backslashreplace", line_buffering=True)
        self._gathers = False
        sys.stdout = sys.stderr = self._stream
        for name in ("__stdout__", "__stderr__"):
            setattr(sys, name, self._stream)
        self._flush, self._offset = self._stream.flush, self._raw.tell

    def _write_again(self, error: OSError) -> bool:
        """Whether to write output of Python again that was refused: to the log, when there may be room for it."""
        # The thread that shows what is gathered has a lock that the task waits for.
        if self._patience is None or threading.current_thread() is self._gatherer:
            return False
        with contextlib.suppress(OSError):
            # The task may have turned its output elsewhere, and then that is its own business.
            is_log = os.fstat(STDOUT).st_ino == self._inode
            return is_log and self._patience.wait(error, "a worker's log")
        return False

    def end_of_output(self) -> int:
        """Push out what the task wrote, mend the cheap things, and return the log's length in bytes."""
        try:
            if sys.stdout is not self._stream or sys.stderr is not self._stream:
                self._put_streams_back()
            if self.surroundings.changed or sys.path != self.surroundings.path:
                self.restore()
        except AttributeError:  # it deleted one of them
            self._put_streams_back()
            self.restore()
        try:
            self._flush()
            return self._offset()
        except (OSError, ValueError):
            self._mend_descriptors()
            return self._offset()

    def _put_streams_back(self) -> None:
        for name in ("stdout", "stderr"):
            # What a stream of the task's own holds back is the task's business, and so is what it raises.
            with contextlib.suppress(Exception):
                getattr(sys, name).flush()
            setattr(sys, name, self._stream)

    def sure_end_of_output(self) -> int:
        """Return the log's length once `end_of_output` has changed: the task wrote, or turned descriptor 1 elsewhere.

        A short task whose C code turns only descriptor 2 elsewhere, or 1 to where the offset happens to be the same,
        goes unnoticed until `restore`: what C code of the next short tasks writes is lost until then, no more.
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
                with self._flushing:
                    self._flush()
                end = self._offset()
                if self._gathers and end - seen < GATHERED_SECONDS * GATHER_ABOVE_BYTES_PER_SECOND:
                    self._gather(on=False)
                seen = end

    def restore(self) -> None:
        """Undo what a task may have changed, the descriptors and all that ``surroundings`` knows.

        A few microseconds; the loop calls it after every task that took long enough to have done anything costly.
        """
        self._restore_descriptors()
        self.surroundings.restore()

    def _restore_descriptors(self) -> None:
        for fd in (STDOUT, STDERR):
            try:
                if os.fstat(fd).st_ino != self._inode:
                    os.dup2(self._log, fd)
            except OSError:
                os.dup2(self._log, fd)

    def _mend_descriptors(self) -> None:
        for fd in (STDOUT, STDERR):
            os.dup2(self._log, fd)
        self._streams()
