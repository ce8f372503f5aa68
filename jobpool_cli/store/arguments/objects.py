"""Python values for one parameter, stored so that exactly these come back: Arrow, else JSON, else pickles."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from jobpool_cli.store.arguments.columns import BadCell, Converted, json_array, json_exact_all, plain_array
from jobpool_cli.store.arguments.convert import with_article
from jobpool_cli.store.arguments.decoding import COLUMN, ENCODING, LITERAL, OPTIONAL, PICKLE
from jobpool_cli.store.arguments.raw import Int64s, ObjectColumn
from jobpool_cli.store.arguments.signature import Parameter
from jobpool_cli.store.values.buffers import binaries, fixed_width, presence
from jobpool_cli.store.values.codec import KIND_KEY, fit_values
from jobpool_cli.store.values.fitted import Fitted
from jobpool_cli.store.values.pickles import Copies, copies_metadata, pickled, type_name, unpickled

_LARGEST_LOADED = 1 << 20
# Frames and tables are not among them: one for each task is pickled faster.
_AS_RESULTS = (list, tuple, dict, np.ndarray, np.generic, datetime)


class UnstorableError(Exception):
    """A value that no pickle holds.

    Attributes:
        position: where it stands among the values.
        problem: what it is, and what pickle says of it.
    """

    def __init__(self, position: int, problem: str) -> None:
        """Keep the two apart: only the caller knows what to call the place."""
        super().__init__(problem)
        self.position = position
        self.problem = problem


def convert_objects(column: ObjectColumn, name: str, parameter: Parameter, n_rows: int) -> Converted:
    """Convert a column of Python values to the parameter's annotation, and store it.

    Args:
        column: the values.
        name: the column's name.
        parameter: what they are for.
        n_rows: the number of tasks. Those without a value get a null, which the field's metadata tells from None.
    """
    values: Sequence[Any] = column.values
    bad: list[BadCell] = []
    n_bad = 0
    if parameter.annotated:
        # pydantic: a pool whose function has no annotations does without.
        from jobpool_cli.store.arguments.typedobjects import convert_values  # noqa: PLC0415

        values, bad, n_bad = convert_values(column, parameter)
    if not bad:
        try:
            field, array = store_objects(name, values, nulls=column.rows is None)
        except UnstorableError as error:
            bad, n_bad = [BadCell(column.row(error.position), error.problem, unstorable=True)], 1
    if bad:
        return Converted(pa.field(name, pa.null()), pa.chunked_array([pa.nulls(n_rows)]), bad, n_bad)
    if column.rows is not None:
        array = _spread(array, column.rows, n_rows)
        field = field.with_metadata({**(field.metadata or {}), OPTIONAL: b"1"})
    return Converted(field, pa.chunked_array([array]))


def store_objects(name: str, values: Sequence[Any], *, nulls: bool = True) -> tuple[pa.Field, pa.Array]:
    """A column from which exactly these values come back.

    Args:
        name: the column's name.
        values: anything that can be pickled.
        nulls: whether None becomes a null; else it is stored like any other value.

    Raises:
        UnstorableError: the first value that cannot be pickled.
    """
    if nulls or not any(value is None for value in values):
        array = plain_array(values)
        if array is not None:
            return pa.field(name, array.type), array
        fitted = _as_results(values)
        if fitted is not None:
            metadata = {ENCODING: COLUMN, KIND_KEY: json.dumps(fitted.spec).encode()}
            return pa.field(name, fitted.array.type, metadata=metadata), fitted.array
    # A list that holds itself has no end, and past a number of digits Python neither writes nor reads an int.
    with contextlib.suppress(ValueError, RecursionError):
        if json_exact_all(values):
            array = json_array(values, null=None if nulls else "null")
            return pa.field(name, array.type, metadata={ENCODING: LITERAL}), array
    pickles: list[bytes | None] = []
    copies: Copies = {}
    known: set[type] = set()
    for position, value in enumerate(values):
        if nulls and value is None:
            pickles.append(None)
            continue
        # One of each type is loaded again: most of what cannot be is so by its class.
        pickles.append(pickle_of(value, position, copies, load=type(value) not in known))
        known.add(type(value))
    array = binaries(pickles, presence(pickles))
    return pa.field(name, array.type, metadata={ENCODING: PICKLE, **copies_metadata(copies)}), array


def _as_results(values: Sequence[Any]) -> Fitted | None:
    """Values of one kind, with parts or of NumPy's, as results of that kind are stored; None if not all of them fit."""
    kinds = set(map(type, values)) - {type(None)}
    if len(kinds) != 1 or not issubclass(kinds.pop(), _AS_RESULTS):
        return None
    fitted = fit_values(list(values), 0)
    return None if fitted.misfits else fitted


def pickle_of(value: object, position: int = 0, copies: Copies | None = None, *, load: bool = True) -> bytes:
    """The value's pickle.

    Args:
        value: anything.
        position: where it stands, for the error.
        copies: where the copies of classes go, to be stored beside the pickle; without it they are part of it.
        load: whether to see that the pickle can be loaded; a worker that cannot loses the whole batch.

    Raises:
        UnstorableError: there is no such pickle; the error names the kind of value, and what pickle says of it.
    """
    try:
        data = pickled(value, copies)
        if load and len(data) < _LARGEST_LOADED:
            unpickled(data, copies)
    except Exception as error:  # a value's own __reduce__ may raise anything
        why = str(error) or type(error).__name__
        problem = f"{with_article(type_name(value))}, which cannot be sent to another process: {why}"
        raise UnstorableError(position, problem) from error
    return data


def _spread(array: pa.Array, rows: Int64s, n_rows: int) -> pa.Array:
    """The values at their rows, null at the others."""
    positions = np.zeros(n_rows, np.int64)
    positions[rows] = np.arange(len(rows))
    given = np.zeros(n_rows, np.bool_)
    given[rows] = True
    return array.take(fixed_width(positions, pa.int64(), given))
