"""Exceptions as pickles: whatever a user's class makes of ``__init__`` and its attributes, its type comes back.

Python pickles an exception as its class and ``args``, which calls ``__init__`` with them: wrong, or an error, for a
class that composes its own message. What does not come back as it was is put together from its parts instead.
"""

from __future__ import annotations

import contextlib
import io
import reprlib
from typing import Any

from jobpool_cli.store.values.careful import CarefulPickler, carefully_pickled
from jobpool_cli.store.values.pickles import pickled, unpickled

# Parts above this stay behind when the whole is too large.
_PART_LIMIT_BYTES = 50_000


def pickled_exception(error: BaseException, limit: int) -> bytes | None:
    """Return an exception as a pickle that was seen to load; None if that cannot be done in so many bytes."""
    if not isinstance(error, BaseExceptionGroup):  # its parts want to be looked at one by one
        data = _whole(error)
        if data is not None and len(data) <= limit:
            return data
    for part_limit in (limit, _PART_LIMIT_BYTES):
        try:
            buffer = io.BytesIO()
            _ExceptionPickler(buffer, part_limit).dump(error)
            data = buffer.getvalue()
            if len(data) <= limit and type(unpickled(data)).__qualname__ == type(error).__qualname__:
                return data
        except Exception:  # noqa: BLE001, S112 - the user's code may raise anything; the second try does with less
            continue
    return None


def put_together(kind: type[BaseException], args: tuple[object, ...], attributes: dict[str, object]) -> BaseException:
    """Make an exception without calling the class's own ``__init__``; pickles call this by its name."""
    try:
        made = kind.__new__(kind, *args)
    except TypeError:
        made = kind.__new__(kind)
    builtin = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    with contextlib.suppress(Exception):
        # OSError, UnicodeError and others keep more than args.
        builtin.__init__(made, *args)  # type: ignore[misc]
    # Past whatever the class makes of setting attributes.
    for name, value in {"args": args, **attributes}.items():
        with contextlib.suppress(Exception):
            object.__setattr__(made, name, value)
    return made


class _ExceptionPickler(CarefulPickler):
    """Pickles every exception that it meets, also those inside of groups and attributes, whole or from its parts."""

    def __init__(self, file: io.BytesIO, part_limit: int) -> None:
        super().__init__(file)
        self._part_limit = part_limit

    def reducer_override(self, obj: Any) -> Any:
        """Reduce exceptions that their own pickling does not bring back."""
        if isinstance(obj, BaseException) and not self._goes_whole(obj):
            attributes = {name: value for name, value in _attributes(obj).items() if self._is_small(value)}
            args = obj.args if isinstance(obj, BaseExceptionGroup) else tuple(map(self._small, obj.args))
            return put_together, (type(obj), args, attributes)
        return super().reducer_override(obj)

    def _goes_whole(self, error: BaseException) -> bool:
        if type(error) in {ExceptionGroup, BaseExceptionGroup}:
            return not vars(error)
        data = _whole(error)
        return data is not None and len(data) <= self._part_limit

    def _is_small(self, value: object) -> bool:
        try:
            return len(carefully_pickled(value)) <= self._part_limit
        except Exception:  # noqa: BLE001 - the value's own pickling
            return False

    def _small(self, value: object) -> object:
        """The value, or what can be said of one that cannot be sent."""
        if self._is_small(value):
            return value
        if isinstance(value, str):
            return f"{value[: self._part_limit // 2]}[... {len(value)} characters in all ...]"
        return reprlib.repr(value)


def _whole(error: BaseException) -> bytes | None:
    """The exception's own pickle, None if that does not bring it back as it was."""
    try:
        data = pickled(error)
        again = unpickled(data)
        same = (
            type(again).__qualname__ == type(error).__qualname__
            and str(again) == str(error)
            and len(again.args) == len(error.args)
            and _attributes(again).keys() == _attributes(error).keys()
        )
    except Exception:  # noqa: BLE001 - the class's own methods
        return None
    return data if same else None


def _attributes(error: BaseException) -> dict[str, object]:
    """What the user's code put into an exception, in its ``__dict__`` or in slots."""
    found = dict(vars(error))
    for kind in type(error).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with contextlib.suppress(AttributeError):
                found[name] = getattr(error, name)
    return found
