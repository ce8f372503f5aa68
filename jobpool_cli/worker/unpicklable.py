"""Finding what in a function keeps it from being pickled, and the way from the function to it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from jobpool_cli.store.values.pickles import type_name

# A way longer than this is of no use to anyone, and a structure that is deeper may be endless.
_DEEPEST = 12
_WIDEST = 10_000


class Unpicklable(NamedTuple):
    """The innermost object that does not pickle.

    Attributes:
        path: how the user's code gets to it.
        kind: its type, with the module unless that is a builtin.
        error: what its pickling said.
    """

    path: str
    kind: str
    error: Exception


class _Part(NamedTuple):
    """Part of something that is pickled.

    Attributes:
        what: words for what the path alone does not tell.
        path: an expression.
        by: the functions that lead to it.
    """

    value: Any
    path: str
    what: str = ""
    by: str = ""

    def at(self, value: object, step: str) -> _Part:
        return _Part(value, self.path + step, self.what, self.by)

    def __str__(self) -> str:
        return f"{self.what}`{self.path}`{self.by}"


def find_unpicklable(function: object, fails: Callable[[object], Exception | None]) -> Unpicklable | None:
    """Return the innermost part of a function that does not pickle, None if none is to blame.

    Args:
        function: what does not.
        fails: tells what pickling an object raises, None if it works.
    """
    found: Unpicklable | None = None
    seen: set[int] = set()
    parts = _parts_of_call(function, "")
    for _ in range(_DEEPEST):
        for part in parts:
            if id(part.value) in seen:
                continue
            seen.add(id(part.value))
            error = fails(part.value)
            if error is not None:
                found = Unpicklable(str(part), type_name(part.value), error)
                parts = _parts(part)
                break
        else:
            break
    return found


def _parts_of_call(function: Any, by: str) -> Iterator[_Part]:
    """What a function, or another object that can be called, takes along."""
    if isinstance(function, functools.partial):
        yield from _parts_of_call(function.func, by)
        yield from (_Part(value, name, by=by) for name, value in function.keywords.items())
        yield from (_Part(value, f"args[{n}]", "the partial's ", by) for n, value in enumerate(function.args))
    elif inspect.ismethod(function):
        yield _Part(function.__self__, "self", by=by)
    elif isinstance(function, FunctionType):
        yield from _parts_of_function(function, by)
    else:
        yield from _parts(_Part(function, "self", by=by))


def _parts_of_function(function: FunctionType, by: str) -> Iterator[_Part]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield _Part(cell.cell_contents, name, by=by)
        except ValueError:  # the variable has no value yet
            continue
    for name in sorted(_global_names(code)):
        if name in function.__globals__:
            yield _Part(function.__globals__[name], name, by=by)
    defaults = function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][code.co_argcount - len(defaults) :]
    for name, value in [*zip(names, defaults, strict=True), *(function.__kwdefaults__ or {}).items()]:
        yield _Part(value, name, "the default of ", by)
    for name, value in vars(function).items():
        yield _Part(value, name, "the function's attribute ", by)
    for name, value in function.__annotations__.items():
        yield _Part(value, name, "the annotation of ", by)


def _global_names(code: CodeType) -> set[str]:
    found = set(code.co_names)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            found |= _global_names(each)
    return found


def _parts(whole: _Part) -> Iterator[_Part]:
    """What an object consists of, as the user's code would reach it."""
    value = whole.value
    if isinstance(value, FunctionType | functools.partial) or inspect.ismethod(value):
        yield from _parts_of_call(value, f" (by way of {whole})")
        return
    if isinstance(value, dict):
        for key, each in list(value.items())[:_WIDEST]:
            yield whole.at(each, f"[{key!r:.40}]")
            yield whole._replace(value=key, what="a key of ")
    elif isinstance(value, list | tuple):
        yield from (whole.at(each, f"[{position}]") for position, each in enumerate(value[:_WIDEST]))
    elif isinstance(value, set | frozenset):
        yield from (whole._replace(value=each, what="an element of ") for each in list(value)[:_WIDEST])
    yield from (whole.at(each, f".{name}") for name, each in _attributes(value))


def _attributes(value: Any) -> Iterator[tuple[str, object]]:
    try:
        held = vars(value)
    except TypeError:
        held = {}
    for name, each in list(held.items()):
        # A class's static and class methods go by their functions.
        yield str(name), getattr(each, "__func__", each)
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield name, getattr(value, name)
