"""Pickles that another process can load: what the user's own file defines travels by value, all else by reference."""

from __future__ import annotations

import contextlib
import pickle
import sys

_users_modules: set[str] = set()


def travels_by_value(module: str) -> None:
    """Declare a module that readers cannot import: the UDF's file, or a sibling of it."""
    _users_modules.add(module)


def pickled(value: object) -> bytes:
    """Return the value as a pickle.

    Raises:
        Exception: whatever the value's own pickling raises.
    """
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - lambdas, local classes: cloudpickle knows how
        return _cloudpickled(value)
    if b"__main__" in data or any(name.encode() in data for name in _users_modules):
        return _cloudpickled(value)
    return data


def _cloudpickled(value: object) -> bytes:
    import cloudpickle  # noqa: PLC0415 - rarely needed, 20 ms

    modules = [sys.modules[name] for name in _users_modules if name in sys.modules]
    with contextlib.ExitStack() as undo:
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
            undo.callback(cloudpickle.unregister_pickle_by_value, module)
        data: bytes = cloudpickle.dumps(value, protocol=5)
    return data
