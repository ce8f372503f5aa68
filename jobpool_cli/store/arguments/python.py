"""Arguments given in Python: a list of values, a list of dicts, an array, a frame, anything that can be iterated.

=====================================================  ======================================================
what is given                                          what each task gets
=====================================================  ======================================================
list, tuple, range, array, Series, generator, …        a value, for the function's first parameter
a list (or any such) of dicts                          a dict's values, as keyword arguments
DataFrame, Arrow table, Polars frame                   a row, its columns as keyword arguments; no index
=====================================================  ======================================================

What is no such thing is refused with what to write instead. An iterable is read to its end first, so an endless one
never starts.
"""

from __future__ import annotations

import array
import inspect
import sys
from collections import Counter
from collections.abc import AsyncIterable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from jobpool_cli.errors import InputError
from jobpool_cli.store.arguments.columns import many_objects
from jobpool_cli.store.arguments.convert import bare, display_value, members, with_article
from jobpool_cli.store.arguments.frames import (
    Column,
    array_column,
    frame_columns,
    is_frame,
    is_lazy,
    is_series,
    series_column,
    without_nan,
)
from jobpool_cli.store.arguments.names import dicts_as_values
from jobpool_cli.store.arguments.raw import Form, ObjectColumn, RawArguments
from jobpool_cli.store.arguments.signature import Parameter, Signature

_TABLE_FILES = (".csv", ".tsv", ".parquet", ".jsonl", ".json")


def arguments_of(values: object, signature: Signature) -> RawArguments:
    """Read what ``map`` was given.

    Args:
        values: see the table above.
        signature: what the function takes.

    Raises:
        InputError: it is nothing that gives each task its arguments, or the iterable raised; the message says where.
    """
    kind = type(values).__name__
    _refuse(values, kind)
    with many_objects():
        if is_frame(values):
            return _table(values, kind, signature)
        if is_series(values):
            column = series_column(values)
        elif isinstance(values, np.ndarray) and values.ndim:
            column = array_column(values)
        elif isinstance(values, array.array) and values.typecode not in {"u", "w"}:
            column = array_column(np.frombuffer(values, values.typecode) if values else np.empty(0, values.typecode))
        elif isinstance(values, range) and all(map(_is_int64, (values.start, values.step, *values[-1:]))):
            # Not by start and stop: where the stop is past the last integer, NumPy would leave numbers out.
            column = array_column(
                np.arange(len(values), dtype=np.int64) * np.int64(values.step) + np.int64(values.start)
            )
        else:
            column = _items(values, kind)
        source = f"the {kind}"
        if isinstance(column, list):
            are_dicts = {issubclass(each, Mapping) for each in set(map(type, column))}
            if are_dicts == {True}:
                return _dicts(column, source, signature)
            if True in are_dicts:
                raise _mixed(column, source, signature)
        return _values(column, source, signature)


def _refuse(values: object, kind: str) -> None:  # noqa: C901 - one case a kind
    """Refuse what looks like many values and is one, or has no order."""
    if values is None:
        raise InputError("map was given None", "give it a list of values, or a DataFrame")
    if isinstance(values, str):
        hint = "for a task for that one text: [text]; for one for each character: list(text)"
        if values.endswith(_TABLE_FILES):
            reader = "read_parquet" if values.endswith(".parquet") else "read_csv"
            hint = f"read the file first: map(pd.{reader}({values!r}))"
        raise InputError(f"map was given one text, {display_value(values)}", hint)
    if isinstance(values, bytes | bytearray):
        raise InputError(
            f"map was given {kind}, which is one value", "for a task for it: [data]; one a byte: list(data)"
        )
    if isinstance(values, Mapping):
        raise InputError(
            f"map was given {with_article(kind)}, which may be one task's arguments, or a column of many",
            "for one task: map([d]); for columns of values: map(pd.DataFrame(d)); for its values: map(d.values())",
        )
    if isinstance(values, AbstractSet) and not _is_view(values):
        raise InputError(f"a {kind} has no order, and tasks have positions", "give it one: map(sorted(values))")
    if inspect.iscoroutine(values) or inspect.isawaitable(values):
        _close(values)
        raise InputError(f"map was given {with_article(kind)} that nobody has awaited", "await it: map(await values)")
    if isinstance(values, AsyncIterable) and not isinstance(values, Iterable):
        raise InputError(
            f"map was given {with_article(kind)}, which only async code can read",
            "read it first: map([x async for x in values])",
        )
    if is_lazy(values):
        raise InputError("map was given a LazyFrame, which has not been computed", "compute it: map(frame.collect())")
    if isinstance(values, type) and not isinstance(values, Iterable):
        raise InputError(f"map was given the class {values.__name__}", "give it a list of values")
    if _is_model(values):
        raise InputError(f"map was given one {kind}", "for a task for that one value: map([value])")


def _is_int64(value: int) -> bool:
    return -(2**63) <= value < 2**63


def _is_view(values: object) -> bool:
    """Whether it is a view of a dict: a set by its methods, and ordered all the same."""
    return type(values).__name__ in {"dict_keys", "dict_items", "odict_keys", "odict_items", "KeysView", "ItemsView"}


def _is_model(values: object) -> bool:
    """Whether it is a pydantic model, which would give its fields."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(values, pydantic.BaseModel)


def _close(awaitable: object) -> None:
    """Spare the user the warning that it was never awaited."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


def _items(values: Any, kind: str) -> list[Any]:
    """Everything that an iterable gives."""
    if type(values) is list:
        return values
    try:
        iterator = iter(values)
    except TypeError:
        raise InputError(
            f"map was given {display_value(values)}, which is one value", "for a task for it: map([value])"
        ) from None
    except Exception as error:  # noqa: BLE001 - the user's own __iter__ may raise anything
        _iteration_failed(kind, 0, error)
    items: list[Any] = []
    try:
        items.extend(iterator)
    except Exception as error:  # noqa: BLE001 - the user's own iterator may raise anything
        _iteration_failed(kind, len(items), error)
    return items


def _iteration_failed(kind: str, position: int, error: Exception) -> NoReturn:
    raise InputError(
        f"item {position} of the {kind} could not be had: {type(error).__name__}: {error}",
        "nothing was started; see the error above, with its traceback",
    ) from error


def _values(column: Column, source: str, signature: Signature) -> RawArguments:
    """Each value goes to the first parameter."""
    if not len(column):
        return _raw({}, 0, source, Form.VALUES)
    first = _first_parameter(signature, source)
    return _raw({first.name: _fitted(column, first)}, len(column), source, Form.VALUES)


def _first_parameter(signature: Signature, source: str) -> Parameter:
    if not signature.parameters and signature.extra is None:
        raise InputError(
            f"{signature} takes no arguments, and {source} gives it values",
            f"let it take one: def {signature.function}(x); or run it without, n times: map([{{}}] * n)",
        )
    first = next((each for each in signature.parameters if not each.keyword_only), None)
    if first is None:
        name = signature.parameters[0].name if signature.parameters else "name"
        raise InputError(
            f"{signature} takes its arguments by name alone, and {source} gives values without names",
            f"name them: map([{{{name!r}: value}} for value in values])",
        )
    return first


def _dicts(items: list[Any], source: str, signature: Signature) -> RawArguments:
    """A dict for each task: its keyword arguments; what a dict leaves out is left to the parameter's default."""
    orders = dict.fromkeys(map(tuple, items))
    names = list(dict.fromkeys(key for keys in orders for key in keys))
    for name in names:
        if not isinstance(name, str) or not name.strip() or not _is_text(name):
            position = next(position for position, item in enumerate(items) if name in item)
            raise InputError(
                f"item {position} of {source} has the key {display_value(name)}, which names no argument",
                dicts_as_values(signature),
            )
    same = len(orders) == 1
    columns: dict[str, ObjectColumn] = {}
    for name in names:
        if same:
            columns[name] = ObjectColumn([item[name] for item in items])
            continue
        rows = [position for position, item in enumerate(items) if name in item]
        values = [items[position][name] for position in rows]
        columns[name] = ObjectColumn(values, None if len(rows) == len(items) else np.array(rows, np.int64))
    return _raw(columns, len(items), source, Form.DICTS)


def _mixed(items: list[Any], source: str, signature: Signature) -> InputError:
    is_dict = [isinstance(item, Mapping) for item in items]
    position = is_dict.index(not is_dict[0])
    first, other = (with_article(type(items[each]).__name__) for each in (0, position))
    return InputError(
        f"item 0 of {source} is {first}, and item {position} is {other}: either all are dicts, or none is",
        dicts_as_values(signature),
    )


def _table(frame: Any, kind: str, signature: Signature) -> RawArguments:
    """A table: a row is a task; its index is no argument."""
    source = f"the {kind}"
    names, columns, dtypes, n_rows = frame_columns(frame)
    for position, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or not _is_text(name):
            wanted = [each.name for each in signature.parameters][: len(names)]
            raise InputError(
                f"column {position} of {source} is named {display_value(name)}, and columns are named as parameters",
                f"name them: frame.columns = {wanted}" if wanted else "give each column a name",
            )
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled:
        raise InputError(f"several columns of {source} are named {doubled[0]}", "give each column a name of its own")
    fitted = {name: _fitted(column, signature.parameter(name)) for name, column in zip(names, columns, strict=True)}
    return _raw(fitted, n_rows, source, Form.TABLE, dtypes)


def _fitted(column: Column, parameter: Parameter | None) -> Column | ObjectColumn:
    """A column for a parameter: NaN is a value for those that take floats or anything, and missing for others."""
    if isinstance(column, list):
        return ObjectColumn(column)
    if parameter is not None and parameter.annotated:
        kinds = [each for each in map(bare, members(bare(parameter.annotation))) if isinstance(each, type)]
        if not any(issubclass(each, float | complex | np.floating) for each in kinds):
            return without_nan(column)
    return column


def _raw(
    columns: Mapping[str, Column | ObjectColumn],
    n_rows: int,
    source: str,
    form: Form,
    dtypes: Mapping[str, object] | None = None,
) -> RawArguments:
    arrays: list[pa.ChunkedArray] = []
    objects: dict[str, ObjectColumn] = {}
    for name, column in columns.items():
        if isinstance(column, ObjectColumn):
            objects[name] = column
            arrays.append(pa.chunked_array([pa.nulls(n_rows)]))
        else:
            arrays.append(column)
    # A table without columns forgets how many rows it has, unless one was taken out of it.
    table = pa.Table.from_arrays([*arrays, pa.chunked_array([pa.nulls(n_rows)])], names=[*columns, ""])
    return RawArguments(
        table.select(list(range(len(arrays)))),
        textual=False,
        source=source,
        form=form,
        objects=objects,
        dtypes=dtypes or {},
    )


def _is_text(name: str) -> bool:
    """Whether a file can hold the name: a lone surrogate is no text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
