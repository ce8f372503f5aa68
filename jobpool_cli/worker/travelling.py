"""A function object on its way to workers: as the module that it is imported from, or as a pickle.

What can be imported in a worker as it was here, is: a function of a module of the user's travels as that module's
source. What cannot (a script's or a notebook's function, a lambda, a closure, a bound method) is pickled by value, and
the modules of the user's that it refers to travel as source. Libraries stay where they are.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
import io
import linecache
import os
import re
import sys
import typing
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from jobpool_cli.errors import InputError
from jobpool_cli.store import origins
from jobpool_cli.store.snapshot import (
    LINES_FOLDER,
    PICKLE_FILE,
    Kind,
    Snapshot,
    files_needed,
    resolve,
    write_snapshot,
)
from jobpool_cli.store.values.byvalue import ByValuePickler
from jobpool_cli.store.values.pickles import main_file
from jobpool_cli.worker.function import check_runnable, code_holder, innermost, unwrapped
from jobpool_cli.worker.loading import callable_form
from jobpool_cli.worker.unpicklable import find_unpicklable

# Before an import stand its level and the names that are taken from the module.
_LOADS_OF_CONSTANTS = {"LOAD_CONST", "LOAD_SMALL_INT"}
_NOTEBOOK = re.compile(r"<ipython-input-|[/\\]ipykernel_\d+[/\\]")


@dataclass(frozen=True)
class PythonUdf:
    """A function that was given as an object, ready to be stored.

    Attributes:
        function: what a worker will call.
        name: the function's name.
        entry: where it comes from, for people.
    """

    function: Callable[..., Any]
    name: str
    entry: str
    _snapshot: Snapshot
    _files: list[tuple[Path, Path]] = field(repr=False)
    _contents: dict[str, bytes] = field(repr=False)
    _main_file: Path | None = None

    def take(self, folder: Path, version: int) -> Snapshot:
        """Snapshot the code; see ``write_snapshot``."""
        return write_snapshot(
            folder, self._snapshot._replace(version=version), self._files, self._contents, self._main_file
        )


def python_udf(given: Callable[..., Any]) -> PythonUdf:
    """Prepare a function for its way to workers.

    Args:
        given: a function, perhaps wrapped by ``@udf``, or another object that can be called.

    Raises:
        InputError: it cannot be run, or something that it refers to cannot be sent to another process.
    """
    function = unwrapped(given)
    name = _name_of(function)
    check_runnable(function, name, name)
    common = Snapshot(
        version=1,
        kind=Kind.PICKLE,
        path=_file_of(function),
        function=name,
        sys_path=tuple(_sys_path()),
        main=main_file(),
    )
    module = _importable_module(function)
    source = origins.source_of(module) if module else None
    if module and source is not None:
        snapshot = common._replace(
            kind=Kind.MODULE, path=str(source.file), function=function.__qualname__, module=module
        )
        files = _files_of({module})
        # Its own folder first: that is the snapshot's.
        files.sort(key=lambda each: each[0] != source.root)
        entry = f"{source.file}:{snapshot.function}"
        return PythonUdf(callable_form(function), name, entry, snapshot, files, {}, source.file)
    pickler = _FunctionPickler()
    content = pickler.pickled(function, name)
    lines, contents = _lines_of(pickler.codes)
    snapshot = common._replace(
        python="{}.{}".format(*sys.version_info), cloudpickle=cloudpickle.__version__, lines=lines
    )
    return PythonUdf(
        callable_form(function),
        name,
        _entry_of(function, name),
        snapshot,
        _files_of(pickler.modules),
        {PICKLE_FILE: content, **contents},
    )


# --- what a function is called, and where it stands


def _name_of(function: Any) -> str:
    inner = innermost(function)
    name = getattr(function, "__qualname__", None) or getattr(inner, "__qualname__", None) or type(inner).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _file_of(function: Any) -> str:
    code = getattr(code_holder(function), "__code__", None)
    return code.co_filename if isinstance(code, CodeType) else ""


def _entry_of(function: Any, name: str) -> str:
    file = _file_of(function)
    if _NOTEBOOK.search(file):
        return f"notebook:{name}"
    if file.startswith("<"):
        return f"{file.strip('<>')}:{name}"
    if file:
        return f"{os.path.abspath(file)}:{name}"
    module = getattr(innermost(function), "__module__", None)
    return f"{module}.{name}" if module and module != "builtins" else name


def _importable_module(function: Any) -> str | None:
    """The module in which an import in another process finds the function, None if there is none."""
    name, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    module = sys.modules.get(name) if isinstance(name, str) and name != "__main__" else None
    if module is None or not isinstance(qualname, str) or not origins.is_importable(module):
        return None
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return module.__name__ if unwrapped(found) is function else None


# --- what comes along


def _sys_path() -> Iterator[str]:
    for entry in sys.path:
        with_folder = os.path.abspath(entry)  # '' is the folder that the process is in
        if os.path.exists(with_folder):
            yield with_folder


def _files_of(modules: set[str]) -> list[tuple[Path, Path]]:
    """(root, file) of modules of the user's, and of all others of the user's that they need."""
    root_of = functools.cache(origins.root_of)
    start = []
    for name in sorted(modules):
        parts = tuple(name.split("."))
        source = origins.source_of(name)
        # A package without __init__.py may be in many folders: then what counts is where the module is.
        root = source.root if source is not None else root_of(parts[0])
        if root is not None:
            start += [(root, file) for file in resolve(parts, root)]
    return files_needed(start, root_of)


def _lines_of(codes: dict[str, dict[str, Any]]) -> tuple[dict[str, str], dict[str, bytes]]:
    """The text of the files (or cells) that code comes from: by file name the copy's name, and by that the copy."""
    names: dict[str, str] = {}
    contents: dict[str, bytes] = {}
    for shown, scope in codes.items():
        lines = linecache.getlines(shown, scope)
        if lines and not origins.is_library(shown):
            names[shown] = f"{LINES_FOLDER}/{len(names) + 1}"
            contents[names[shown]] = "".join(lines).encode("utf-8", "surrogateescape")
    return names, contents


class _FunctionPickler:
    """Pickles a function, and notes what its pickle refers to.

    Attributes:
        modules: names of modules that it imports, or that its pickle names.
        codes: file names of the code that travels by value, with the globals of one function of each.
    """

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.codes: dict[str, dict[str, Any]] = {}
        self._registered: list[ModuleType] = []
        self._names: dict[str, object] = {}

    def pickled(self, function: Any, name: str) -> bytes:
        """Return the pickle.

        Raises:
            InputError: names what cannot be pickled.
        """
        try:
            annotations = _resolved_annotations(function)
            data = self._dump((function, annotations, {}))
            names = {each: value for each, value in self._names.items() if self._fails(value) is None}
            return self._dump((function, annotations, names)) if names else data
        except Exception as error:
            raise self._refusal(function, name, error) from error
        finally:
            for module in self._registered:
                cloudpickle.unregister_pickle_by_value(module)

    def _dump(self, value: Any) -> bytes:
        buffer = io.BytesIO()
        _NotingPickler(buffer, self).dump(value)
        return buffer.getvalue()

    def note_module(self, name: str | None) -> None:
        """Remember a module that the pickle names; one that cannot be imported elsewhere travels by value."""
        if not name or name in self.modules:
            return
        module = sys.modules.get(name)
        if module is None or name == "__main__" or not origins.is_users(name, module):
            return
        if origins.is_importable(module):
            self.modules.add(name)
        elif module not in self._registered:
            cloudpickle.register_pickle_by_value(module)
            self._registered.append(module)

    def note_code(self, function: FunctionType) -> None:
        """Remember a function that travels by value: where its lines are, and what it imports when it runs."""
        self.codes.setdefault(function.__code__.co_filename, function.__globals__)
        self.modules.update(_imports_in(function.__code__, function.__globals__.get("__package__") or ""))

    def note_annotations(self, found: FunctionType | type) -> None:
        """Remember what the annotations of code that travels by value name: cloudpickle leaves texts as they are."""
        if found.__module__ != "__main__":
            return
        scope = vars(sys.modules["__main__"])
        with contextlib.suppress(Exception):  # annotations may be any text, and evaluating them may raise anything
            texts = [text for text in inspect.get_annotations(found).values() if isinstance(text, str)]
            names = [name for text in texts for name in compile(text, "<annotation>", "eval").co_names]
            self._names.update((name, scope[name]) for name in names if name in scope)

    def _fails(self, value: object) -> Exception | None:
        try:
            self._dump(value)
        except Exception as why:  # noqa: BLE001 - whatever the value's own pickling raises
            return why
        return None

    def _refusal(self, function: Any, name: str, error: Exception) -> InputError:
        found = find_unpicklable(function, self._fails)
        if found is None:
            return InputError(f"{name} cannot be sent to another process: {error}", "define it in a file")
        return InputError(
            f"{name} uses {found.path}, a {found.kind}, which cannot be sent to another process: {found.error}",
            "make it inside the function, or pass what is needed to make it as an argument",
        )


class _NotingPickler(ByValuePickler):
    def __init__(self, file: io.BytesIO, notes: _FunctionPickler) -> None:
        super().__init__(file, protocol=5)
        self._notes = notes

    def reducer_override(self, obj: Any) -> Any:
        """Note what passes, and leave it to cloudpickle."""
        if isinstance(obj, ModuleType):
            self._notes.note_module(obj.__name__)
        elif isinstance(obj, FunctionType | type):
            self._notes.note_module(obj.__module__)
        elif isinstance(obj, functools._lru_cache_wrapper) and _importable_module(obj) is None:  # noqa: SLF001 - no other name
            # It would be pickled by its name, whether or not that can be found.
            return _cached_again, (obj.__wrapped__, obj.cache_parameters())
        elif isinstance(obj, weakref.WeakKeyDictionary):
            # In every functools.singledispatch; what nobody else holds is gone after loading, as it should be.
            return type(obj), (dict(obj),)
        reduced = super().reducer_override(obj)
        if isinstance(obj, FunctionType | type) and reduced is not NotImplemented:
            self._notes.note_annotations(obj)
            if isinstance(obj, FunctionType):
                self._notes.note_code(obj)
        return reduced


def _resolved_annotations(function: Any) -> dict[str, Any]:
    """The types of annotations that are texts: a worker may not have the names in them."""
    holder = code_holder(function)
    try:
        if any(isinstance(each, str) for each in holder.__annotations__.values()):
            return typing.get_type_hints(holder, include_extras=True)
    except Exception:  # noqa: BLE001 - no annotations at all, or one that does not resolve, which is told of elsewhere
        return {}
    return {}


def _cached_again(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _imports_in(code: CodeType, package: str) -> Iterator[str]:
    """Yield the names that code imports when it runs, its inner functions' included."""
    constants: list[Any] = [None, None]
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            level, names = constants[-2:]
            base = str(step.argval)
            if level:
                parents = package.split(".")[: 1 - level or None]
                base = ".".join(filter(None, (*parents, base)))
            yield base
            yield from (f"{base}.{name}" for name in names or () if name != "*")
        elif step.opname in _LOADS_OF_CONSTANTS:
            constants.append(step.argval)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _imports_in(each, package)
