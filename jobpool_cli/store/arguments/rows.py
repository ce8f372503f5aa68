"""The rows of args.parquet, and a worker's view of them: the function ready to be called with those of its tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.store.arguments.decoding import NOT_GIVEN, ROWS, decode_column, filler
from jobpool_cli.store.arguments.signature import Signature
from jobpool_cli.store.arguments.stored import open_arguments, read_constants, unreadable

# Scattered tasks (a retry) must not make the worker hold the whole file.
_GROUPS_KEPT = 2
# Compressing less takes longer than the way of the bytes that it spares.
SHRUNK_ABOVE_BYTES = 64 << 10


class StoredRows:
    """The rows of args.parquet as they are stored, a row group at a time.

    Attributes:
        schema: its columns.
        n_rows: tasks in the pool.
        row_bytes: what a row takes in memory, on average.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; nothing but its footer is read yet.

        Raises:
            DamagedPoolError: the file is not readable.
        """
        self._path = path
        self._file, self.schema = open_arguments(path)
        metadata = self._file.metadata
        self.n_rows = int((self.schema.metadata or {}).get(ROWS, metadata.num_rows))
        self._starts = [0]
        whole = 0
        for group in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
            whole += metadata.row_group(group).total_byte_size
        self.row_bytes = whole / max(1, metadata.num_rows)
        self._groups: dict[int, pa.Table] = {}

    def table(self, ranges: Sequence[tuple[int, int]]) -> pa.Table:
        """The rows of half-open ranges, in the order given.

        Raises:
            DamagedPoolError: the file does not hold these rows.
        """
        pieces = [piece for low, high in ranges for piece in self._slices(low, high)]
        # One table: scattered tasks (a retry) may come by the thousand, and each decoding has its price.
        return pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces or [self.schema.empty_table()])

    def _slices(self, low: int, high: int) -> list[pa.Table]:
        """The range's rows, a table per row group that it touches."""
        if low < 0 or high > self.n_rows or high > self._starts[-1]:
            raise DamagedPoolError(f"{self._path} holds {self._starts[-1]} rows; rows {low} to {high} were asked for")
        pieces = []
        for group, start in enumerate(self._starts[:-1]):
            end = self._starts[group + 1]
            if start < high and low < end:
                first = max(low, start)
                pieces.append(self._group(group).slice(first - start, min(high, end) - first))
        return pieces

    def _group(self, group: int) -> pa.Table:
        """One row group, kept for the next batch, which most likely lies in it too."""
        found = self._groups.pop(group, None)
        if found is None:
            while len(self._groups) >= _GROUPS_KEPT:
                del self._groups[next(iter(self._groups))]
            try:
                found = self._file.read_row_group(group).combine_chunks()
            except (OSError, pa.ArrowException) as error:
                raise unreadable(self._path, error) from error
        self._groups[group] = found
        return found


class TaskArguments:
    """The arguments of a pool's tasks, as the worker calls the function with them.

    Attributes:
        columns: names of the arguments, in the order in which ``rows`` returns them and ``call()`` takes them.
        positional: whether the function itself can be called with the columns' values in order.
        n_rows: tasks in the pool.
    """

    def __init__(self, path: Path, function: Callable[..., Any], signature: Signature | None = None) -> None:
        """Open the file; nothing but its footer is read yet.

        Raises:
            DamagedPoolError: the file is not readable.
        """
        self._function = function
        self._signature = signature or Signature.of(function)
        self._stored = StoredRows(path)
        self.n_rows = self._stored.n_rows
        schema = self._stored.schema
        stored = set(schema.names)
        # Leading parameters first, in their order: then the function needs no adapter.
        ordered = [each.name for each in self._signature.parameters if each.name in stored]
        self.columns: list[str] = ordered + [name for name in schema.names if name not in set(ordered)]
        self._constants = read_constants(path, schema, self._signature)
        leading = [each.name for each in self._signature.parameters if not each.keyword_only][: len(self.columns)]
        self.positional = leading == self.columns and not any(
            each.positional_only and each.name in self._constants for each in self._signature.parameters
        )
        self._dropping = any(
            filler(schema.field(name), self._signature.parameter(name)) is NOT_GIVEN for name in self.columns
        )
        self._unreadable = False
        self._call = self.call()

    def call(self) -> Callable[..., Any]:
        """A callable that takes one row's values in the order of ``columns``, constants already in place."""
        function = self._function
        if self.positional:
            return functools.partial(function, **self._constants) if self._constants else function
        names = tuple(self.columns)
        constants = self._constants
        before = tuple(each for each in self._signature.parameters if each.positional_only)
        if not before and not self._dropping:

            def by_keyword(*row: object) -> Any:
                return function(**dict(zip(names, row, strict=True)), **constants)

            return by_keyword

        def with_positional(*row: object) -> Any:
            pairs = zip(names, row, strict=True)
            given = {name: value for name, value in pairs if value is not NOT_GIVEN} | constants
            return function(*[given.pop(each.name, each.default) for each in before], **given)

        return with_positional

    def rows(self, ranges: Sequence[tuple[int, int]]) -> list[list[object]]:
        """The values of the tasks in half-open ranges, in the order given: one list per column of ``columns``.

        Raises:
            DamagedPoolError: the file does not hold these rows, or not what it should.
        """
        return self._values(self._stored.table(ranges)) if self.columns else []

    def _values(self, table: pa.Table) -> list[list[object]]:
        table = table.combine_chunks()
        return [self._decode(name, table) for name in self.columns]

    def calls(self, ranges: Sequence[tuple[int, int]], shipped: Path | None = None) -> Callable[[], Any]:
        """A callable that calls the function for the first of these tasks, then for the second, and so on.

        A value that cannot be read is its own task's error.

        Args:
            ranges: half-open ranges of tasks.
            shipped: a file of their rows alone (``ship``), where args.parquet has none; it is deleted.

        Raises:
            DamagedPoolError: the file does not hold these rows.
        """
        if not self.columns:
            return self._call
        self._unreadable = False
        columns = self.rows(ranges) if shipped is None else self._values(_unpacked(shipped))
        call = _refusing(self._call) if self._unreadable else self._call
        # The built-in calls the function with one value of each column, with no tuple made and taken apart.
        return map(call, *columns).__next__

    def _decode(self, name: str, table: pa.Table) -> list[object]:
        """The Python values of one column; in the place of one that cannot be read, why."""
        column, field, parameter = table.column(name), table.schema.field(name), self._signature.parameter(name)
        try:
            return decode_column(column, field, parameter)
        except Exception:  # noqa: BLE001 - a pickle, or a validator of the user's, may raise anything
            self._unreadable = True
        values: list[object] = []
        for row in range(len(column)):
            try:
                values += decode_column(column.slice(row, 1), field, parameter)
            except Exception as error:  # noqa: BLE001
                values.append(_Unreadable(error))
        return values


def ship(table: pa.Table) -> pa.Buffer:
    """Rows as a file that travels to another machine: Arrow's IPC format, compressed if that is worth its time."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4" if table.nbytes > SHRUNK_ABOVE_BYTES else None)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _unpacked(shipped: Path) -> pa.Table:
    try:
        with pa.OSFile(str(shipped)) as file:
            table = pa.ipc.open_file(file).read_all()
        shipped.unlink()
    except (OSError, pa.ArrowException) as error:
        raise unreadable(shipped, error) from error
    return table


class _Unreadable:
    """Stands where a value cannot be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _refusing(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same for rows of which some have values that cannot be read: those raise why."""

    def checked(*row: object) -> Any:
        for value in row:
            if type(value) is _Unreadable:
                raise value.error
        return call(*row)

    return checked
