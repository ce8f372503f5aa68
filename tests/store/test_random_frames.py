"""Frames of any columns and any index come back as they were, and collect as pandas.concat joins them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobpool_cli.store.outcomes.collect import assemble
from jobpool_cli.store.values.codec import decode, encode
from tests.store.parts import part

KEYS = pa.table({"x": list(range(12)), "name": list("abcdefghijkl")})

moments = st.none() | st.datetimes(pd.Timestamp("1700").to_pydatetime(), pd.Timestamp("2200").to_pydatetime())
letters = st.none() | st.text("ab", max_size=2)
DTYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    *((dtype, st.integers(0, 9)) for dtype in ("int64", "uint8", "Sparse[int64]", "complex128")),
    *((dtype, st.floats(width=16)) for dtype in ("float64", "float32", "float16")),
    *((dtype, st.none() | st.integers(0, 9)) for dtype in ("Int64", "Float64", "int64[pyarrow]")),
    *((dtype, st.none() | st.booleans()) for dtype in ("boolean", "object")),
    *((dtype, letters) for dtype in ("str", "string", "object", pd.StringDtype("python"), pd.ArrowDtype(pa.string()))),
    *((f"datetime64[{unit}]", moments) for unit in ("ns", "us", "us, Europe/Berlin", "ns, UTC")),
    ("timedelta64[us]", st.none() | st.integers(0, 9).map(lambda days: pd.Timedelta(days, "D"))),
    ("object", st.sampled_from([1, "a", None, 1.5, True, b"x", (1, 2), [1], {"k": 1}, pd.NA, pd.NaT, np.int64(3)])),
    ("period[M]", st.sampled_from(["2020-01", "2020-02", None])),
    ("object", st.none() | st.lists(st.integers(0, 3), max_size=2)),
    *((pd.CategoricalDtype(list(names)), letters.filter(lambda one: one != "")) for names in ("ab", "ba")),
    (pd.CategoricalDtype(["b", "a"], ordered=True), st.sampled_from(["a", "b", None])),
    ("interval[int64, right]", st.sampled_from([pd.Interval(0, 1), pd.Interval(1, 2)])),
]


@st.composite
def series_of(draw: st.DrawFn, rows: int) -> pd.Series[Any]:
    dtype, values = draw(st.sampled_from(DTYPES))
    if isinstance(dtype, pd.CategoricalDtype):
        values = st.sampled_from(["a", "b", None])
    made: pd.Series[Any] = pd.Series(draw(st.lists(values, min_size=rows, max_size=rows)), dtype=dtype)
    return made


LABELS: list[Any] = [
    ["a", "b"],
    ["b", "result"],
    pd.Index(["x", None], dtype=object, name="labels"),
    pd.Index(["\ud800", 1.5], dtype=object),
    pd.MultiIndex.from_product([["t"], ["a", "b"]], names=[None, "low"]),
]


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows, width = draw(st.integers(0, 3)), draw(st.integers(0, 2))
    columns = [draw(series_of(rows)) for _ in range(width)]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(rows))
    if width:
        frame.columns = draw(st.sampled_from(LABELS))[:width]
    names: Any = draw(st.sampled_from([["a", 0], ["s", "s"]]))
    indexes: list[Any] = [
        frame.index,
        pd.RangeIndex(5, 5 + rows),
        pd.Index(list("pqr")[:rows], dtype="str", name="key"),
        pd.Index(list("pqr")[:rows], dtype=object),
        pd.date_range("2020", periods=rows, tz="Europe/Berlin"),
        pd.period_range("2020", periods=rows, freq="M"),
        pd.CategoricalIndex(list("uvu")[:rows], ["v", "u"]),
        pd.MultiIndex.from_arrays(
            [pd.Index(list("pqr")[:rows], dtype=object), range(rows)],
            names=names,
        ),
    ]
    return frame.set_axis(draw(st.sampled_from(indexes)))


def check_same(found: Any, expected: Any, *, joined: bool = False) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, pd.Series):
        pd.testing.assert_series_equal(found, expected)
        return
    pd.testing.assert_frame_equal(found, expected, check_freq=not joined, check_index_type=False if joined else "equiv")
    assert found.columns.names == expected.columns.names
    for number in range(expected.shape[1]):
        own, other = found.iloc[:, number], expected.iloc[:, number]
        assert str(own.dtype) == str(other.dtype)
        assert list(map(type, own)) == list(map(type, other))


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(frames(), min_size=1, max_size=4), st.booleans())
def test_any_frames_and_series_come_back_as_they_were(drawn: list[pd.DataFrame], as_series: bool) -> None:  # noqa: FBT001
    values: list[Any] = [frame.iloc[:, 0] for frame in drawn if frame.shape[1]] if as_series else [*drawn]
    values += [None, *(value.iloc[:1] for value in values)]
    encoded = encode(values)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([encoded.result], schema=pa.schema([encoded.field])), sink)
    table = pq.read_table(io.BytesIO(sink.getvalue()))
    for found, expected in zip(decode(table.column(0), table.schema.field(0), encoded.pickles), values, strict=True):
        if expected is None:
            assert found is None
        else:
            check_same(found, expected)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(frames().filter(lambda frame: frame.shape[1] > 0), st.integers(1, 3))
def test_frames_of_one_kind_collect_as_concat_does(frame: pd.DataFrame, batch: int) -> None:
    values = [frame, frame.copy(), frame.iloc[:1], frame.iloc[:0]]
    starts = range(0, len(values), batch)
    parts = [part(dict(enumerate(values[start : start + batch], start))) for start in starts]
    collected = assemble(parts, KEYS, drop_index=True)
    expected = pd.concat(values, keys=range(len(values)))
    expected.index.names = ["task", *frame.index.names]
    found = collected.to_pandas()
    if not len(frame):  # concat leaves out the levels' dtypes
        assert [str(dtype) for dtype in found.dtypes] == [str(dtype) for dtype in expected.dtypes]
    else:
        check_same(found, expected, joined=True)  # concat turns an index of objects into one of strings
    pq.write_table(collected.to_arrow(), io.BytesIO())


@pytest.mark.parametrize("values", [[None, "a"], ["a", None], [None, 7], [None, None]])
def test_columns_of_objects_stay_objects_where_a_frame_holds_nothing_but_none(values: list[Any]) -> None:
    frames = [pd.DataFrame({"a": pd.Series([value], dtype=object)}) for value in values]
    found = assemble([part({number: frame}) for number, frame in enumerate(frames)], KEYS, drop_index=True).to_pandas()
    assert found["a"].dtype == object
    assert found["a"].tolist() == values


def test_strings_in_columns_of_objects_stay_objects() -> None:
    frame = pd.DataFrame({"o": pd.Series(["a"], dtype=object)}, index=pd.Index(["b"], dtype=object))
    for found in decode(encode([frame, frame]).result, encode([frame, frame]).field, None):
        check_same(found, frame)


def test_categories_keep_their_order_beside_others_and_collect_into_one() -> None:
    orders = [["a", "b"], ["b", "a"]]
    values: list[object] = [pd.DataFrame({"k": pd.Categorical(["a"], order)}) for order in orders]
    encoded = encode(values)
    restored: list[Any] = decode(encoded.result, encoded.field, encoded.pickles)
    assert [found["k"].cat.categories.tolist() for found in restored] == orders
    table = pa.table({"task": [0, 1]}).append_column(encoded.field, encoded.result)
    table = table.append_column("result_pickle", encoded.pickles)
    assert assemble([table], KEYS).to_pandas()["k"].dtype == pd.CategoricalDtype(["a", "b"])


@pytest.mark.parametrize("frame", [pd.DataFrame(index=["p"]), pd.DataFrame(index=pd.Index([1, 2], name="k"))])
def test_a_frame_with_an_index_alone_collects(frame: pd.DataFrame) -> None:
    encoded = encode([frame])
    found = assemble([pa.table({"task": [3]}).append_column(encoded.field, encoded.result)], KEYS).to_pandas()
    assert found.index.tolist() == [(3, "d", label) for label in frame.index]
    assert found.shape == (len(frame), 0)


def test_types_that_arrow_does_not_know_yet_are_pickled() -> None:
    frame = pl.DataFrame({"a": pl.Series([2**100], dtype=pl.Int128)})
    encoded = encode([frame, None])
    found: Any = decode(encoded.result, encoded.field, encoded.pickles)
    assert found[0].equals(frame)
    assert found[1] is None
