"""What a UDF takes: its parameters, their annotations, and whether it accepts names of no parameter."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Optional

from jobpool_cli.errors import InputError

_UNSET = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One parameter of the UDF.

    Attributes:
        annotation: the resolved type, or ``inspect.Parameter.empty``.
        default: its default, or ``inspect.Parameter.empty``.
        positional_only: it stands before a ``/``.
        keyword_only: it stands after a ``*``.
    """

    name: str
    annotation: Any = _UNSET
    default: Any = _UNSET
    positional_only: bool = False
    keyword_only: bool = False

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.default is _UNSET

    @property
    def annotated(self) -> bool:
        """Whether its annotation says what values it takes."""
        return not any(self.annotation is each for each in (_UNSET, Any, object))


@dataclass(frozen=True)
class Signature:
    """A UDF's parameters.

    Attributes:
        function: the UDF's name, for messages.
        parameters: in their order; without ``**kwargs``.
        extra: what ``**kwargs`` takes (as a parameter without a default), None if there is no ``**kwargs``.
    """

    function: str
    parameters: tuple[Parameter, ...]
    extra: Parameter | None = None

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Signature:
        """Read a function's signature and resolve its annotations, also those written as strings.

        Raises:
            InputError: the signature cannot be told, takes ``*args``, or an annotation does not resolve.
        """
        name = getattr(function, "__name__", type(function).__name__)
        try:
            found = inspect.signature(function).parameters.values()
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the parameters of {name} cannot be read: {error}",
                f"wrap it in a function with named parameters: def run(x): return {name}(x)",
            ) from error
        hints = _hints(function, name, found)
        parameters = []
        extra = None
        for each in found:
            annotation = hints.get(each.name, _UNSET)
            if each.kind is each.VAR_POSITIONAL:
                raise InputError(
                    f"{name} takes *{each.name}, and columns have names, so no column can go there",
                    f"give each value a name of its own, or take a list: def {name}({each.name}: list)",
                )
            if each.kind is each.VAR_KEYWORD:
                extra = Parameter(each.name, annotation)
                continue
            if each.default is None and Parameter(each.name, annotation).annotated:
                # `x: int = None` says so less clearly than `int | None`, and means it.
                annotation = Optional[annotation]  # noqa: UP045 - the annotation may be any object
            parameters.append(
                Parameter(
                    each.name,
                    annotation,
                    each.default,
                    positional_only=each.kind is each.POSITIONAL_ONLY,
                    keyword_only=each.kind is each.KEYWORD_ONLY,
                )
            )
        return cls(name, tuple(parameters), extra)

    def parameter(self, name: str) -> Parameter | None:
        """The parameter that a column of this name goes to: its own, else ``**kwargs``."""
        for each in self.parameters:
            if each.name == name:
                return each
        if self.extra is not None:
            return Parameter(name, self.extra.annotation)
        return None

    def __str__(self) -> str:
        """The signature for messages: ``f(a, b=..., **kwargs)``."""
        shown = [each.name if each.required else f"{each.name}=..." for each in self.parameters]
        if self.extra is not None:
            shown.append(f"**{self.extra.name}")
        return f"{self.function}({', '.join(shown)})"


def _hints(function: Callable[..., Any], name: str, parameters: Iterable[inspect.Parameter]) -> dict[str, Any]:
    """Annotations as types; one that cannot be resolved is named, not guessed at."""
    target: Any = function
    while hasattr(target, "func") and hasattr(target, "args") and not hasattr(target, "__annotations__"):
        target = target.func  # functools.partial
    if not hasattr(target, "__annotations__") and not isinstance(target, type) and callable(target):
        target = type(target).__call__  # an object that is called
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except Exception as error:  # noqa: BLE001 - evaluating an annotation may raise anything
        # The return annotation is none of our business: try without it before giving up.
        return _hints_one_by_one(target, name, parameters, error)
    hints.pop("return", None)
    return hints


def _hints_one_by_one(
    target: Any,
    name: str,
    parameters: Iterable[inspect.Parameter],
    error: Exception,
) -> dict[str, Any]:
    """Resolve each parameter's annotation by itself, so that the message can name the one that fails."""
    scope = getattr(inspect.unwrap(target), "__globals__", {})
    hints: dict[str, Any] = {}
    for each in parameters:
        annotation = each.annotation
        if annotation is _UNSET:
            continue
        try:
            holder = type("holder", (), {"__annotations__": {each.name: annotation}})
            hints.update(typing.get_type_hints(holder, globalns=scope, include_extras=True))
        except Exception:  # noqa: BLE001 - evaluating an annotation may raise anything
            raise InputError(
                f"the annotation of {name}'s parameter {each.name} cannot be resolved: {annotation!r}"
                f" ({type(error).__name__}: {error})",
                "import the type at the top of the file (not under `if TYPE_CHECKING:`), or leave the annotation out",
            ) from error
    return hints
