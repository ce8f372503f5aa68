"""Pickles that another process can load: a class of the user's is the reader's own where it has it, else a copy.

A worker's module ``job`` may be importable where its results are read, or be loaded there under another name
(``__main__``), or be out of reach. So the pickle names the class and the file that defines it, and brings a copy along.
A copy takes some thousands of bytes: the pickles of a column share those that stand in the metadata of its field.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib
import os
import pickle
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import FunctionType
from typing import Any

from jobpool_cli.store import origins
from jobpool_cli.store.reentry import importing_now

_COPIES_KEPT = 256
# Field metadata: before the name of a copy that the pickles of this column share; in base64, as it must be text.
_SHARED_COPY = b"jobpool.copy."

# By their names, copies of classes and functions by value.
Copies = dict[str, bytes]

_shared: ContextVar[Mapping[str, bytes]] = ContextVar("jobpool_copies")

_declared: set[str] = set()
_main: tuple[str, Mapping[str, object]] | None = None


def travels_by_value(module: str) -> None:
    """Declare a module to be the user's, wherever its file lies: the UDF's file, or a sibling of it."""
    _declared.add(module)
    _users_names.cache_clear()


def runs_as_main(main: tuple[str, Mapping[str, object]] | None) -> tuple[str, Mapping[str, object]] | None:
    """Declare what ``__main__`` is to the code that runs here, and return what was declared before.

    Args:
        main: the script that submitted the pool (empty if it was a notebook or a prompt), and what is known of its
            names; None where the code is this process's own.
    """
    global _main
    before, _main = _main, main
    return before


def main_file() -> str:
    """Return the script that this process runs, or whose code it runs; empty in a notebook or at a prompt."""
    return _main_scope()[0]


def runs_others_code() -> bool:
    """Whether this is a worker of a pool whose functions are from a ``__main__`` that is not its own."""
    return _main is not None


def pickled(value: object, copies: Copies | None = None) -> bytes:
    """Return the value as a pickle.

    Args:
        value: anything.
        copies: where the copies of classes go, to be stored beside the pickle; without it they are part of it.

    Raises:
        Exception: whatever the value's own pickling raises.
    """
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - lambdas, local classes: cloudpickle knows how
        return _carefully_pickled(value, copies)
    for name in _users_names(_loaded_modules()):
        if name in data:
            return _carefully_pickled(value, copies)
    return data


def unpickled(data: bytes | memoryview, copies: Mapping[str, bytes] | None = None) -> Any:
    """Return the value of a pickle, which must be from a pool of one's own: loading it may run any code.

    Args:
        data: the pickle.
        copies: what ``pickled`` put beside it.

    Raises:
        Exception: whatever the value's own unpickling raises; ImportError where a class is out of reach.
    """
    if not copies:
        return pickle.loads(data)  # noqa: S301 - the callers see to it that the pool is the user's
    before = _shared.set(copies)
    try:
        return pickle.loads(data)  # noqa: S301 - as above
    finally:
        _shared.reset(before)


def copies_metadata(copies: Copies) -> dict[bytes, bytes]:
    """Return copies as metadata of the field of the pickles that share them; those of two fields may be united."""
    return {_SHARED_COPY + name.encode(): base64.b64encode(copy) for name, copy in copies.items()}


def copies_in(metadata: Mapping[bytes, bytes] | None) -> Copies:
    """Return the copies that the metadata of a field of pickles holds."""
    return {
        key.removeprefix(_SHARED_COPY).decode(): base64.b64decode(copy)
        for key, copy in (metadata or {}).items()
        if key.startswith(_SHARED_COPY)
    }


def type_name(value: object) -> str:
    """Return the name of a value's type, with its module unless that is Python's own."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def is_users_name(module: str) -> bool:
    """Whether a module that is loaded is the user's."""
    return module.partition(".")[0].encode() in _users_names(_loaded_modules())


def users_packages() -> list[str]:
    """Return the top-level names of the user's modules that are loaded."""
    return [name.decode() for name in _users_names(_loaded_modules()) if name != b"__main__"]


def reachable(scope: object, qualname: str) -> object:
    """Return what a qualified name leads to in a module, or in a mapping of its names; None if it leads nowhere."""
    first, *others = qualname.split(".")
    found = scope.get(first) if isinstance(scope, Mapping) else getattr(scope, first, None)
    for name in others:
        found = getattr(found, name, None)
    return found


def own_or_copy(module: str, qualname: str, file: str, copy: bytes | str) -> object:
    """Return the class or function of that name in that file; pickles call this by its name.

    Args:
        module: what the file was called where the pickle was made.
        qualname: the name in it.
        file: absolute path; empty for ``__main__`` in a notebook.
        copy: a pickle of the class by value, or the name of one that stands beside this pickle; empty if it has none.

    Raises:
        ImportError: it is out of reach, and there is no copy.
    """
    for scope in _scopes(module, file):
        found = reachable(scope, qualname)
        if isinstance(found, type | FunctionType):
            return found
    found_copy = _shared.get({}).get(copy) if isinstance(copy, str) else copy
    if found_copy:
        return _loaded(found_copy)
    raise ImportError(f"{qualname} of {file or module} is not to be had here", name=module, path=file)


def _loaded_modules() -> tuple[int, str]:
    """What changes when another module is loaded: how many there are, and the latest; asked for with every pickle."""
    try:
        return len(sys.modules), next(reversed(sys.modules), "")
    except RuntimeError:  # another thread imports something at this very moment
        return _loaded_modules()


@functools.lru_cache(1)
def _users_names(_loaded: tuple[int, str]) -> tuple[bytes, ...]:
    """Top-level names of the user's modules; asked anew whenever another module was loaded."""
    found = {"__main__"}
    for name, module in list(sys.modules.items()):
        if name in _declared or origins.is_users(name, module):
            found.add(name.partition(".")[0])
    return tuple(name.encode() for name in sorted(found))


def _main_scope() -> tuple[str, object]:
    if _main is not None:
        return _main
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    return os.path.abspath(file) if isinstance(file, str) else "", main


def _scopes(module: str, file: str) -> Iterator[object]:
    """Yield where this process has the names of a file, if it does."""
    loaded = sys.modules.get(module) if module != "__main__" else None
    if loaded is not None and _is_of_file(loaded, file):
        yield loaded
    here, scope = _main_scope()
    if origins.same_file(file, here) if file else module == "__main__" and not here:
        yield scope
    if not file:
        return
    name = _loaded_from(file, _loaded_modules())
    if name is not None and _is_of_file(sys.modules.get(name), file):
        yield sys.modules[name]
    elif loaded is None and module != "__main__" and _is_importable(module, file, tuple(sys.path)):
        with contextlib.suppress(Exception, SystemExit), importing_now(file), contextlib.redirect_stdout(sys.stderr):
            yield importlib.import_module(module)


def _is_of_file(module: object, file: str) -> bool:
    own = getattr(module, "__file__", None)
    return isinstance(own, str) and origins.same_file(own, file)


@functools.lru_cache(_COPIES_KEPT)
def _loaded_from(file: str, _loaded: tuple[int, str]) -> str | None:
    """Under which name, other than ``__main__``, a file is loaded here."""
    return next(
        (
            name
            for name, module in list(sys.modules.items())
            if name != "__main__" and getattr(module, "__file__", None) == file
        ),
        None,
    )


@functools.lru_cache(_COPIES_KEPT)
def _is_importable(module: str, file: str, _path: tuple[str, ...]) -> bool:
    found = origins.source_of(module)
    return found is not None and origins.same_file(str(found.file), file)


# One class for all values of it, and the price paid once.
@functools.lru_cache(_COPIES_KEPT)
def _loaded(copy: bytes) -> object:
    return pickle.loads(copy)  # noqa: S301 - part of a pickle that is being loaded


def _carefully_pickled(value: object, copies: Copies | None) -> bytes:
    from jobpool_cli.store.values.careful import carefully_pickled  # noqa: PLC0415 - cloudpickle: rarely needed, 20 ms

    return carefully_pickled(value, copies)
