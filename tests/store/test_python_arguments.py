from __future__ import annotations

import array
import asyncio
import collections
import math
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tests.store.given import (
    Color,
    Model,
    called,
    exactly,
    one,
    refusal,
    two,
    with_default,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], [1, 2]),
        ((1, "a", None), [1, "a", None]),
        (range(5, 0, -2), [5, 3, 1]),
        (range(2**63 - 1, 2**63 + 1), [2**63 - 1, 2**63]),
        (range(5, -(2**63), -(2**62)), [5, 5 - 2**62, 5 - 2**63]),
        (range(-(2**63), 2**63, 2**62), [-(2**63), -(2**62), 0, 2**62]),
        (range(2**63 - 2, 2**63), [2**63 - 2, 2**63 - 1]),
        (range(0, 3, 2**70), [0]),
        (array.array("h", [1, -2]), [1, -2]),
        (array.array("f", [0.5]), [0.5]),
        (array.array("d"), []),
        (array.array("u", "ab"), ["a", "b"]),
        (np.array([1, 2], np.uint8), [1, 2]),
        (np.array([2**64 - 1], np.uint64), [2**64 - 1]),
        (np.array([0.5, math.nan], np.float32), [0.5, math.nan]),
        (np.array([True, False]), [True, False]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (np.array([b"a"]), [b"a"]),
        (np.array([1j]), [1j]),
        (np.array([1, "a", None], object), [1, "a", None]),
        (np.arange(6)[::2], [0, 2, 4]),
        (np.array([1, 2], ">i4"), [1, 2]),
        (np.ma.masked_array([1, 2], [False, True]), [1, None]),
        (np.array(["2024-01-31", "NaT"], "M8[D]"), [date(2024, 1, 31), None]),
        (np.array(["2024-01", "0001-01"], "M8[M]"), [date(2024, 1, 1), date(1, 1, 1)]),
        (np.array(["2024-01-31T10", "NaT"], "M8[s]"), [datetime(2024, 1, 31, 10), None]),  # noqa: DTZ001
        (np.array(["2024-01-31T10"], "M8[ns]"), [pd.Timestamp("2024-01-31T10")]),
        (np.array(["9999999-01-01"], "M8[s]"), [np.datetime64("9999999-01-01", "s")]),
        (np.array([5, "NaT"], "m8[s]"), [timedelta(seconds=5), None]),
        (np.array([5], "m8[ns]"), [pd.Timedelta(5, "ns")]),
        (np.array([5], "m8[Y]"), [np.timedelta64(5, "Y")]),
        (np.zeros((2, 2)), [np.zeros(2), np.zeros(2)]),
        (pd.Series([1.5, None], index=["b", "a"]), [1.5, math.nan]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Series([1, 2], dtype="int64[pyarrow]"), [1, 2]),
        (pd.Series(["a", None]), ["a", None]),
        (pd.Series(["\ud800", "a"], dtype=object), ["\ud800", "a"]),
        (pd.Series(["b", "a", None], dtype="category"), ["b", "a", None]),
        (pd.Series([pd.Period("2024")]).astype("category"), [pd.Period("2024")]),
        (pd.CategoricalIndex([3, 1]), [3, 1]),
        (pd.Index(["a"]), ["a"]),
        (pd.date_range("2024", periods=1, unit="us"), [datetime(2024, 1, 1)]),  # noqa: DTZ001
        (pd.date_range("2024", periods=1, unit="ns"), [pd.Timestamp("2024")]),
        (pd.date_range("2024", periods=1, tz="UTC", unit="us"), [datetime(2024, 1, 1, tzinfo=UTC)]),
        (pd.interval_range(0, 1), [pd.Interval(0, 1)]),
        (pd.Series([pd.NaT, pd.NA], dtype=object), [pd.NaT, pd.NA]),
        (pl.Series([1, None]), [1, None]),
        (pl.Series(["a"], dtype=pl.Categorical), ["a"]),
        (pl.Series([object], dtype=pl.Object), [object]),
        (pa.array([1, None]), [1, None]),
        (pa.chunked_array([[1], [2]]), [1, 2]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.items(), [("a", 1)]),
        ({"a": 1}.values(), [1]),
        (collections.deque([1]), [1]),
        (map(str, [1]), ["1"]),
        (Color, [Color.RED]),
        ([[1], []], [[1], []]),
        ([], []),
        (iter(()), []),
        (pd.Series([], dtype=float), []),
    ],
)
def test_each_value_goes_to_the_first_parameter(values: Any, expected: list[Any], tmp_path: Path) -> None:
    found = called(values, one, tmp_path)
    assert exactly(found, expected)


def test_a_generator_is_read_once_and_to_its_end(tmp_path: Path) -> None:
    assert called((each for each in "abc"), one, tmp_path) == ["a", "b", "c"]


def test_a_dict_is_a_tasks_keyword_arguments_and_what_it_leaves_out_is_the_default(tmp_path: Path) -> None:
    given = [{"x": 1}, {"y": None, "x": 2}, {"x": 3, "z": 4}, collections.OrderedDict(x=5)]
    assert called(given, with_default, tmp_path) == [(1, 5, {}), (2, None, {}), (3, 5, {"z": 4}), (5, 5, {})]


def test_a_default_that_cannot_be_pickled_is_the_very_object(tmp_path: Path) -> None:
    nothing = threading.Lock()

    def f(x: int, y: Any = nothing) -> tuple[int, bool]:
        return x, y is nothing

    assert called([{"x": 1}, {"x": 2, "y": None}], f, tmp_path) == [(1, True), (2, False)]


def test_a_default_counts_before_a_slash_too(tmp_path: Path) -> None:
    def f(x: int, y: int = 7, /, *, z: int = 8) -> tuple[int, int, int]:
        return x, y, z

    assert called([{"x": 1}, {"x": 2, "y": 3, "z": 4}], f, tmp_path) == [(1, 7, 8), (2, 3, 4)]


def test_empty_dicts_are_tasks_without_arguments(tmp_path: Path) -> None:
    assert called([{}] * 3, lambda: 1, tmp_path) == [1, 1, 1]


def test_any_text_names_a_keyword_argument(tmp_path: Path) -> None:
    def f(**given: Any) -> dict[str, Any]:
        return given

    given = [{"a b": 1, "class": 2, "é": 3}, {"": 1}]
    assert called(given[:1], f, tmp_path) == given[:1]
    assert "the key ''" in refusal(given, f).message
    assert "the key '\\ud800'" in refusal([{"\ud800": 1}], f).message


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"y": ["a", None], "x": [1, 2]}, index=[7, 7]),
        pa.table({"y": ["a", None], "x": [1, 2]}),
        pa.table({"y": ["a", None], "x": [1, 2]}).to_batches()[0],
        pa.table({"y": ["a", None], "x": [1, 2]}).to_reader(),
        pl.DataFrame({"y": ["a", None], "x": [1, 2]}),
    ],
)
def test_a_table_gives_a_row_to_each_task(frame: Any, tmp_path: Path) -> None:
    assert called(frame, two, tmp_path) == [(1, "a"), (2, None)]


def test_a_table_of_no_rows_or_no_columns_counts_its_rows(tmp_path: Path) -> None:
    assert called(pd.DataFrame({"x": [], "y": []}), two, tmp_path) == []
    assert called(pd.DataFrame(index=range(3)), lambda: 1, tmp_path) == [1, 1, 1]
    assert called(pd.DataFrame(), two, tmp_path) == []


def test_the_columns_of_a_frame_are_named_as_parameters() -> None:
    error = refusal(pd.DataFrame([[1, 2]]), two)
    assert error.message == "column 0 of the DataFrame is named 0, and columns are named as parameters"
    assert error.hint == "name them: frame.columns = ['x', 'y']"
    assert (
        "several columns of the DataFrame are named x"
        in refusal(pd.DataFrame([[1, 2]], columns=["x", "x"]), two).message
    )
    error = refusal(pd.DataFrame({"x": [1]}), two)
    assert error.message == "the DataFrame has no column y, which two(x, y) needs"
    assert "map(..., y=VALUE)" in error.hint
    assert "does not take: z" in refusal(pd.DataFrame({"x": [1], "y": 1, "z": 1}), two).message


async def coroutine() -> None: ...


async def asynchronous() -> AsyncIterator[int]:
    yield 1


def failing() -> Iterator[int]:
    yield 1
    raise ValueError("no more")


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        (None, "None", "a list of values"),
        ("abc", "one text, 'abc'", "[text]"),
        ("args.csv", "one text", "pd.read_csv('args.csv')"),
        (b"a", "bytes", "[data]"),
        ({"x": [1]}, "a dict", "pd.DataFrame(d)"),
        ({1}, "a set has no order", "sorted(values)"),
        (frozenset({1}), "a frozenset has no order", "sorted(values)"),
        (5, "5, which is one value", "map([value])"),
        (np.array(5), "array(5), which is one value", "map([value])"),
        (Path("a"), "PosixPath('a'), which is one value", "map([value])"),
        (Model(x=1), "one Model", "map([value])"),
        (int, "the class int", "a list"),
        (asynchronous(), "an async_generator", "async for"),
        (pl.LazyFrame({"x": [1]}), "a LazyFrame", "collect()"),
        ([1, {"x": 1}], "item 0 of the list is an int, and item 1 is a dict", "[{'x': value} for value in values]"),
        ([{"x": 1}, None], "item 0 of the list is a dict, and item 1 is a NoneType", "dicts too"),
        ([{1: 2}], "item 0 of the list has the key 1", "dicts too"),
        (failing(), "item 1 of the generator could not be had: ValueError: no more", "nothing was started"),
    ],
)
def test_what_gives_no_task_its_arguments_is_refused_with_what_to_write(values: Any, message: str, hint: str) -> None:
    error = refusal(values, one)
    assert message in error.message
    assert hint in error.hint


def test_a_coroutine_is_refused_without_a_warning() -> None:
    assert "a coroutine that nobody has awaited" in refusal(coroutine(), one).message
    loop = asyncio.new_event_loop()
    assert "a Future that nobody has awaited" in refusal(loop.create_future(), one).message
    loop.close()


def test_dicts_for_other_names_are_refused_with_the_way_to_pass_them_as_values(tmp_path: Path) -> None:
    def f(config: dict[str, int]) -> dict[str, int]:
        return config

    error = refusal([{"a": 1}], f)
    assert error.message == "the dicts of the list have no key config, which f(config) needs (its keys: a)"
    assert "[{'config': value} for value in values]" in error.hint
    assert called([{"config": {"a": 1}}], f, tmp_path) == [{"a": 1}]

    def g(x: int, y: int = 1) -> None: ...

    error = refusal([{"x": 1}, {"x": 1, "yy": 2}], g)
    assert error.message == "item 1 of the list has a key that g(x, y=...) does not take: yy"
    assert error.hint.startswith("did you mean y?")
    error = refusal([{"x": 1}, {"y": 1}], g)
    assert error.message == "item 1 of the list has no key x, which g(x, y=...) needs, and others have"


def test_values_fill_one_parameter_and_the_message_says_how_to_fill_the_others(tmp_path: Path) -> None:
    error = refusal([1], two)
    assert error.message == "two(x, y) needs y, and the list gives values for x alone"
    assert "map(..., y=VALUE)" in error.hint
    assert "[{'x': ..., 'y': ...}, ...]" in error.hint
    assert called([1], two, tmp_path, y=2) == [(1, 2)]
    assert "x is a constant" in refusal([1], two, x=2).message
    assert "x is both a key of the list and a constant" in refusal([{"x": 1, "y": 1}], two, x=2).message


def test_functions_that_take_no_value_by_position_are_told_so(tmp_path: Path) -> None:
    def none() -> None: ...
    def by_name(*, x: int) -> int:
        return x

    def any_name(**given: int) -> None: ...

    assert "map([{}] * n)" in refusal([1], none).hint
    assert "map([{'x': value} for value in values])" in refusal([1], by_name).hint
    assert "map([{'name': value}" in refusal([1], any_name).hint
    assert called([{"x": 1}], by_name, tmp_path) == [1]
    assert called([], none, tmp_path) == []
