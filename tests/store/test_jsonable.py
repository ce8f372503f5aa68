"""Any Python value becomes JSON text, and none takes the others down with it."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobpool_cli.store.values.jsonable import MAX_DEPTH, TOO_DEEP, json_text, jsonable, safe_repr


class NoRepr:
    def __repr__(self) -> str:  # noqa: D105
        raise RuntimeError("none")


class NoMessage:
    def __repr__(self) -> str:  # noqa: D105
        class WorseError(Exception):
            def __str__(self) -> str:
                raise ValueError

        raise WorseError


class BadMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:  # noqa: D105
        raise OSError("gone")

    def __iter__(self) -> Iterator[str]:  # noqa: D105
        return iter(["a"])

    def __len__(self) -> int:  # noqa: D105
        return 1

    def __repr__(self) -> str:  # noqa: D105
        return "bad"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(plain)
def test_what_json_knows_is_exact(value: Any) -> None:
    assert json.loads(json_text(value)) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("inf"), "inf"),
        ([10**5000], ["1" + "0" * 5000]),
        ((1, (2,)), [1, [2]]),
        ({1: 2, "1": 3}, [[1, 2], ["1", 3]]),
        ({None: 1, True: 2, (1, 2): 3}, {"null": 1, "true": 2, "[1, 2]": 3}),
        ({1, 2}, "{1, 2}"),
        (b"\xff", "/w=="),
        (Decimal("1.10"), "1.10"),
        (timedelta(seconds=1.5), 1.5),
        (datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "2026-01-02T03:04:05.000006Z"),
        (NoRepr(), "<repr failed: RuntimeError: none>"),
        ([NoMessage()], ["<repr failed: WorseError: ?>"]),
        ({"x": BadMapping()}, {"x": "bad"}),
        (np.datetime64("2020-01-01", "ns"), "2020-01-01T00:00:00.000000000"),
        (np.array(["2020-01-01", "NaT"], "M8[D]"), ["2020-01-01", None]),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.float32(0.5), 0.5),
        (pd.NaT, None),
        (pd.NA, None),
        (pd.Timestamp(1), "1970-01-01T00:00:00.000000001"),
        (pd.DataFrame({"a": [1, 2]}), [{"a": 1}, {"a": 2}]),
        (pd.DataFrame({"a": [1]}, index=["r"]), [{"index": "r", "a": 1}]),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), {"columns": ["a", "a"], "data": [[1, 2]]}),
        (pd.DataFrame([[1, 2]], columns=pd.Index([1, "1"])), {"columns": ["1", "1"], "data": [[1, 2]]}),
        (pd.DataFrame(), []),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Series([1, 2], index=["mean", "max"]), {"mean": 1, "max": 2}),
        (pl.DataFrame({"a": [1]}), [{"a": 1}]),
        (pa.Table.from_arrays([[1], [2]], ["a", "a"]), {"columns": ["a", "a"], "data": [[1, 2]]}),
    ],
)
def test_other_values_have_a_form(value: object, expected: object) -> None:
    found = jsonable(value)
    assert found == expected
    assert type(found) is type(expected)
    json_text(value).encode()


def test_lists_and_dicts_that_contain_themselves_end() -> None:
    value: list[Any] = [1]
    value.append({"again": value})
    assert jsonable(value) == [1, {"again": "[...]"}]
    twice = [1]
    assert jsonable([twice, twice]) == [[1], [1]]


def test_depth_has_a_limit() -> None:
    assert json.loads(json_text(nested(MAX_DEPTH - 1))) == nested(MAX_DEPTH - 1)
    assert TOO_DEEP in json_text(nested(100_000))


def test_lone_surrogates_are_escapes() -> None:
    assert json_text({"\ud800": "é\udfff"}) == '{"\\ud800": "é\\udfff"}'
    assert json.loads(json_text("\ud800")) == "\ud800"


def test_a_repr_that_is_no_text_is_a_failure_too() -> None:
    class Wrong:
        def __repr__(self) -> str:
            return 3  # type: ignore[return-value]

    assert safe_repr(Wrong()).startswith("<repr failed: TypeError: ")
