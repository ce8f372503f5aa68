from __future__ import annotations

import collections
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, Field

from jobpool_cli.store.arguments.signature import Parameter
from tests.store.given import (
    Color,
    Model,
    Point,
    Text,
    called,
    exactly,
    one,
    refusal,
    returned,
    takes,
    two,
)

MOMENT = datetime(2024, 1, 31, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("annotation", "values", "expected"),
    [
        (int, ["5", 5.0, np.int64(3), True, Color.RED], [5, 5, 3, True, Color.RED]),
        (int, [2**70, "1"], [2**70, 1]),
        (float, [1, 0.5, np.float64(0.5)], [1.0, 0.5, np.float64(0.5)]),
        (float, [1, 2], [1.0, 2.0]),
        (float, [math.nan, -0.0], [math.nan, -0.0]),
        (str, [5, "a", Text("b")], ["5", "a", Text("b")]),
        (bool, [1, "no"], [True, False]),
        (int | None, [1, None, math.nan, pd.NA], [1, None, None, None]),
        (str | None, ["a", math.nan, None], ["a", None, None]),
        (float | None, [math.nan, None], [math.nan, None]),
        (datetime | None, [pd.NaT, MOMENT], [None, MOMENT]),
        (datetime, [pd.Timestamp("2024")], [pd.Timestamp("2024")]),
        (date, [datetime(2024, 1, 1), "2024-01-02"], [date(2024, 1, 1), date(2024, 1, 2)]),  # noqa: DTZ001
        (Decimal, ["1.10"], [Decimal("1.10")]),
        (Path, ["a", Path("b")], [Path("a"), Path("b")]),
        (Color, ["RED", 1, Color.RED], [Color.RED, Color.RED, Color.RED]),
        (dict, [collections.OrderedDict(a=1)], [collections.OrderedDict(a=1)]),
        (dict[str, int], [collections.Counter("a")], [collections.Counter("a")]),
        (dict[str, int], [{"a": "1"}], [{"a": 1}]),
        (Mapping[str, int], [collections.defaultdict(int, a=1)], [collections.defaultdict(int, a=1)]),
        (Iterable[int], [[1, 2]], [[1, 2]]),
        (list[float], [[1, 2]], [[1.0, 2.0]]),
        (tuple[int, ...], [[1], (2,)], [(1,), (2,)]),
        (set[int], [{1}], [{1}]),
        (Model, [Model(x=1), {"x": 1}], [Model(x=1), Model(x=1)]),
        (Point, [Point(1, 2)], [Point(1, 2)]),
        (np.ndarray, [np.zeros(2)], [np.zeros(2)]),
        (pd.DataFrame, [pd.DataFrame({"a": [1]})], [pd.DataFrame({"a": [1]})]),
        (Callable[[int], int], [abs], [abs]),
        (Annotated[str, AfterValidator(lambda text: text + "!")], ["a"], ["a!"]),
        (Annotated[int, Field(gt=0)], [1], [1]),
    ],
)
def test_an_annotation_converts_what_is_not_yet_what_it_asks_for(
    annotation: Any, values: list[Any], expected: list[Any], tmp_path: Path
) -> None:
    found = returned([{"x": value} for value in values], one, takes(annotation), tmp_path)
    assert exactly(found, expected)


def test_what_does_not_fit_is_named_by_position_and_value() -> None:
    lines = refusal([1, "x", None, *["y"] * 9], takes(int)).message.splitlines()
    assert lines[:3] == [
        "item 1 of the list: 'x' is not an int",
        "item 2 of the list: the value is missing, and an int is needed",
        "item 3 of the list: 'y' is not an int",
    ]
    assert lines[5:] == ["and 6 more"]

    def f(x: int, y: str = "") -> None: ...

    assert refusal([{"y": "a", "x": 1}, {"y": "b", "x": "z"}], f).message == "item 1 of the list, x: 'z' is not an int"
    assert refusal([{"x": 1}, {"x": 1, "y": None}], f).message.startswith("item 1 of the list, y: the value is missing")
    frame = pd.DataFrame({"x": [1.0, math.nan]})
    error = refusal(frame, f)
    assert error.message == "the DataFrame row 1, column x: the value is missing, and an int is needed"
    assert "x: int | None" in error.hint


def test_a_validator_that_raises_anything_refuses_the_value() -> None:
    def lookup(value: int) -> int:
        return {1: 2}[value]

    error = refusal([1, 5], takes(Annotated[int, AfterValidator(lookup)]))
    assert error.message.endswith("item 1 of the list: 5 is not an int: KeyError: 5")


def test_values_whose_own_methods_raise_are_still_named() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise ValueError

        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment]

    assert "item 0 of the list: <" in refusal([Odd()], takes(int)).message


def test_what_no_process_can_send_to_another_is_named_with_its_position() -> None:
    error = refusal([1, (each for each in "a")], one)
    assert error.message.startswith("item 1 of the list: a generator, which cannot be sent to another process: ")
    assert "make the object in the function" in error.hint
    error = refusal([{"x": threading.Lock(), "y": 1}], two)
    assert error.message.startswith("item 0 of the list, x: a _thread.lock, which cannot be sent")


@pytest.mark.parametrize(
    ("column", "annotation", "expected"),
    [
        ([1.0, math.nan], float, [1.0, math.nan]),
        ([1.0, math.nan], Parameter("x").annotation, [1.0, math.nan]),
        ([1.0, math.nan], int | None, [1, None]),
        ([1.0, math.nan], str | None, ["1.0", None]),
        (["a", None], str | None, ["a", None]),
        ([1, 2], str, ["1", "2"]),
        ([MOMENT], datetime, [MOMENT]),
        ([pd.Timestamp("2024")], date, [date(2024, 1, 1)]),
        ([Point(1, 2)], Point, [Point(1, 2)]),
    ],
)
def test_columns_of_a_frame_give_plain_values_and_nan_is_missing_where_no_float_is_asked_for(
    column: list[Any], annotation: Any, expected: list[Any], tmp_path: Path
) -> None:
    for frame in (pd.DataFrame({"x": column}), pd.Series(column)):
        assert exactly(returned(frame, one, takes(annotation), tmp_path), expected)


parts = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=3)
leaves = (
    parts
    | st.binary(max_size=3)
    | st.complex_numbers()
    | st.dates()
    | st.datetimes(timezones=st.sampled_from([None, UTC, ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")]))
    | st.timedeltas()
    | st.decimals()
    | st.fractions()
    | st.uuids()
    | st.sampled_from(
        [Color.RED, Text("a"), Path("a"), Point(1, 2), Model(x=1), int, len, ..., np.float32(1), np.int8(1)]
    )
)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers(), max_size=1)
        | st.dictionaries(parts, inner, max_size=2)
        | st.lists(inner, max_size=2).map(collections.deque)
    ),
    max_leaves=4,
)
kinds = [
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=3),
    st.tuples(st.integers(), st.text()),
    st.lists(parts),
]
columns = st.lists(anything, max_size=5) | st.one_of([st.lists(st.none() | kind, max_size=5) for kind in kinds])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(values=columns)
def test_any_values_arrive_exactly_as_they_were_given(values: list[Any], tmp_path: Path) -> None:
    assert exactly(called([{"x": value} for value in values], one, tmp_path), values)
    assert exactly(returned([{"x": value} for value in values], one, takes(Any), tmp_path), values)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(given_dicts=st.lists(st.dictionaries(st.sampled_from(["x", "y", "z"]), anything), max_size=5))
def test_any_dicts_arrive_as_keyword_arguments(given_dicts: list[dict[str, Any]], tmp_path: Path) -> None:
    def f(**given: Any) -> dict[str, Any]:
        return given

    found = called(given_dicts, f, tmp_path)
    assert [sorted(each) for each in found] == [sorted(each) for each in given_dicts]
    assert all(exactly([found[i][key]], [value]) for i, each in enumerate(given_dicts) for key, value in each.items())


class Unloadable(Exception):  # noqa: N818 - the class is odd, not the name
    def __init__(self, code: int, text: str) -> None:  # noqa: D107
        super().__init__(f"{code} {text}")


def test_a_value_that_no_worker_could_load_is_refused() -> None:
    error = refusal([ValueError("x"), Unloadable(1, "x")], one)
    assert error.message.startswith("item 1 of the list: a ")
    assert "cannot be sent to another process: " in error.message


def test_values_that_hold_themselves_and_ints_of_thousands_of_digits_arrive(tmp_path: Path) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    (found,) = called([loop], one, tmp_path)
    assert found[0] == 1
    assert found[1] is found
    assert called([10**5000, "a"], one, tmp_path) == [10**5000, "a"]


def test_pandas_and_pydantic_are_imported_only_for_those_who_bring_them() -> None:
    code = (
        "import sys\n"
        "from jobpool_cli.store.arguments.binding import bind\n"
        "from jobpool_cli.store.arguments.python import arguments_of\n"
        "from jobpool_cli.store.arguments.signature import Signature\n"
        "import array, datetime, numpy as np\n"
        "def f(x: int, y=1): ...\n"
        "def g(x): ...\n"
        "for values in ([1, 2], range(3), iter([1]), np.arange(3), array.array('i'), [{'x': 1}, {'x': 1, 'y': 0}]):\n"
        "    bind(Signature.of(f), arguments_of(values, Signature.of(f)), {})\n"
        "day = datetime.date(2024, 1, 1)\n"
        "for values in (['a', None], [1, 'a'], [[1]], [(1, 'a')], [{'x': {'y': day}}], [day], [1j], [np.zeros(2)]):\n"
        "    bind(Signature.of(g), arguments_of(values, Signature.of(g)), {})\n"
        "print([name for name in ('pandas', 'pydantic') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
