"""One value to one annotation: pydantic's lax mode, and what it leaves open for text.

A cell of CSV is text even where the annotation is a list, a union or an enum. Text for those is read as people write
it: JSON for whatever has parts, the members of a union from left to right, an enum by value or by name. Workers import
this for stored values that need their annotation again, so both sides convert by the same rules.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import functools
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from jobpool_cli.errors import InputError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_PARTS = (list, dict, tuple, set, frozenset, collections.deque, collections.abc.Collection, collections.abc.Iterable)

_LONGEST_SHOWN = 80

Converter = Callable[[Any], Any]


class Refused(ValueError):  # noqa: N818 - it never leaves the store
    """A value that does not fit; the message says what was expected."""


def adapter(annotation: Any) -> TypeAdapter[Any]:
    """The pydantic adapter for an annotation, made once.

    Raises:
        InputError: pydantic cannot tell what values the annotation takes.
    """
    try:
        return _cached_adapter(annotation)
    except TypeError:
        # An annotation with unhashable parts, such as Annotated[int, []].
        return _new_adapter(annotation)


def list_adapter(annotation: Any) -> TypeAdapter[Any]:
    """The adapter for many values of the annotation at once."""
    return adapter(list[annotation])


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, aliases resolved; an annotation that is no union is its own only member."""
    annotation = resolve(annotation)
    if typing.get_origin(annotation) in {Union, types.UnionType}:
        return tuple(member for each in typing.get_args(annotation) for member in members(each))
    return (annotation,)


def resolve(annotation: Any) -> Any:
    """See through ``type X = ...`` and NewType."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def bare(annotation: Any) -> Any:
    """The type without its ``Annotated`` metadata."""
    annotation = resolve(annotation)
    while typing.get_origin(annotation) is Annotated:
        annotation = resolve(annotation.__origin__)
    return annotation


def is_optional(annotation: Any) -> bool:
    """Whether None is one of its values."""
    return any(member in {None, type(None)} for member in map(bare, members(bare(annotation))) if _hashable(member))


def only_member(annotation: Any) -> Any:
    """The one member of an annotation, None aside; None if there are several."""
    kinds = [each for each in members(annotation) if each is not None and each is not type(None)]
    return kinds[0] if len(kinds) == 1 else None


def is_path(annotation: Any) -> bool:
    """Whether its values are paths, or None: any text is one, and there is nothing to check."""
    return only_member(annotation) is Path


def has_parts(annotation: Any) -> bool:
    """Whether a value has parts, so that its text is JSON."""
    annotation = bare(annotation)
    origin = typing.get_origin(annotation)
    kind = annotation if origin is None else origin
    if not isinstance(kind, type) or issubclass(kind, str | bytes | bytearray | enum.Enum):
        return False
    return issubclass(kind, _Parts) or _is_model(kind) or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)


def text_converter(annotation: Any) -> Converter:  # noqa: PLR0911 - one line a kind
    """From text to a value of the annotation.

    The converter raises ValueError (pydantic's or ``Refused``) for text that does not fit.
    """
    annotation = resolve(annotation)
    if typing.get_origin(annotation) is Annotated:
        return _annotated_from_text(annotation)
    choices = members(annotation)
    if len(choices) > 1:
        return _union_from_text(annotation, choices)
    if typing.get_origin(annotation) is Literal:
        return _literal_from_text(annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enum_from_text(annotation)
    if annotation in {None, type(None)}:
        return _none_from_text
    if has_parts(annotation):
        return adapter(annotation).validate_json
    if annotation is Path:
        return Path
    return adapter(annotation).validate_python


def value_converter(annotation: Any) -> Converter:
    """From a value that is no text cell (JSON, Parquet, Python) to the annotation; enums also by name."""
    validate = adapter(annotation).validate_python
    if is_path(annotation):
        return lambda value: Path(value) if type(value) is str else validate(value)
    enums = [each for each in map(bare, members(bare(annotation))) if isinstance(each, enum.EnumType)]
    if not enums:
        return validate

    def by_value_or_name(value: object) -> Any:
        try:
            return validate(value)
        except ValueError:
            for each in enums:
                if isinstance(value, str) and value in each.__members__:
                    return each[value]
            raise

    return by_value_or_name


def describe(annotation: Any) -> str:
    """What a value should have been: ``an int``, ``a date``, ``an int or a str``."""
    names = []
    for member in map(bare, members(bare(annotation))):
        if member in {None, type(None)}:
            continue
        if typing.get_origin(member) is Literal:
            names.append("one of " + ", ".join(map(repr, typing.get_args(member))))
            continue
        name = member.__name__ if isinstance(member, type) and not typing.get_args(member) else str(member)
        name = name.replace("typing.", "")
        names.append(with_article(name))
    return " or ".join(names) or "None"


def with_article(name: str) -> str:
    """The name of a type in a sentence: ``an int``, ``a UUID``."""
    return ("an " if name[:1].lower() in "aeio" else "a ") + name


def display(annotation: Any) -> str:
    """The annotation as the user would write it."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def display_value(value: object) -> str:
    """A value for messages, not too long."""
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001 - the user's own __repr__ may raise anything
        shown = object.__repr__(value)
    return shown if len(shown) <= _LONGEST_SHOWN else shown[: _LONGEST_SHOWN - 3] + "..."


def reason(error: ValueError) -> str:
    """Why a value was refused, in one line."""
    errors = getattr(error, "errors", None)
    if not callable(errors):
        return str(error)
    first, *more = errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(map(str, first["loc"]))
    text = f"{where}: {first['msg']}" if where else str(first["msg"])
    return text + (f" (and {len(more)} more)" if more else "")


def _is_model(kind: type) -> bool:
    """Whether it is a pydantic model; where nobody has imported pydantic, there is none."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


class _PartsMeta(type):
    """issubclass() against every kind of container, abstract ones included."""

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, _PARTS)


class _Parts(metaclass=_PartsMeta):
    """Stands for the containers in a union of classes."""


@functools.lru_cache(maxsize=256)
def _cached_adapter(annotation: Any) -> TypeAdapter[Any]:
    return _new_adapter(annotation)


def _new_adapter(annotation: Any) -> TypeAdapter[Any]:
    # A tenth of a second, which functions of plain types and plain cells do without.
    from pydantic import (  # noqa: PLC0415
        ConfigDict,
        PydanticSchemaGenerationError,
        PydanticUserError,
        TypeAdapter,
    )

    config = ConfigDict(coerce_numbers_to_str=True, arbitrary_types_allowed=True)
    try:
        try:
            return TypeAdapter(annotation, config=config)
        except PydanticUserError as error:
            # Models and dataclasses bring their own configuration and accept no other.
            if error.code != "type-adapter-config-unused":
                raise
            return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError) as error:
        raise InputError(
            f"jobpool cannot tell which values {display(annotation)} takes: {str(error).splitlines()[0]}",
            "annotate the parameter with a plain type, or leave the annotation out",
        ) from error


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _annotated_from_text(annotation: Any) -> Converter:
    """The raw text goes first to the metadata's own validators (``BeforeValidator(lambda s: s.split(";"))``)."""
    validate = adapter(annotation)
    if not has_parts(annotation) and len(members(bare(annotation))) == 1:
        plain = text_converter(bare(annotation))
        if getattr(plain, "__func__", None) is type(validate).validate_python:
            return validate.validate_python

    convert = text_converter(bare(annotation))

    def from_text(text: str) -> Any:
        try:
            return validate.validate_python(text)
        except ValueError:
            return validate.validate_python(convert(text))

    return from_text


def _union_from_text(annotation: Any, choices: tuple[Any, ...]) -> Converter:
    """The first member that takes the text; members with parts share one try, in which pydantic picks the best."""
    converters: list[Converter] = []
    parts = [each for each in choices if has_parts(each)]
    for each in choices:
        if bare(each) in {None, type(None)}:
            continue
        if len(parts) > 1 and any(each is part for part in parts):
            if each is parts[0]:
                # Subscripting with a tuple makes a union of its members.
                converters.append(adapter(Union[tuple(parts)]).validate_json)  # noqa: UP007
            continue
        converters.append(text_converter(each))
    if len(converters) == 1:
        return converters[0]

    def from_text(text: str) -> Any:
        for convert in converters:
            try:
                return convert(text)
            except ValueError:
                continue
        raise Refused(f"Input should be {describe(annotation)}")

    return from_text


def _literal_from_text(annotation: Any) -> Converter:
    """A literal of text as it stands; other literals by how they are written."""
    choices = typing.get_args(annotation)

    def from_text(text: str) -> Any:
        for choice in choices:
            if type(choice) is str and choice == text:
                return choice
        for choice in choices:
            written = choice.name if isinstance(choice, enum.Enum) else str(choice)
            if type(choice) is not str and (
                text == written or (isinstance(choice, bool) and text.lower() == written.lower())
            ):
                return choice
        raise Refused(f"Input should be {describe(annotation)}")

    return from_text


def _enum_from_text(annotation: type[enum.Enum]) -> Converter:
    """By value, as pydantic does; then by how the value is written; then by name."""
    validate = adapter(annotation).validate_python

    def from_text(text: str) -> Any:
        try:
            return validate(text)
        except ValueError:
            for member in annotation:
                if isinstance(member.value, int | float) and str(member.value) == text:
                    return member
            if text in annotation.__members__:
                return annotation[text]
            raise

    return from_text


def _none_from_text(text: str) -> None:  # noqa: ARG001
    raise Refused("Input should be None: leave the cell empty")
