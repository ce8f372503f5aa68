"""Values that are the same for every task: checked and converted, stored once, and read once by each worker.

Small ones stand in the metadata of args.parquet. A large one (an array, a model) has a file of its own beside it,
which nobody reads who only looks at the arguments.
"""

from __future__ import annotations

import contextlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobpool_cli.errors import InputError
from jobpool_cli.store import durable
from jobpool_cli.store.arguments.columns import json_exact_all
from jobpool_cli.store.arguments.decoding import FILE, PICKLE, TEXT
from jobpool_cli.store.arguments.objects import UnstorableError, pickle_of
from jobpool_cli.store.arguments.signature import Parameter, Signature
from jobpool_cli.store.arguments.textcells import infer_column
from jobpool_cli.store.values.pickles import type_name

_LARGEST_IN_FOOTER = 16_384


@dataclass(frozen=True)
class BoundConstants:
    """Constants ready to be stored.

    Attributes:
        values: what the function gets, by name.
        stored: how each is stored, as JSON: [encoding, value].
        files: the pickles of large ones, by the names of their files.
    """

    values: dict[str, object] = field(default_factory=dict)
    stored: dict[str, list[Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def metadata(self) -> bytes:
        """What the metadata of args.parquet says of them."""
        return json.dumps(self.stored).encode()

    def write(self, folder: Path) -> None:
        """Write the files, if there are any.

        Raises:
            OSError: the disk refused.
        """
        if not self.files:
            return
        durable.make_folder(folder)
        for name, data in self.files.items():
            durable.write_new(folder / name, data)
        durable.sync_folder(folder)


def bind_constants(signature: Signature, constants: Mapping[str, object], *, textual: bool) -> BoundConstants:
    """Convert constants to their parameters' annotations.

    Args:
        signature: what the function takes; every constant has a parameter there.
        constants: the values by name.
        textual: values that are strings are text as from the command line, and an unannotated ``"5"`` is the number.

    Raises:
        InputError: a value does not convert, or cannot be sent to another process.
    """
    bound = BoundConstants()
    for name, value in constants.items():
        parameter = signature.parameter(name)
        assert parameter is not None  # noqa: S101 - names were matched before
        text = value if textual and isinstance(value, str) else None
        converted = _of_python(parameter, value) if text is None else _of_text(parameter, text)
        bound.values[name] = converted
        bound.stored[name] = _stored(parameter, converted, text, bound.files)
    return bound


def _stored(parameter: Parameter, value: object, text: str | None, files: dict[str, bytes]) -> list[Any]:
    # A list that holds itself has no end, and past a number of digits Python neither writes nor reads an int.
    with contextlib.suppress(ValueError, RecursionError):
        if json_exact_all([value]) and not (isinstance(value, float) and not math.isfinite(value)):
            written = json.dumps(value)
            if len(written) <= _LARGEST_IN_FOOTER:
                return ["", value]
    if text is not None and parameter.annotated:
        return [TEXT.decode(), text]
    try:
        data = pickle_of(value)
    except UnstorableError as error:
        raise InputError(
            f"the constant {parameter.name} is {error.problem}",
            "pass what it is made from (a path, an identifier), and make the object in the function",
        ) from error
    if len(data) <= _LARGEST_IN_FOOTER:
        return [PICKLE.decode(), data.hex()]
    # A number: any text may be the name of an argument that goes to **kwargs.
    file = f"{len(files):04d}.pickle"
    files[file] = data
    return [FILE, {"name": file, "bytes": len(data), "crc": zlib.crc32(data), "kind": type_name(value)}]


def _of_text(parameter: Parameter, text: str) -> object:
    if not parameter.annotated:
        (inferred,) = infer_column(pa.chunked_array([[text]], pa.string())).to_pylist()
        return inferred
    from jobpool_cli.store.arguments.convert import describe, reason, text_converter  # noqa: PLC0415
    from jobpool_cli.store.arguments.typedcells import missing_value  # noqa: PLC0415 - pydantic

    if text == "":
        allowed, missing = missing_value(parameter, textual=True)
        if allowed:
            return missing
    try:
        return text_converter(parameter.annotation)(text)
    except ValueError as error:
        raise InputError(
            f"the constant {parameter.name}: {text!r} is not {describe(parameter.annotation)}: {reason(error)}"
        ) from None


def _of_python(parameter: Parameter, value: object) -> object:
    if not parameter.annotated:
        return value
    from jobpool_cli.store.arguments.typedobjects import Converter  # noqa: PLC0415 - pydantic

    convert = Converter(parameter)
    try:
        return convert(value)
    except Exception as error:  # a validator of the user's may raise anything
        problem = convert.bad_cell(0, value, error).problem
        raise InputError(f"the constant {parameter.name}: {problem}") from error
