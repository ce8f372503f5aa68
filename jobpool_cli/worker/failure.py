"""A failed attempt as plain data: the exception's type and message, where it came from, its traceback, its pickle."""

from __future__ import annotations

import base64
import os
import sys
import traceback
from types import TracebackType
from typing import Any

from jobpool_cli import errors
from jobpool_cli.errors import ResultNotStorable, ResultTooLarge
from jobpool_cli.store.origins import is_library
from jobpool_cli.worker.capture import StopTask

MESSAGE_LIMIT = 10_000
FRAMES_LIMIT = 50_000
PICKLE_LIMIT = 1_000_000
# A runaway recursion leaves a million frames; laying all of them out takes a minute, and the deepest tell the story.
DEEPEST_FRAMES = 200

_PACKAGE = os.path.dirname(errors.__file__) + os.sep


def qualified_name(kind: type[BaseException]) -> str:
    """Return the exception type's name, with its module unless it is a builtin."""
    if kind.__module__ in ("builtins", "__main__", "jobpool_cli.errors"):
        return sound(kind.__qualname__)
    return sound(f"{kind.__module__}.{kind.__qualname__}")


def describe(error: BaseException) -> dict[str, Any]:
    """Return what the supervisor records of an exception, JSON-able; never raises for odd exceptions.

    Keys: type, message (and notes), frames (the traceback's text before these), where ([file, line, function] or null),
    exception (base64 of a pickle that was seen to load again, or null).
    """
    message = _text_of(error)
    own = _without_our_frames(error.__traceback__)
    try:
        shown = traceback.TracebackException(type(error), error, own, compact=True, limit=-DEEPEST_FRAMES)
        frames, notes = _around_last_line(shown, type(error).__qualname__)
    except StopTask:
        raise
    except BaseException:  # noqa: BLE001 - its notes, causes and the text of its lines are user code, too
        frames, notes = "".join(traceback.format_tb(own)), ""
    return {
        "type": qualified_name(type(error)),
        "message": cut(sound(f"{message}\n{notes}" if notes else message), MESSAGE_LIMIT),
        "frames": cut(sound(frames), FRAMES_LIMIT),
        "where": _deepest_user_frame(own),
        "exception": _pickled(error),
    }


def exit_code_of(error: BaseException) -> int:
    """Print what ended a process that a task forked, as Python would, and return its exit code."""
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    elif error.code is not None and not isinstance(error.code, int):
        print(error.code, file=sys.stderr)  # noqa: T201 - the task's log
    else:
        return (error.code or 0) & 0xFF
    return 1


def unstorable(result: object, error: BaseException) -> ResultNotStorable:
    """Return the failure of a task whose function returned something that no process but its own could read."""
    if isinstance(error, ResultTooLarge):
        return error
    return ResultNotStorable(
        f"the function returned a {type(result).__qualname__}, which cannot be stored:"
        f" {type(error).__name__}: {sound(_text_of(error))}; return plain data, a table, or something that pickles"
    )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except StopTask:
        raise
    except BaseException as odd:  # noqa: BLE001 - user code: SystemExit as well
        return f"<str() of the exception failed: {type(odd).__name__}>"


def _around_last_line(shown: traceback.TracebackException, kind: str) -> tuple[str, str]:
    """What a traceback shows before the line with type and message, and the notes after it."""
    end = list(shown.format_exception_only())
    last = next((number for number, text in enumerate(end) if text.partition(":")[0].rstrip().endswith(kind)), 0)
    lines = list(shown.format())
    return "".join(lines[: len(lines) - len(end)] + end[:last]), "".join(end[last + 1 :]).rstrip("\n")


def _without_our_frames(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frames = frames.tb_next
    return frames


def _deepest_user_frame(frames: TracebackType | None) -> list[Any] | None:
    found = None
    while frames is not None:
        code = frames.tb_frame.f_code
        if not code.co_filename.startswith(_PACKAGE) and not is_library(code.co_filename):
            found = [sound(code.co_filename), frames.tb_lineno or 0, sound(code.co_qualname)]
        frames = frames.tb_next
    return found


def _pickled(error: BaseException) -> str | None:
    from jobpool_cli.store.values.raised import pickled_exception  # noqa: PLC0415 - cloudpickle: most tasks succeed

    try:
        data = pickled_exception(error, PICKLE_LIMIT)
    except StopTask:
        raise
    except BaseException:  # noqa: BLE001 - its methods are user code, and may raise SystemExit as well
        return None
    # Without it, type, message and traceback are kept all the same.
    return base64.b64encode(data).decode() if data is not None else None


def sound(text: str) -> str:
    """Replace what cannot be written as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def cut(text: str, limit: int) -> str:
    """Leave out the middle of a text that is longer than so many characters."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n[... {len(text) - limit} characters cut ...]\n{text[-limit // 2 :]}"
