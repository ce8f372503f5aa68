"""Modules that are loaded when they are first used: what Typer imports, and a short command does not need.

Python has no lazy imports before 3.15 (PEP 810), and ``importlib.util.LazyLoader`` does not serve: a second
``import`` of a lazy module loads it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

# Each is imported as a whole (`import subprocess`) by Typer or by a module of the standard library that Typer needs.
# They stand for a sixth of what `import typer` takes, and none is used before something is unusual: help is wrapped,
# a traceback printed, an archive made.
SELDOM_USED = (
    "bz2",
    "fnmatch",
    "ipaddress",
    "linecache",
    "lzma",
    "shellingham",
    "subprocess",
    "textwrap",
    "tokenize",
    "zlib",
)


class _StandIn(ModuleType):
    """Stands for a module in the names of those that imported it, and loads it when they use it."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


@contextmanager
def deferred(names: tuple[str, ...]) -> Iterator[None]:
    """Give stand-ins to those who import these modules inside the block; whoever imports them later gets them."""
    stand_ins = {name: _StandIn(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
