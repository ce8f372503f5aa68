"""Values come back from their columns exactly as they were, with the same types."""

import collections
import enum
import io
import math
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.store.values.codec import EncodedResults, decode, encode


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024 - the plain kind is the one users write


def through_parquet(encoded: EncodedResults) -> list[object]:
    schema = pa.schema([encoded.field])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([encoded.result], schema=schema), sink)
    table = pq.read_table(io.BytesIO(sink.getvalue()))
    return decode(table.column(0), table.schema.field(0), encoded.pickles)


def same(left: Any, right: Any) -> bool:
    """Equal, of equal types all the way down, NaN equal to itself and -0.0 different from 0.0."""
    if type(left) is not type(right):
        return False
    for kind, comparison in COMPARISONS.items():
        if isinstance(left, kind):
            return bool(comparison(left, right))
    return bool(left == right)


def same_zone(left: object, right: object) -> bool:
    return left == right and type(left) is type(right)


def same_frame(left: Any, right: Any) -> bool:
    if isinstance(left, pd.DataFrame):
        pd.testing.assert_frame_equal(left, right)
    else:
        pd.testing.assert_series_equal(left, right)
    return True


# The first that fits counts: np.float64 is a float, too.
COMPARISONS: dict[Any, Any] = {
    np.generic: lambda left, right: left.dtype == right.dtype and (left.tobytes() == right.tobytes() or np.isnan(left)),
    float: lambda left, right: repr(left) == repr(right),
    list | tuple: lambda left, right: len(left) == len(right) and all(map(same, left, right)),
    dict: lambda left, right: same(list(left), list(right)) and same(list(left.values()), list(right.values())),
    np.ndarray: lambda left, right: (
        left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    ),
    datetime | time: lambda left, right: (
        left == right and left.fold == right.fold and same_zone(left.tzinfo, right.tzinfo)
    ),
    pl.DataFrame: lambda left, right: left.schema == right.schema and left.equals(right),
    pa.Table: lambda left, right: left.equals(right, check_metadata=True),
    pd.DataFrame | pd.Series: same_frame,
}


def check(values: list[Any], *, pickled: int | None = None) -> EncodedResults:
    encoded = encode(values)
    assert len(encoded.result) == len(values)
    assert encoded.field.name == "result"
    assert encoded.field.type == encoded.result.type
    encoded.result.validate(full=True)
    for restored in (decode(encoded.result, encoded.field, encoded.pickles), through_parquet(encoded)):
        assert same(values, restored), (values, restored)
    # A reader may slice, and concatenate batches of one field.
    half = len(values) // 2
    rest = None if encoded.pickles is None else encoded.pickles[half:]
    assert same(values[half:], decode(encoded.result[half:], encoded.field, rest))
    if pickled is not None:
        count = 0 if encoded.pickles is None else len(values) - encoded.pickles.null_count
        assert count == pickled
    return encoded


zones = st.sampled_from(
    [UTC, ZoneInfo("UTC"), ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu"), timezone(timedelta(hours=-3.5))]
)
moments = st.datetimes(timezones=st.none() | zones, allow_imaginary=True)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary(max_size=9)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | moments
    | st.sampled_from([np.float32(1.5), np.int8(-3), np.bool_(1), np.datetime64(5, "s"), Colour.RED, Text("a"), 1j])
)
one_kind = st.sampled_from(
    [st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.dates(), moments, st.timedeltas()]
).flatmap(lambda kind: st.lists(st.none() | kind))
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc") | st.text(max_size=2) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(one_kind)
def test_values_of_one_kind_come_back_as_they_were(values: list[Any]) -> None:
    check(values)


@settings(deadline=None, max_examples=200)
@given(st.lists(trees, max_size=8))
def test_mixed_and_nested_values_come_back_as_they_were(values: list[Any]) -> None:
    check(values)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.none() | st.integers(0, 3), max_size=4), max_size=8))
def test_dicts_keep_the_order_and_the_absence_of_their_keys(values: list[Any]) -> None:
    check(values)


@settings(deadline=None)
@given(
    st.lists(
        st.none()
        | hnp.arrays(
            # NumPy's own pickles forget the byte order of times.
            hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.boolean_dtypes() | hnp.datetime64_dtypes(endianness="="),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
        ),
        max_size=5,
    )
)
def test_arrays_keep_their_dtype_and_shape(values: list[Any]) -> None:
    check(values)


@settings(deadline=None)
@given(st.data())
def test_numpy_scalars_keep_their_dtype(data: st.DataObject) -> None:
    dtype = data.draw(hnp.scalar_dtypes().map(lambda one: one.newbyteorder("=")))
    check(data.draw(st.lists(st.none() | hnp.from_dtype(dtype), max_size=5)))


@pytest.mark.parametrize(
    ("values", "arrow_type"),
    [
        ([1, None, -(2**63), 2**63 - 1], pa.int64()),
        ([0.5, math.nan, -0.0, None], pa.float64()),
        ([True, None, False], pa.bool_()),
        (["a", None, "", "é\0"], pa.string()),
        ([b"", None, b"\0"], pa.binary()),
        ([date.min, None, date.max], pa.date32()),
        ([datetime(1, 1, 1), None, datetime(9999, 12, 31, 23, 59, 59, 999_999)], pa.timestamp("us")),  # noqa: DTZ001
        ([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        ([datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))], pa.timestamp("us", "Europe/Berlin")),
        ([timedelta(1), None], pa.duration("us")),
        ([time(1, 2, 3, 4), None], pa.time64("us")),
        ([[1, None], [], None], pa.list_(pa.int64())),
        ([(0.5,), ()], pa.list_(pa.float64())),
        ([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}], pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ([{"a": 1}, {"a": 2, "b": 3}, {}], pa.struct([("a", pa.int64()), ("b", pa.int64())])),
        ([{1: "a"}, {}, None], pa.map_(pa.int64(), pa.string())),
        ([np.float32(1), None], pa.float32()),
        ([np.float64(1), None], pa.float64()),
        ([np.arange(3), np.arange(0), None], pa.list_(pa.int64())),
        ([np.eye(2), np.ones((0, 2))], pa.list_(pa.list_(pa.float64(), 2))),
        ([pd.Timestamp("2026-01-01", tz="UTC").as_unit("ns"), None], pa.timestamp("ns", "UTC")),
        ([None, None], pa.null()),
        ([], pa.null()),
    ],
)
def test_what_arrow_can_hold_is_held_by_arrow(values: list[Any], arrow_type: pa.DataType) -> None:
    assert check(values, pickled=0).result.type == arrow_type


@pytest.mark.parametrize(
    ("values", "pickled"),
    [
        ([1, 2, 3, 2**64], 1),
        ([1, 2, True], 1),
        (["a", "b", "\udc80"], 1),
        ([1, 2.5, 3], 1),
        ([Colour.RED, 1], 1),
        ([Text("a"), "b", "c"], 1),
        ([Point(1, 2), (1, 2)], 1),
        ([collections.OrderedDict(a=1), {"a": 1}], 1),
        ([[1], [2], [1, "a"], [2**70]], 2),
        ([{"a": 1, "b": 2}, {"a": 1, "b": 2}, {"b": 2, "a": 1}], 1),
        ([{"a": 1}, {"a": None, "b": 1}, {"a": 1, "b": None}, {}], 2),
        ([{}, {}], 2),
        ([datetime(2026, 3, 29, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))], 1),
        ([datetime(2026, 1, 1, fold=1), datetime(2026, 1, 1)], 1),  # noqa: DTZ001
        ([{1, 2}, frozenset(), 1j, range(3), int, Ellipsis], 6),
        ([pd.NaT, pd.NA], 2),
    ],
)
def test_what_arrow_would_change_is_pickled(values: list[Any], pickled: int) -> None:
    encoded = encode(values)
    restored = decode(encoded.result, encoded.field, encoded.pickles)
    assert list(map(type, restored)) == list(map(type, values))
    assert repr(restored) == repr(values)
    assert encoded.pickles is not None
    assert len(values) - encoded.pickles.null_count == pickled


def test_a_repeated_hour_keeps_which_of_the_two_it_was() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    check([datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold) for fold in (0, 1)], pickled=0)


def test_seconds_beyond_what_parquet_holds_are_pickled() -> None:
    far = np.datetime64(2**62, "s")
    check([far, None, np.datetime64(1, "s")], pickled=2)
    check([np.array([far]), np.array([1], "M8[s]")], pickled=2)
    check([pd.Series(np.array([far])), None], pickled=1)
    check([pa.table({"a": pa.array([2**62], pa.timestamp("s"))})], pickled=1)


def test_a_list_that_contains_itself_is_pickled() -> None:
    loop: list[Any] = []
    loop.extend([loop] * 100)
    encoded = encode([loop, [1]])
    restored: Any = decode(encoded.result, encoded.field, encoded.pickles)
    assert restored[0][5] is restored[0]


def test_what_cannot_be_pickled_is_reported_and_spares_its_neighbours() -> None:
    def generator() -> Any:
        yield 1

    encoded = encode([1, generator(), lambda: 5, 2])
    restored: Any = decode(encoded.result, encoded.field, encoded.pickles)
    assert list(encoded.unstorable) == [1]
    assert isinstance(encoded.unstorable[1], TypeError)
    assert (restored[0], restored[1], restored[2](), restored[3]) == (1, None, 5, 2)


class Breaks:
    def __reduce__(self) -> Any:  # noqa: D105
        return (int, ("not a number",))


def test_a_pickle_that_cannot_be_loaded_raises_or_is_replaced() -> None:
    encoded = encode([1, Breaks()])
    with pytest.raises(DamagedPoolError, match="cannot be unpickled: ValueError"):
        decode(encoded.result, encoded.field, encoded.pickles)
    found = decode(encoded.result, encoded.field, encoded.pickles, lambda position, error: (position, type(error)))
    assert found == [1, (1, ValueError)]


def frames() -> list[Any]:
    days = pd.date_range("2026-01-01", periods=3, tz="Europe/Berlin")
    numbers = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, np.nan, -1.0], "c": ["x", None, "z"]})
    return [
        numbers,
        numbers.set_index("c"),
        numbers.set_index(["a", "b"]),
        numbers.set_axis(days),
        numbers.set_axis(pd.Index(["p", "q", "r"], name="key")),
        numbers.iloc[1:],
        numbers[numbers["a"] > 1],
        numbers.iloc[:0],
        pd.DataFrame(np.eye(3)),
        pd.DataFrame({"when": days, "span": days - days[0], "naive": days.tz_localize(None)}),
        pd.DataFrame({"n": pd.array([1, None, 3], "Int64"), "b": pd.array([True, None, False], "boolean")}),
        pd.DataFrame({"s": pd.array(["a", None, "c"], "string"), "p": pd.array([1, None, 3], "int64[pyarrow]")}),
        pd.DataFrame({"k": pd.Categorical(["b", None, "a"], ["b", "a", "z"], ordered=True)}),
        pd.DataFrame({"i": np.arange(3, dtype="int8"), "f": np.arange(3, dtype="float32")}),
        pd.DataFrame({"mixed": [1, "a", None]}, dtype=object),
        pd.DataFrame({"lists": [[1], [], None], "dicts": [{"a": 1}, {}, {"b": None}]}),
        pd.DataFrame({"p": pd.period_range("2026", periods=3)}),
        pd.DataFrame({("a", 1): [1], ("a", 2): [2]}),
        pd.DataFrame([[1, 2]], columns=["same", "same"]),
        pd.DataFrame({0: [1], "0": [2]}),
        pd.DataFrame(),
        pd.DataFrame(index=[1, 2]),
        pd.DataFrame(columns=["a"]),
    ]


@pytest.mark.parametrize("frame", frames())
def test_frames_come_back_equal(frame: pd.DataFrame) -> None:
    check([frame, None, frame.copy(), frame.iloc[:0], frame.iloc[-1:]])


@pytest.mark.parametrize("frame", frames())
def test_the_columns_of_frames_come_back_as_series(frame: pd.DataFrame) -> None:
    for position in range(frame.shape[1]):
        series = frame.iloc[:, position]
        check([series, series.iloc[:1], series.rename(None), None])


def test_ordinary_frames_need_no_pickle() -> None:
    ordinary = frames()[:14]
    for frame in ordinary:
        assert encode([frame, None, frame]).pickles is None


def test_frames_of_all_kinds_in_one_batch_come_back_equal() -> None:
    check([*frames(), None, 5, "text", *frames(), pd.Series([1]), pl.DataFrame({"a": [1]}), pa.table({"a": [1]})])


def test_attributes_of_a_frame_are_kept() -> None:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs["source"] = "sensor"
    restored: Any = decode(*columns_of([frame, pd.DataFrame({"a": [1]})]))
    assert restored[0].attrs == {"source": "sensor"}


def columns_of(values: list[object]) -> tuple[Any, Any, Any]:
    encoded = encode(values)
    return encoded.result, encoded.field, encoded.pickles


def test_a_restored_frame_can_be_changed_without_touching_its_neighbours() -> None:
    restored: Any = decode(*columns_of([pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [3, 4]})]))
    restored[0].loc[0, "a"] = 99
    assert restored[1]["a"].tolist() == [3, 4]
    arrays: Any = decode(*columns_of([np.arange(2), np.arange(2)]))
    arrays[0][:] = 7
    assert arrays[1].tolist() == [0, 1]


def test_arrow_and_polars_tables_come_back_equal() -> None:
    table = pa.table({"a": [1, None], "b": ["x", None], "c": [[1], None]}).replace_schema_metadata({"k": "v"})
    check([table, None, table.slice(1), table.slice(0, 0)], pickled=0)
    check([pa.table({"a": pa.array(["x"]).dictionary_encode()}), pa.table({}), table])
    frame = pl.DataFrame(
        {"a": [1, None], "b": ["x", None], "c": [[1], []], "d": [datetime(2026, 1, 1), None], "e": [time(1), None]}  # noqa: DTZ001
    )
    check([frame, None, frame.head(1), frame.head(0)], pickled=0)
    check([pl.DataFrame({"a": ["x"]}, schema={"a": pl.Categorical}), pl.DataFrame(), frame])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.none() | st.sampled_from(frames()), max_size=6))
def test_any_batch_of_frames_comes_back_equal(values: list[Any]) -> None:
    check(values)


def test_plain_values_import_neither_pandas_nor_polars() -> None:
    code = (
        "import sys, datetime as dt, numpy as np\n"
        "from jobpool_cli.store.values.codec import encode, decode\n"
        "for v in [1, 1.5, 'a', b'a', True, dt.date.today(), dt.datetime.now(), dt.datetime.now(dt.UTC), dt.time(),\n"
        "          dt.timedelta(1), [1], (1,), {'a': 1}, {1: 1}, np.float32(1), np.ones(3), {1}, 2**70]:\n"
        "    e = encode([v, None])\n"
        "    assert repr(decode(e.result, e.field, e.pickles)) == repr([v, None]), v\n"
        "assert not {'pandas', 'polars'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
