"""cloudpickle's pickler, with which copies have what it leaves out: a class its slots, a function its file.

cloudpickle 3 makes the copy of a class first and gives it ``__slots__`` as a mere attribute, so that its instances have
a ``__dict__`` instead, and their state is one that the class itself does not take. From 3.1.3 on it drops the name of
the file that code is from; without it a traceback shows neither where it was nor its lines.
"""

from __future__ import annotations

import io
from types import CodeType
from typing import Any

import cloudpickle
from cloudpickle.cloudpickle import _make_skeleton_class

# Where the arguments of cloudpickle's function have what goes into the class before all else.
_FIRST_ATTRIBUTES = 3
# What they have for the name of a file.
_NO_FILE = "<dynamic-code>"


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles by value what has to be."""

    def reducer_override(self, obj: Any) -> Any:
        """Let code keep its file, and the copy of a class begin with its slots; leave the rest to cloudpickle."""
        if isinstance(obj, CodeType):
            make, arguments = self.dispatch_table[CodeType](obj)
            return make, tuple(obj.co_filename if each == _NO_FILE else each for each in arguments)
        reduced = super().reducer_override(obj)
        slots = vars(obj).get("__slots__") if isinstance(obj, type) else None
        # Named tuples have none in this sense, and do not want to be given any.
        if slots and isinstance(reduced, tuple) and reduced[0] is _make_skeleton_class:
            make, arguments, *rest = reduced
            arguments = list(arguments)
            arguments[_FIRST_ATTRIBUTES] = {**arguments[_FIRST_ATTRIBUTES], "__slots__": slots}
            return make, tuple(arguments), *rest
        return reduced


def pickled_by_value(value: object) -> bytes:
    """Return a pickle in which functions and classes that have no module of their own are copied.

    Raises:
        Exception: whatever the pickling of what it refers to raises.
    """
    buffer = io.BytesIO()
    ByValuePickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()
