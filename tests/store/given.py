"""What tests of arguments given in Python share: values to give, and what the calls return."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jobpool_cli.errors import InputError
from jobpool_cli.store.arguments.binding import bind, write_arguments
from jobpool_cli.store.arguments.python import arguments_of
from jobpool_cli.store.arguments.rows import TaskArguments
from jobpool_cli.store.arguments.signature import Parameter, Signature


class Color(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Model(BaseModel):
    x: int


@dataclasses.dataclass
class Point:
    x: float
    y: float


def one(x: Any) -> Any:
    return x


def with_default(x: Any, y: Any = 5, **rest: Any) -> tuple[Any, Any, dict[str, Any]]:
    return x, y, rest


def two(x: Any, y: Any) -> tuple[Any, Any]:
    return x, y


def takes(annotation: Any) -> Signature:
    return Signature("f", (Parameter("x", annotation),))


def called(values: object, function: Callable[..., Any], folder: Path, **constants: object) -> list[Any]:
    """What each task's call returns, from what a worker reads."""
    return returned(values, function, Signature.of(function), folder, **constants)


def returned(
    values: object, function: Callable[..., Any], signature: Signature, folder: Path, **constants: object
) -> list[Any]:
    bound = bind(signature, arguments_of(values, signature), constants, textual_constants=False)
    path = folder / "args.parquet"
    path.unlink(missing_ok=True)
    write_arguments(bound, path)
    arguments = TaskArguments(path, function, signature)
    call = arguments.call()
    assert arguments.n_rows == bound.n_rows
    if not arguments.columns:
        return [call() for _ in range(bound.n_rows)]
    # In two pieces, as batches are.
    ranges = [(0, bound.n_rows // 2), (bound.n_rows // 2, bound.n_rows)]
    return [call(*row) for low, high in ranges for row in zip(*arguments.rows([(low, high)]), strict=True)]


def refusal(values: object, function: Callable[..., Any] | Signature, **constants: object) -> InputError:
    signature = function if isinstance(function, Signature) else Signature.of(function)
    with pytest.raises(InputError) as caught:
        bind(signature, arguments_of(values, signature), constants, textual_constants=False)
    return caught.value


def exactly(found: list[Any], expected: list[Any]) -> bool:
    return repr(found) == repr(expected) and [type(each) for each in found] == [type(each) for each in expected]
