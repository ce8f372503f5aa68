"""Loading the user's function from a pool's snapshot, as if from where the user has it.

Tracebacks and ``__file__`` name the original files, and show the lines as they were submitted.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from jobpool_cli.errors import DamagedPoolError, InputError
from jobpool_cli.store.reentry import importing_now
from jobpool_cli.store.snapshot import PICKLE_FILE, Kind, Snapshot, snapshot_files
from jobpool_cli.store.values.pickles import runs_as_main, travels_by_value, unpickled
from jobpool_cli.worker.function import (
    code_holder,
    compile_source,
    import_failure,
    module_name,
    pick,
    run_file,
    unwrapped,
)
from jobpool_cli.worker.siblings import (
    SiblingFinder,
    dotted_names,
    forget_siblings,
    is_from_snapshot,
    remember_source,
)


def load_snapshot(folder: Path, snapshot: Snapshot) -> Callable[..., Any]:
    """Load the function from a snapshot.

    The user's modules come from the snapshot, else from where they were. Meant for a process of its own: ``sys.path``
    stays changed.

    Raises:
        DamagedPoolError: the snapshot is not whole.
        InputError: the code does not import.
    """
    # Another version of the code (`retry --udf`) may have been loaded: its modules must not pass for these.
    forget_siblings()
    names = _serve_modules(folder, snapshot)
    runs_as_main((snapshot.main, {}))
    for shown, copy in snapshot.lines.items():
        remember_source(shown, _content(folder, copy))
    if snapshot.kind is Kind.FILE:
        names.add(module_name(Path(snapshot.path)))
    # Readers of the results may be unable to import these.
    for name in names:
        travels_by_value(name)
    return callable_form(_LOADERS[snapshot.kind](folder, snapshot))


def callable_form(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose parameters can be told: a built-in one that does not tell takes one value."""
    try:
        inspect.signature(function)
    except TypeError:
        return function  # no function at all: whoever asks for its signature says so
    except ValueError:

        @functools.wraps(function, assigned=("__name__", "__qualname__", "__doc__"), updated=())
        def call(value: object, /) -> Any:
            return function(value)

        # Where inspect would look for the parameters.
        del call.__wrapped__
        return call
    return function


def _serve_modules(folder: Path, snapshot: Snapshot) -> set[str]:
    """Let imports find the user's modules in the snapshot; return the names of all modules in it."""
    main = Path(snapshot.path).name if snapshot.kind is Kind.FILE else None
    files = snapshot_files(folder)
    found: set[str] = set()
    finders = []
    for place, original in snapshot.roots.items():
        inside = _inside(files, place, snapshot.roots)
        names = dotted_names(each for each in inside if each.endswith(".py") and (place or each != main))
        found.update(names)
        # Otherwise the recorded path leads to the original folder, at its place among the others.
        beside = not snapshot.sys_path
        finders.append(SiblingFinder(folder / place, Path(original), names, look_beside=beside))
    for finder in reversed(finders):
        sys.meta_path.insert(0, finder)
        sys.path[:0] = finder.path_entries
    _extend_path(snapshot.sys_path)
    return found


def _inside(files: Iterable[str], place: str, places: Iterable[str]) -> list[str]:
    """The files in one of the snapshot's folders, relative to it, without those in the others."""
    if place:
        return [each.removeprefix(f"{place}/") for each in files if each.startswith(f"{place}/")]
    others = tuple(f"{other}/" for other in places if other)
    return [each for each in files if not each.startswith(others)]


def _extend_path(wanted: tuple[str, ...]) -> None:
    """Look for modules where the process that took the snapshot does, in its order, and then where this one does."""
    missing = [entry for entry in wanted if entry not in sys.path]
    shared = next((position for position, entry in enumerate(wanted) if entry in sys.path), len(wanted))
    # What comes before the first folder that both have is the script's own and PYTHONPATH: it goes before ours, too.
    before = [entry for entry in wanted[:shared] if entry in missing]
    first = next((position for position, entry in enumerate(sys.path) if entry in wanted), len(sys.path))
    sys.path[first:first] = before
    sys.path += missing[len(before) :]


def _from_file(folder: Path, snapshot: Snapshot) -> Any:
    path = Path(snapshot.path)
    content = _content(folder, path.name)
    remember_source(path, content)
    return pick(run_file(path, compile_source(path, content)), path, snapshot.function)


def _from_module(_folder: Path, snapshot: Snapshot) -> Any:
    present = sys.modules.get(snapshot.module)
    if present is not None and not is_from_snapshot(present):
        raise InputError(
            f"{snapshot.path} is the module {snapshot.module}, and in a worker another module has that name already:"
            f" {getattr(present, '__file__', 'a built-in one')}",
            "give the file another name",
        )
    path = Path(snapshot.path)
    try:
        with importing_now(snapshot.path):
            found: Any = importlib.import_module(snapshot.module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise import_failure(path, error) from error
    for name in snapshot.function.split("."):
        found = getattr(found, name, None)
    if found is None:
        raise InputError(
            f"{path} has no function {snapshot.function} when it is imported anew",
            "define it whatever the circumstances",
        )
    return unwrapped(found)


def _from_pickle(folder: Path, snapshot: Snapshot) -> Any:
    here = "{}.{}".format(*sys.version_info)
    if snapshot.python != here:
        raise InputError(
            f"the function was pickled by Python {snapshot.python}, and this is Python {here} ({sys.executable}):"
            " their pickles of functions do not fit",
            f"go on with Python {snapshot.python}, or put the function into a file and retry with that as --udf",
        )
    content = _content(folder, PICKLE_FILE)
    try:
        with importing_now(snapshot.path):
            function, annotations, names = unpickled(content)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise import_failure(Path(snapshot.path or snapshot.function), error) from error
    holder = code_holder(function)
    if annotations:
        holder.__annotations__ = annotations
    own = getattr(holder, "__globals__", {})
    if own.get("__name__") == "__main__":
        _set_main(snapshot.main, {**names, **own})
    return function


def _set_main(file: str, names: Mapping[str, object]) -> None:
    """Let ``__main__`` be what it was to the function: who resolves annotations of its classes looks there."""
    main = ModuleType("__main__")
    vars(main).update({name: value for name, value in names.items() if not name.startswith("__")})
    sys.modules["__main__"] = main
    runs_as_main((file, vars(main)))


_LOADERS = {Kind.FILE: _from_file, Kind.MODULE: _from_module, Kind.PICKLE: _from_pickle}


def _content(folder: Path, relative: str) -> bytes:
    if relative not in snapshot_files(folder):
        raise DamagedPoolError(f"the snapshot {folder} does not hold {relative}")
    try:
        return (folder / relative).read_bytes()
    except OSError as error:
        raise DamagedPoolError(f"{folder / relative} cannot be read: {error.strerror or error}") from error
