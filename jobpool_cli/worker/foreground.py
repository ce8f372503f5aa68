"""One task in the caller's own process: the pool's code and arguments, a debugger where wanted, nothing recorded."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import cloudpickle
import cloudpickle.cloudpickle

from jobpool_cli import errors
from jobpool_cli.errors import MachineError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store.arguments.rows import TaskArguments
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.snapshot import Snapshot, read_snapshot, snapshot_files, verify_snapshot
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.values import pickles
from jobpool_cli.worker import context
from jobpool_cli.worker.function import MODULE_MARK
from jobpool_cli.worker.loading import load_snapshot
from jobpool_cli.worker.siblings import dotted_names, is_from_snapshot

_OURS = os.path.dirname(errors.__file__) + os.sep
# Where cloudpickle remembers the classes that it pickled or loaded; without them it would know none.
_TRACKERS = ("_DYNAMIC_CLASS_TRACKER_BY_CLASS", "_DYNAMIC_CLASS_TRACKER_BY_ID")


def run_in_foreground(paths: PoolPaths, manifest: Manifest, task: int, *, debugger: bool = False) -> Any:
    """Call the function for one task here and now, as a retry would call it, and return what it returns.

    The pool is not changed, and what loading the code changes in this process is put back afterwards.

    Args:
        paths: the pool, which must be one's own.
        manifest: its pool.json.
        task: which task.
        debugger: open pdb where an exception was raised, before it goes on.

    Raises:
        InputError: the code does not load.
        DamagedPoolError: the code or the arguments are not what was submitted.
        MachineError: the tasks' working folder is gone.
        BaseException: what the function raises, with a traceback that begins in the function.
    """
    with StateReader(paths.state_db) as reader:
        version = reader.counters().udf
        attempt = reader.attempts().get(task, (1, 1))[0]
    folder = paths.udf_version(version)
    verify_snapshot(folder)
    snapshot = read_snapshot(folder)
    try:
        with _working_folder(manifest.folder), _imports_put_back(folder, snapshot), _new_classes():
            function = load_snapshot(folder, snapshot)
            call = TaskArguments(paths.args, function).calls([(task, task + 1)])
            with _as_task(context.TaskContext(paths.root.name, task, attempt)):
                result = _called(call, debugger=debugger)
            data = _to_carry(result)
        return result if data is None else pickles.unpickled(data)
    except BaseException as error:
        _make_own(error, snapshot)
        raise


def from_users_code(frames: TracebackType | None) -> TracebackType | None:
    """Return the traceback without our frames at its beginning; all of it if there are no others."""
    kept = frames
    while kept is not None and kept.tb_frame.f_code.co_filename.startswith(_OURS):
        kept = kept.tb_next
    return kept or frames


def _called(call: Callable[[], Any], *, debugger: bool) -> Any:
    try:
        return call()
    except BaseException as error:
        error.__traceback__ = from_users_code(error.__traceback__)
        if debugger and isinstance(error, Exception):
            _open_debugger(error)
        raise


def _to_carry(result: object) -> bytes | None:
    """A result's pickle if classes of the user's may be in it, which are the snapshot's; the caller has its own."""
    kind = type(result).__module__
    if kind == "builtins" and not isinstance(result, list | tuple | dict | set | frozenset):
        return None
    if kind not in {"builtins", "collections"} and not pickles.is_users_name(kind):
        return None
    try:
        return pickles.pickled(result)
    except Exception:  # noqa: BLE001 - then it is returned as it is
        return None


def _make_own(error: BaseException, snapshot: Snapshot) -> None:
    """Let the caller's ``except`` clauses catch an exception whose class came from the snapshot."""
    kind = type(error)
    is_here = kind.__module__ != "__main__" or pickles.main_file() == snapshot.main
    module = sys.modules.get(kind.__module__) if is_here else None
    own = pickles.reachable(module, kind.__qualname__) if module is not None else None
    if isinstance(own, type) and own is not kind:
        with contextlib.suppress(TypeError):  # another base, or other slots, since
            error.__class__ = own


def _open_debugger(error: Exception) -> None:
    import pdb  # noqa: PLC0415, T100 - what was asked for
    import traceback  # noqa: PLC0415

    traceback.print_exception(error)
    if error.__traceback__ is not None:
        pdb.post_mortem(error.__traceback__)


@contextlib.contextmanager
def _as_task(task: context.TaskContext) -> Iterator[None]:
    before = context.provide(lambda: task)
    try:
        yield
    finally:
        context.provide(before)


@contextlib.contextmanager
def _working_folder(folder: str) -> Iterator[None]:
    try:
        before: str | None = os.getcwd()
    except FileNotFoundError:
        before = None
    try:
        os.chdir(folder)
    except OSError as error:
        raise MachineError(f"the tasks' working folder cannot be entered: {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                os.chdir(before)


@contextlib.contextmanager
def _imports_put_back(folder: Path, snapshot: Snapshot) -> Iterator[None]:
    """Give the user's modules' names to the snapshot's for a while; what else is imported meanwhile stays."""
    path, finders, lines = list(sys.path), list(sys.meta_path), dict(linecache.cache)
    names = {snapshot.module, Path(snapshot.path).stem}
    for relative in dotted_names(each for each in snapshot_files(folder) if each.endswith(".py")):
        # Those of a further root stand behind its folder.
        dotted = relative.partition(".")[2] if relative.startswith("root-") else relative
        names |= {dotted[:end] for end in range(1, len(dotted) + 1) if dotted[end : end + 1] in {"", "."}}
    taken = {name: sys.modules.pop(name) for name in names if name in sys.modules and pickles.is_users_name(name)}
    taken["__main__"] = sys.modules["__main__"]
    main = pickles.runs_as_main(None)
    try:
        yield
    finally:
        pickles.runs_as_main(main)
        for name, module in list(sys.modules.items()):
            if name in names and (is_from_snapshot(module) or hasattr(module, MODULE_MARK)):
                del sys.modules[name]
        sys.modules.update(taken)
        sys.path[:], sys.meta_path[:] = path, finders
        for name in list(linecache.cache):
            # The text of files that are not here (another notebook's cells) stays for the traceback.
            if name in lines:
                linecache.cache[name] = lines[name]
            elif os.path.exists(name):
                del linecache.cache[name]


@contextlib.contextmanager
def _new_classes() -> Iterator[None]:
    """Let pickled classes become classes of their own.

    cloudpickle knows again a class that it pickled in this process, and would give the caller's own class the
    snapshot's methods.
    """
    known = {name: getattr(cloudpickle.cloudpickle, name, None) for name in _TRACKERS}
    for name, tracker in known.items():
        if tracker is not None:
            setattr(cloudpickle.cloudpickle, name, type(tracker)())
    try:
        yield
    finally:
        for name, tracker in known.items():
            if tracker is not None:
                setattr(cloudpickle.cloudpickle, name, tracker)
