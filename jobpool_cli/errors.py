"""Every error a user can meet, each with its exit code; ``cli.main`` turns them into messages in one place.

An error says what happened and why (the message) and what to do next (the hint). Its class decides the exit code, and
the codes are a public contract: ``docs/reference/exit-codes.md`` lists them for scripts.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a jobpool command returns to the shell."""

    OK = 0
    TASKS_FAILED = 1
    USAGE = 2
    NO_SUCH_POOL = 3
    CONFLICT = 4
    DAMAGED = 5
    SYSTEM = 6
    TIMED_OUT = 124
    INTERRUPTED = 130


class JobPoolError(Exception):
    """Base of all errors that jobpool raises on purpose.

    Args:
        message: what happened and why, one or a few lines, without a trailing full stop.
        hint: what the user can do next; empty where there is nothing sensible to say.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.SYSTEM

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep the message and the hint apart, so that each face can set them as it likes."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            # What a Python session shows of an exception; a command writes both itself.
            self.add_note(f"hint: {hint}")


class UsageError(JobPoolError):
    """The request cannot be carried out as it was written."""

    exit_code = ExitCode.USAGE


class InputError(UsageError):
    """The arguments (a file, a table, a value) or the UDF are not usable; nothing was started."""


class NoSuchPoolError(JobPoolError):
    """There is no pool of that name."""

    exit_code = ExitCode.NO_SUCH_POOL


class ConflictError(JobPoolError):
    """The pool is in a state in which the request makes no sense: running, cancelled, locked, taken."""

    exit_code = ExitCode.CONFLICT


class DamagedPoolError(JobPoolError):
    """The pool directory does not hold what its format promises."""

    exit_code = ExitCode.DAMAGED


class OtherFormatError(DamagedPoolError):
    """It is another version's, or another program's: nothing that this jobpool could mend."""


class MachineError(JobPoolError):
    """The machine refused: disk full, no permission, a limit."""

    exit_code = ExitCode.SYSTEM


# What is written is not taken: why, in words that people search for, and what they can do. What passes comes first.
REFUSALS = {
    errno.ENOSPC: ("disk full", "free some space there, or choose another place"),
    errno.EDQUOT: ("disk quota used up", "free some space there, or choose another place"),
    errno.EFBIG: ("file size limit reached (ulimit -f)", "raise the limit of the shell: ulimit -f unlimited"),
    errno.EIO: ("I/O error", "see what the system says of the disk: dmesg"),
    errno.EROFS: ("read-only file system", "see why it is mounted so, or choose another place"),
}
# There may be room again, so that whoever can wait goes on; all other refusals are for people to look into.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def has_no_room(error: OSError) -> bool:
    """Return whether a disk that is full, or a quota that is used up, refused what was to be written."""
    return error.errno in NO_ROOM


class DiskError(MachineError):
    """A disk does not take what is written to it.

    Attributes:
        number: the system's number for the reason, one of ``REFUSALS``.
    """

    def __init__(self, number: int, what: str) -> None:
        """Say what cannot be done, why and what next."""
        reason, hint = REFUSALS[number]
        super().__init__(f"{what}: {reason}", hint)
        self.number = number

    @property
    def may_pass(self) -> bool:
        """Whether waiting may help."""
        return self.number in NO_ROOM


def refused(error: OSError, what: str, hint: str = "") -> MachineError:
    """Return what an error of the system means for whoever wanted to write.

    Args:
        error: it.
        what: what cannot be done.
        hint: what to do next, where it is not the disk.
    """
    if error.errno in REFUSALS:
        return DiskError(error.errno, what)
    return MachineError(f"{what}: {error.strerror or error}", hint)


class WaitTimeoutError(JobPoolError, TimeoutError):
    """The wait ended before what was waited for happened; the pool goes on."""

    exit_code = ExitCode.TIMED_OUT


class TasksFailedError(JobPoolError):
    """Some tasks of the pool failed, and the request was for all of them."""

    exit_code = ExitCode.TASKS_FAILED


class PoolWarning(UserWarning):
    """Something about a pool that its reader should know, and that is no reason to refuse."""


# --- failures of tasks that no exception of the UDF stands for


class TaskFailure(Exception):  # noqa: N818 - these are names that users read in `errors`, as they read ValueError
    """A task failed, and not by an exception of its own function."""


class WorkerCrashed(TaskFailure):
    """The worker process died while it ran the task, as often as ``max_crashes`` allows."""


class TaskTimeout(TaskFailure, TimeoutError):  # noqa: N818 - as TaskFailure
    """The task ran past its ``timeout`` and was stopped."""


class TaskCancelled(TaskFailure):
    """The task was cancelled before it had finished."""


class MemoryLimitExceeded(TaskFailure, MemoryError):  # noqa: N818
    """The task's process and its children held more than ``memory_limit`` and were stopped."""


class ResultNotStorable(TaskFailure):
    """The function returned a value that can be neither a column nor a pickle."""


class ResultTooLarge(ResultNotStorable):
    """The function returned more than one result can hold."""


class RemoteError(TaskFailure):
    """The function raised what cannot be raised here: its class is out of reach, or it would end this process.

    Attributes:
        type: the exception's type, qualified unless a builtin.
        message: its text.
    """

    def __init__(self, type: str, message: str) -> None:  # noqa: A002 - what it is called wherever failures are told of
        """Stand for an exception of that type."""
        super().__init__(type, message)
        self.type = type
        self.message = message

    def __str__(self) -> str:
        """The last line of its traceback."""
        return f"{self.type}: {self.message}" if self.message else self.type


class RemoteTraceback(Exception):  # noqa: N818 - what a traceback shows before the exception of the user's function
    """The traceback of a task, as text: the cause of the exception that a reader gets."""

    def __init__(self, text: str) -> None:
        """Keep the text."""
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """The text, on lines of its own."""
        return f'\n"""\n{self.text.rstrip()}\n"""'
