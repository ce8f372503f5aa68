"""Where modules come from: from Python or an installed package, which every process has, or from a file of the user's.

Nothing is imported to find that out.
"""

from __future__ import annotations

import functools
import importlib.machinery
import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

OURS = __name__.partition(".")[0]
# Wherever they lie, what is in folders of these names was installed, not written by whoever runs it.
_INSTALLED = {"site-packages", "dist-packages"}


class ModuleSource(NamedTuple):
    """A module of the user's.

    Attributes:
        root: the folder from which its top-level module or package is imported.
        file: its Python file, under ``root``.
    """

    root: Path
    file: Path


@functools.cache
def library_folders() -> tuple[str, ...]:
    """Folders, with a separator at their end, whose modules are Python's or installed."""
    found = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {site.getusersitepackages(), *site.getsitepackages()}
    return tuple(sorted(folder + os.sep for folder in found if folder))


def is_library(file: str) -> bool:
    """Whether a file is Python's own or installed."""
    return file.startswith(("<frozen", *library_folders())) or not _INSTALLED.isdisjoint(file.split(os.sep))


def is_users(name: str, module: object) -> bool:
    """Whether a module that is loaded is the user's: its code is no library's, nor jobpool's."""
    if name == "__main__":
        return True
    file = getattr(module, "__file__", None)
    top = name.partition(".")[0]
    if top == OURS:
        return False
    if isinstance(file, str):
        return not is_library(file)
    # Modules without a file are built in, frozen, or made by hand; only the last have no loader either.
    return getattr(module, "__loader__", None) is None and top not in sys.stdlib_module_names


def source_of(name: str) -> ModuleSource | None:
    """Return where a process with this one's ``sys.path`` would import a module of the user's from.

    None for what is not found, or is not a Python file of the user's in a folder that fits the module's name.
    """
    if name.partition(".")[0] == OURS:
        return None
    spec = _find_spec(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py") or is_library(spec.origin):
        return None
    parts = name.split(".")
    file = Path(spec.origin)
    tail = Path(*parts, "__init__.py") if file.name == "__init__.py" else Path(*parts).with_suffix(".py")
    if file.parts[-len(tail.parts) :] != tail.parts:
        return None
    return ModuleSource(file.parents[len(tail.parts) - 1], file)


def root_of(top: str) -> Path | None:
    """Return the folder from which a top-level module or package of the user's is imported, None if it is no user's."""
    found = source_of(top)
    if found is not None:
        return found.root
    spec = _find_spec(top) if top != OURS else None
    # A package without __init__.py.
    places = _places(spec) if spec is not None and spec.origin is None else []
    return next((Path(place).parent for place in places if not is_library(place + os.sep)), None)


def is_importable(module: ModuleType) -> bool:
    """Whether importing a loaded module's name in another process leads to the same file."""
    spec = _find_spec(module.__name__)
    file = getattr(module, "__file__", None)
    return spec is not None and file is not None and spec.origin is not None and same_file(spec.origin, file)


def same_file(first: str, second: str) -> bool:
    """Whether two paths lead to one file; a file that is gone is the same by its path alone."""
    try:
        return first == second or os.path.samefile(first, second)
    except OSError:
        return False


def _find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Ask the import system, part by part, without importing the parents as ``importlib.util.find_spec`` does."""
    parts = name.split(".")
    path: list[str] | None = None
    spec = None
    for end in range(1, len(parts) + 1):
        spec = _ask_finders(".".join(parts[:end]), path)
        if spec is None:
            return None
        path = _places(spec)
        if not path and end < len(parts):
            return None
    return spec


def _ask_finders(name: str, path: list[str] | None) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except Exception:  # noqa: BLE001, S112 - other people's finders; the import itself would tell what is wrong
            continue
        if spec is not None:
            return spec
    return None


def _places(spec: importlib.machinery.ModuleSpec) -> list[str]:
    locations: Iterable[str] = spec.submodule_search_locations or ()
    try:
        return list(locations)
    except KeyError:  # a package without __init__.py inside another that is not imported
        return []
