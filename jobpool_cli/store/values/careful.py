"""The pickler of what plain pickles do not carry, or not to every reader: see ``pickles``."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import weakref
from types import FunctionType
from typing import Any, NamedTuple

import cloudpickle

from jobpool_cli.store.values.byvalue import ByValuePickler, pickled_by_value
from jobpool_cli.store.values.pickles import (
    Copies,
    is_users_name,
    main_file,
    own_or_copy,
    reachable,
    runs_others_code,
    users_packages,
)

# A class that drags more than this along goes without a copy, which would go into every batch of results.
_COPY_LIMIT_BYTES = 4 << 20


class _Copy(NamedTuple):
    """A class or a function by value, and a name that no other copy has."""

    name: str
    data: bytes


_copies: weakref.WeakKeyDictionary[Any, _Copy] = weakref.WeakKeyDictionary()


def carefully_pickled(value: object, copies: Copies | None = None) -> bytes:
    """Return the value as a pickle; see ``pickles.pickled``."""
    buffer = io.BytesIO()
    CarefulPickler(buffer, copies).dump(value)
    return buffer.getvalue()


class CarefulPickler(ByValuePickler):
    """Pickles classes and functions of the user's modules so that a reader gets its own, or a copy."""

    def __init__(self, file: io.BytesIO, copies: Copies | None = None) -> None:
        """Write to a buffer, and copies of classes to their own place if there is one."""
        super().__init__(file, protocol=5)
        self._shared_copies = copies

    def reducer_override(self, obj: Any) -> Any:
        """Reduce what is the user's, and leave the rest to cloudpickle."""
        if isinstance(obj, type | FunctionType):
            named = _named(obj)
            if named is not None:
                copy = _copy_of(obj)
                if self._shared_copies is None or not copy.data:
                    return own_or_copy, (*named, copy.data)
                self._shared_copies[copy.name] = copy.data
                return own_or_copy, (*named, copy.name)
        return super().reducer_override(obj)


def _named(found: type | FunctionType) -> tuple[str, str, str] | None:
    """(module, qualified name, file) of what a reader may have, None for what travels by value or needs no care."""
    module: Any = found.__module__  # which code may set to anything
    qualname = found.__qualname__
    if not isinstance(module, str) or "<" in qualname:
        return None
    if module == "__main__":
        own = reachable(sys.modules["__main__"], qualname)
        # In a worker nothing of the user's is in __main__; elsewhere, what is not there any more has no name.
        return (module, qualname, main_file()) if own is found or runs_others_code() else None
    loaded = sys.modules.get(module)
    if loaded is None or not is_users_name(module) or reachable(loaded, qualname) is not found:
        return None
    file = getattr(loaded, "__file__", None)
    return (module, qualname, os.path.abspath(file)) if isinstance(file, str) else None


def _copy_of(found: type | FunctionType) -> _Copy:
    """A pickle of a class or a function by value; empty if it cannot be had."""
    known = _copies.get(found)
    if known is not None:
        return known
    try:
        with contextlib.ExitStack() as undo:
            for name in users_packages():
                module = sys.modules.get(name)
                if module is not None:
                    cloudpickle.register_pickle_by_value(module)
                    undo.callback(cloudpickle.unregister_pickle_by_value, module)
            copy = pickled_by_value(found)
    except Exception:  # noqa: BLE001 - whatever its methods refer to; then it goes by its name alone
        copy = b""
    if len(copy) > _COPY_LIMIT_BYTES:
        copy = b""
    _copies[found] = made = _Copy(hashlib.sha256(copy).hexdigest()[:32], copy)
    return made
