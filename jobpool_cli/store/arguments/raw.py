"""The user's arguments as they were given, before anything is converted: columns, and how to speak of their places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

Int64s = np.ndarray[Any, np.dtype[np.int64]]


class Form(Enum):
    """How the arguments were given, which decides the words of messages and what readers give back."""

    FILE = "file"
    VALUES = "values"  # each value goes to the first parameter
    DICTS = "dicts"  # keyword arguments, a dict for each task
    TABLE = "table"  # a frame or an Arrow table


@dataclass(frozen=True)
class ObjectColumn:
    """Python values for one parameter.

    Attributes:
        values: one for each task that gives the argument.
        rows: which tasks those are, ascending; None where all do.
    """

    values: Sequence[Any]
    rows: Int64s | None = None

    def row(self, position: int) -> int:
        """The task of the value at a position."""
        return position if self.rows is None else int(self.rows[position])


@dataclass(frozen=True)
class RawArguments:
    """The user's table, before its values are converted.

    Attributes:
        table: one column per argument. A column whose values no Arrow type holds exactly is JSON text or a pickle, and
            its field's metadata says so (``arguments.ENCODING``).
        textual: every column is text as it stood in the file; null is an empty cell without quotes.
        source: what to call it in messages.
        form: how it was given.
        objects: columns of Python values; in ``table`` nulls keep their places.
        dtypes: pandas' own types of the columns, where the arguments were a DataFrame; see ``frame_columns``.
    """

    table: pa.Table
    textual: bool
    source: str
    form: Form = Form.FILE
    objects: Mapping[str, ObjectColumn] = field(default_factory=dict)
    dtypes: Mapping[str, object] = field(default_factory=dict)
    _locate: Callable[[Sequence[int]], list[int | None]] | None = field(default=None, repr=False, compare=False)

    def lines_of(self, rows: Sequence[int]) -> list[int | None]:
        """The lines on which rows begin, from 1; None where there are no lines (Parquet). Reads the text once more."""
        if self._locate is None:
            return [None] * len(rows)
        return self._locate(rows)

    def line_of(self, row: int) -> int | None:
        """The line on which a row (from 0) begins, from 1; None for Parquet."""
        return self.lines_of([row])[0]

    def places(self, cells: Sequence[tuple[int, str]]) -> list[str]:
        """What to call cells, each a row (from 0) and a column, in messages; Python counts from 0, files from 1."""
        if self.form is Form.VALUES:
            return [f"item {row} of {self.source}" for row, _ in cells]
        if self.form is Form.DICTS:
            return [f"item {row} of {self.source}, {column}" for row, column in cells]
        if self.form is Form.TABLE:
            return [f"{self.source} row {row}, column {column}" for row, column in cells]
        lines = self.lines_of([row for row, _ in cells])
        return [
            f"{self.source} {f'row {row + 1}' if line is None else f'line {line}'}, column {column}"
            for (row, column), line in zip(cells, lines, strict=True)
        ]
