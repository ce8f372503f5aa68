"""Importing the user's modules from a snapshot while they go by their original paths."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import CodeType, ModuleType

from jobpool_cli.store.reentry import importing_now


def dotted_names(files: Iterable[str]) -> dict[str, str]:
    """From the files of a snapshot (relative, with ``/``), which module each one is."""
    names = {}
    for relative in files:
        parts = relative.removesuffix(".py").split("/")
        if parts[-1] == "__init__":
            parts.pop()
        if parts:
            names[".".join(parts)] = relative
    return names


def remember_source(path: Path | str, content: bytes) -> None:
    """Let tracebacks show these lines for that path (or what stands in its place), whatever the file holds by now."""
    try:
        text = importlib.util.decode_source(content)
    except (SyntaxError, UnicodeDecodeError):
        # Such a file does not compile either, and that is the error to show.
        return
    # No modification time: linecache takes the entry as it is and never looks at the file.
    linecache.cache[str(path)] = (len(content), None, text.splitlines(keepends=True), str(path))


def forget_siblings() -> None:
    """Undo what an earlier snapshot brought: its finder, its place on the path, its modules."""
    for finder in [each for each in sys.meta_path if isinstance(each, SiblingFinder)]:
        sys.meta_path.remove(finder)
        for entry in finder.path_entries:
            if entry in sys.path:
                sys.path.remove(entry)
    for name, module in list(sys.modules.items()):
        if is_from_snapshot(module):
            del sys.modules[name]


def is_from_snapshot(module: ModuleType) -> bool:
    """Whether a module was imported from a snapshot."""
    return isinstance(getattr(getattr(module, "__spec__", None), "loader", None), _SnapshotLoader)


class SiblingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of a snapshot before anything else does, as a script's own folder comes first."""

    def __init__(self, snapshot: Path, original: Path, names: dict[str, str], *, look_beside: bool = True) -> None:
        """Serve ``names`` (module to relative file) from ``snapshot`` under their paths in ``original``.

        With ``look_beside``, whatever the snapshot lacks is found in ``original``.
        """
        self._snapshot = snapshot
        self._original = original
        self._names = names
        # Packages without __init__.py are found by way of the path.
        self.path_entries = [str(snapshot), str(original)] if look_beside else [str(snapshot)]

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the import system's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        """The import system's question: is this module yours?"""
        relative = self._names.get(fullname)
        if relative is None or fullname in sys.builtin_module_names:
            return None
        copy, original = self._snapshot / relative, self._original / relative
        is_package = copy.name == "__init__.py"
        return importlib.util.spec_from_file_location(
            fullname,
            # The original path: __file__ leads to the data files that lie beside the module, and the traceback to the
            # file that the user edits.
            original,
            loader=_SnapshotLoader(copy, original),
            submodule_search_locations=[str(copy.parent), str(original.parent)] if is_package else None,
        )


class _SnapshotLoader(importlib.abc.InspectLoader):
    """Reads the copy, compiles it under the original path."""

    def __init__(self, copy: Path, original: Path) -> None:
        self._copy = copy
        self._original = original

    def is_package(self, fullname: str) -> bool:  # noqa: ARG002
        return self._copy.name == "__init__.py"

    def get_source(self, fullname: str) -> str:  # noqa: ARG002
        return importlib.util.decode_source(self._copy.read_bytes())

    def exec_module(self, module: ModuleType) -> None:
        with importing_now(str(self._original)):
            super().exec_module(module)

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        content = self._copy.read_bytes()
        remember_source(self._original, content)
        return compile(content, str(self._original), "exec", dont_inherit=True)
