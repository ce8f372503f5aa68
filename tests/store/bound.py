"""What tests of binding share: types to annotate with, tables to read, and what a worker gets of them."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NewType

import pyarrow as pa
import pyarrow.parquet
import pytest
from pydantic import BaseModel

from jobpool_cli.errors import InputError
from jobpool_cli.store.arguments.binding import BoundArguments, Signature, bind, write_arguments
from jobpool_cli.store.arguments.inputs import read_arguments
from jobpool_cli.store.arguments.raw import RawArguments
from jobpool_cli.store.arguments.rows import TaskArguments
from jobpool_cli.store.arguments.signature import Parameter


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Shape(enum.Enum):
    POINT = (0, 0)
    LINE = (0, 1)


class Model(BaseModel):
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Pair:
    a: int
    b: str


UserId = NewType("UserId", int)
UNANNOTATED = Parameter("x").annotation


def csv_input(text: str) -> RawArguments:
    return read_arguments("-", format="csv", stdin=io.BytesIO(text.encode()))


def json_input(*rows: dict[str, Any]) -> RawArguments:
    return read_arguments(
        "-", format="jsonl", stdin=io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())
    )


def takes(annotation: Any) -> Signature:
    return Signature("f", (Parameter("x", annotation),))


def back(bound: BoundArguments, signature: Signature, path: Path) -> list[list[object]]:
    """What a worker gets."""
    path.unlink(missing_ok=True)
    write_arguments(bound, path)
    return TaskArguments(path, lambda: None, signature).rows([(0, bound.n_rows)])


def from_text(annotation: Any, cells: list[str], path: Path) -> list[object]:
    signature = takes(annotation)
    raw = RawArguments(pa.table({"x": pa.array(cells, pa.string())}), textual=True, source="x.csv")
    return back(bind(signature, raw, {}), signature, path / "args.parquet")[0]


def from_json(annotation: Any, cells: list[Any], path: Path) -> list[object]:
    signature = takes(annotation)
    return back(bind(signature, json_input(*({"x": cell} for cell in cells)), {}), signature, path / "a.parquet")[0]


def refusal(function: Callable[..., Any], raw: RawArguments, **constants: str) -> InputError:
    with pytest.raises(InputError) as caught:
        bind(Signature.of(function), raw, constants)
    return caught.value
