"""Failures as exceptions again: of the type that the function raised, and telling which task it was."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Mapping, Sequence

from jobpool_cli import errors
from jobpool_cli.errors import DamagedPoolError, RemoteError, RemoteTraceback, TaskFailure
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import Failure
from jobpool_cli.store.arguments.stored import read_calls
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.values.pickles import unpickled

_VALUE_LENGTH = 60
_NOTE_LENGTH = 400


def exceptions_of(paths: PoolPaths, reader: StateReader, tasks: Sequence[int] | None = None) -> dict[int, Exception]:
    """Return the exception of each failed task, by task, ascending.

    Loading them may run the user's code: only for a pool of one's own.

    Args:
        paths: the pool.
        reader: its state.
        tasks: only of these, where they failed; of all by default.
    """
    with reader.snapshot():
        failures = reader.failures(tasks)
        pickles = reader.exception_pickles([failure.task for failure in failures] if tasks is not None else None)
    failures = sorted({failure.task: failure for failure in failures}.values())
    calls = _calls(paths, [failure.task for failure in failures])
    return {
        failure.task: restore(failure, pickles.get(failure.task), pool=paths.root.name, arguments=call)
        for failure, call in zip(failures, calls, strict=True)
    }


def _calls(paths: PoolPaths, tasks: Sequence[int]) -> list[dict[str, object]]:
    """What tasks were called with; empty for those whose arguments cannot be loaded: their exceptions can."""
    if not tasks:
        return []
    try:
        return read_calls(paths.args, tasks, skip_unreadable=True)
    except DamagedPoolError:
        return [{} for _ in tasks]


def restore(failure: Failure, pickle: bytes | None, *, pool: str, arguments: Mapping[str, object]) -> Exception:
    """Return a failure as an exception of the type that the function raised, if that is to be had here.

    It has the attributes ``task``, ``arguments`` and ``remote_traceback`` (unless the user's class gives these names
    another meaning), a note that names the task, and the remote traceback as its cause.

    Args:
        failure: what is known of it.
        pickle: the exception, if it could be pickled.
        pool: the pool's name.
        arguments: what the function was called with.
    """
    raised = _raised(failure, pickle)
    text = failure.traceback or (f"{failure.type}: {failure.message}" if failure.message else failure.type)
    for name, value in (("task", failure.task), ("arguments", dict(arguments)), ("remote_traceback", text)):
        with contextlib.suppress(Exception):
            if not hasattr(raised, name):
                # Past whatever the class makes of setting attributes.
                object.__setattr__(raised, name, value)
    with contextlib.suppress(Exception):
        raised.add_note(_note(failure, pool, arguments))
    if failure.traceback:
        object.__setattr__(raised, "__cause__", RemoteTraceback(text))
    return raised


def _raised(failure: Failure, pickle: bytes | None) -> Exception:
    if pickle is not None:
        try:
            found = unpickled(pickle)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - the class's own code, or its file, which may be gone
            found = None
        # Others would end this process, or an event loop: exit(), Ctrl-C, a cancelled future.
        if isinstance(found, Exception):
            return found
    kind = getattr(errors, failure.type, None)
    if isinstance(kind, type) and issubclass(kind, TaskFailure) and kind is not RemoteError:
        return kind(failure.message)
    return RemoteError(failure.type, failure.message)


def _note(failure: Failure, pool: str, arguments: Mapping[str, object]) -> str:
    """Which task it was, on one line."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _VALUE_LENGTH
    shown = ", ".join(f"{name}={_on_one_line(short.repr(value))}" for name, value in arguments.items())
    if len(shown) > _NOTE_LENGTH:
        shown = f"{shown[:_NOTE_LENGTH]}..."
    return f"task {failure.task} of {pool}{shown and ': '}{shown}"


def _on_one_line(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= _VALUE_LENGTH else f"{shown[:_VALUE_LENGTH]}..."
