"""Collecting agrees with what pandas.concat makes of the same results."""

import io
import math
import pickle
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.store.arguments.decoding import ENCODING, LITERAL, PICKLE
from jobpool_cli.store.outcomes.collect import Collected, assemble
from tests.store.parts import part

ARGUMENTS = pa.table({"x": list(range(12)), "name": list("abcdefghijkl")})


def keys_of(tasks: Sequence[int]) -> list[tuple[int, str]]:
    return [(task, "abcdefghijkl"[task]) for task in tasks]


def read_back(collected: Collected) -> pd.DataFrame:
    sink = io.BytesIO()
    pq.write_table(collected.to_arrow(), sink)
    return pd.read_parquet(io.BytesIO(sink.getvalue()))


columns = {
    "a": st.integers(-5, 5),
    "b": st.floats(-1, 1),
    "c": st.text("xyz", max_size=2),
    "x": st.datetimes(pd.Timestamp("2000-01-01").to_pydatetime(), pd.Timestamp("2030-01-01").to_pydatetime()),
}


@st.composite
def small_frames(draw: st.DrawFn) -> pd.DataFrame:
    names = draw(st.lists(st.sampled_from(list(columns)), min_size=1, unique=True))
    rows = draw(st.integers(1, 3))
    frame = pd.DataFrame({name: draw(st.lists(columns[name], min_size=rows, max_size=rows)) for name in names})
    return frame.set_axis([7, 8, 9][:rows]) if draw(st.booleans()) else frame


@settings(deadline=None, max_examples=60)
@given(st.lists(small_frames(), min_size=1, max_size=8), st.permutations(range(12)), st.integers(1, 4))
def test_frames_in_any_order_and_any_batches_collect_as_concat_does(
    frames: list[pd.DataFrame], tasks: list[int], batch: int
) -> None:
    results = dict(zip(tasks, frames, strict=False))
    pairs = list(results.items())
    parts = [part(dict(pairs[start : start + batch])) for start in range(0, len(pairs), batch)]
    collected = assemble(parts, ARGUMENTS)
    found = collected.to_pandas()
    expected = pd.concat([results[task] for task in sorted(results)], keys=keys_of(sorted(results)))
    expected.index.names = ["x", "name", None]
    assert collected.n_rows == len(expected)
    assert set(found.columns) == set(expected.columns)
    pd.testing.assert_frame_equal(found[expected.columns], expected)
    pd.testing.assert_frame_equal(read_back(collected), found)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 11), st.none() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False), min_size=1
    ),
    st.integers(1, 4),
)
def test_numbers_collect_into_one_column(results: dict[int, Any], batch: int) -> None:
    pairs = list(results.items())
    parts = [part(dict(pairs[start : start + batch])) for start in range(0, len(pairs), batch)]
    found = assemble(parts, ARGUMENTS, drop_index=True).to_pandas()
    assert found.index.tolist() == sorted(results)
    assert found.index.name == "task"
    for task, value in results.items():
        cell: Any = found["result"].to_dict()[task]
        assert pd.isna(cell) if value is None else cell == value


def test_the_index_is_the_arguments() -> None:
    collected = assemble([part({3: "three", 1: "one"}), part({0: "zero"})], ARGUMENTS)
    assert collected.to_pandas()["result"].to_dict() == {(0, "a"): "zero", (1, "b"): "one", (3, "d"): "three"}
    assert collected.to_arrow().schema.names == ["x", "name", "result"]


def test_one_argument_makes_a_plain_index() -> None:
    frame = assemble([part({1: 5})], ARGUMENTS.select(["x"])).to_pandas()
    assert frame.index.names == ["x"]
    assert frame["result"].to_dict() == {1: 5}


def test_none_among_frames_is_a_table_without_rows() -> None:
    parts = [part({0: pd.DataFrame({"a": [1]}), 2: None}), part({3: None}), part({4: pd.DataFrame()})]
    assert assemble(parts, ARGUMENTS, drop_index=True).to_pandas()["a"].to_dict() == {(0, 0): 1}


def test_frames_stay_values_if_one_result_is_no_table_or_if_asked_to() -> None:
    mixed = assemble([part({0: pd.DataFrame({"a": [1]}), 1: 5})], ARGUMENTS).to_pandas()
    assert list(mixed.columns) == ["result"]
    assert mixed["result"].iloc[1] == 5
    kept = assemble([part({0: pd.DataFrame({"a": [1]})})], ARGUMENTS, flatten=False).to_pandas()
    pd.testing.assert_frame_equal(kept["result"].iloc[0], pd.DataFrame({"a": [1]}))


@pytest.mark.parametrize("batch", [1, 9])
def test_tables_beside_other_values_stay_whole_and_a_note_names_one_of_each(batch: int) -> None:
    frame = pd.DataFrame({"a": [1]})
    pairs: list[tuple[int, Any]] = [(1, None), (4, frame), (7, frame), (5, 5), (8, {1})]
    parts = [part(dict(pairs[start : start + batch])) for start in range(0, len(pairs), batch)]
    (note,) = assemble(parts, ARGUMENTS).notes
    assert note.startswith("the results stay whole, in one column 'result': task 4 returned a value of type pandas.")
    assert note.endswith("DataFrame, a table, but task 5 a value of type int")
    assert assemble(parts, ARGUMENTS, flatten=False).notes == []
    assert assemble([part({0: frame, 1: None}), part({2: None})], ARGUMENTS).notes == []
    assert assemble([part({0: 5, 1: {1}, 2: None})], ARGUMENTS).notes == []


def test_an_argument_named_like_a_column_is_kept_beside_it() -> None:
    arguments = pa.table({"a": [10, 20], "result": ["p", "q"]})
    rows = assemble([part({1: pd.DataFrame({"a": [1]})})], arguments)
    assert rows.to_arrow().schema.names == ["arg_a", "result", "__index_level_2__", "a"]
    assert rows.to_pandas().index.names == ["a", "result", None]
    assert read_back(rows).index.names == ["a", "result", None]
    values = assemble([part({1: 1.5})], arguments)
    assert values.to_arrow().schema.names == ["a", "arg_result", "result"]
    assert values.to_pandas().index.names == ["a", "result"]


def test_dtypes_of_frames_survive() -> None:
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None], "Int64"),
            "s": pd.array(["a", None], "string"),
            "k": pd.Categorical(["v", None], ["w", "v"], ordered=True),
            "t": pd.DatetimeIndex(["2026-01-01", "NaT"], tz="Europe/Berlin"),
            "f": np.array([1, 2], "float32"),
        }
    )
    collected = assemble([part({1: frame}), part({0: frame})], ARGUMENTS.select(["x"]))
    expected = pd.concat([frame, frame], keys=[0, 1], names=["x", None])
    pd.testing.assert_frame_equal(collected.to_pandas(), expected)
    pd.testing.assert_frame_equal(read_back(collected), expected)


def test_named_and_multiple_index_levels_survive() -> None:
    frame = pd.DataFrame({"v": [1, 2], "k": ["a", "b"], "d": [3, 4]}).set_index(["k", "d"])
    collected = assemble([part({1: frame, 2: frame})], ARGUMENTS.select(["x"]))
    expected = pd.concat([frame, frame], keys=[1, 2], names=["x", "k", "d"])
    pd.testing.assert_frame_equal(collected.to_pandas(), expected)
    pd.testing.assert_frame_equal(read_back(collected), expected)


def test_series_arrow_and_polars_tables_are_tables_too() -> None:
    results = {0: pd.Series([1], name="a"), 1: pa.table({"a": [2]}), 2: pl.DataFrame({"a": [3, 4]})}
    found = assemble([part(results)], ARGUMENTS, drop_index=True).to_pandas()
    assert found["a"].to_dict() == {(0, 0): 1, (1, 0): 2, (2, 0): 3, (2, 1): 4}


def test_containers_are_python_objects_in_pandas_and_columns_in_arrow() -> None:
    collected = assemble([part({0: [1, 2], 2: []}), part({1: [0.5]})], ARGUMENTS)
    assert collected.to_pandas()["result"].tolist() == [[1, 2], [0.5], []]
    assert collected.to_arrow().column("result").to_pylist() == [[1, 2], [0.5], []]
    dicts = assemble([part({0: {"a": 1}}), part({1: {"b": "x", "a": 0.5}})], ARGUMENTS)
    assert dicts.to_pandas()["result"].tolist() == [{"a": 1}, {"b": "x", "a": 0.5}]
    assert dicts.to_arrow().column("result").to_pylist() == [{"a": 1, "b": None}, {"a": 0.5, "b": "x"}]


class Odd:
    def __repr__(self) -> str:  # noqa: D105
        raise RuntimeError("no")


CYCLE: list[Any] = []
CYCLE.append(CYCLE)

AT = datetime(2026, 1, 2, 3)  # noqa: DTZ001 - naive is what it is about
EAST = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=5)))


@pytest.mark.parametrize(
    ("results", "texts"),
    [
        ([1, "1", None, math.nan], ["1", '"1"', None, None]),
        ([True, 1], ["true", "1"]),
        ([(1, "a"), ()], ['[1, "a"]', "[]"]),
        ([{"k": 1}, {"k": "s", "m": 2}], ['{"k": 1}', '{"k": "s", "m": 2}']),
        ([[1], ["a"]], ["[1]", '["a"]']),
        ([2**70, 1], [str(2**70), "1"]),
        ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
        ([{"k": [2**53 + 1]}, {"k": [0.5]}], [f'{{"k": [{2**53 + 1}]}}', '{"k": [0.5]}']),
        ([np.uint64(2**64 - 1), np.int64(-1)], [str(2**64 - 1), "-1"]),
        ([AT, EAST], ['"2026-01-02T03:00:00"', '"2026-01-02T03:00:00+05:00"']),
        ([{}, {}], ["{}", "{}"]),
        ([{1: 2, "1": 3}], ['[[1, 2], ["1", 3]]']),
        ([1j, "\ud800"], ['"1j"', '"\\ud800"']),
        ([CYCLE], ['["[...]"]']),
        ([Odd(), 10**5000], ['"<repr failed: RuntimeError: no>"', '"1' + "0" * 5000 + '"']),
    ],
)
@pytest.mark.parametrize("batch", [1, 9])
def test_what_fits_no_column_is_objects_in_pandas_and_json_text_in_arrow(
    results: list[Any], texts: list[str | None], batch: int
) -> None:
    pairs = list(enumerate(results))
    parts = [part(dict(pairs[start : start + batch])) for start in range(0, len(pairs), batch)]
    collected = assemble(parts, ARGUMENTS)
    assert collected.to_arrow()["result"].to_pylist() == texts
    assert [note.partition(":")[0] for note in collected.warnings] == ["column 'result' is written as JSON text"]
    column = collected.to_pandas()["result"]
    assert column.dtype == np.dtype(object)
    assert [type(value) for value in column] == [type(value) for value in results]
    if not any(value is CYCLE or isinstance(value, (Odd, float)) for value in results):
        assert column.tolist() == results


def test_whole_numbers_join_floats_where_none_is_rounded() -> None:
    collected = assemble([part({0: 2**60}), part({1: 0.5}), part({2: 2**53})], ARGUMENTS)
    assert collected.to_arrow()["result"].to_pylist() == [2.0**60, 0.5, 2.0**53]
    assert collected.warnings == []
    unsigned = assemble([part({0: np.uint64(7)}), part({1: -1})], ARGUMENTS)
    assert unsigned.to_arrow()["result"].to_pylist() == [7, -1]


def test_large_numbers_beside_none_are_not_rounded_in_pandas() -> None:
    collected = assemble([part({0: 2**63 - 1, 1: None})], ARGUMENTS)
    assert collected.to_pandas()["result"].tolist() == [2**63 - 1, None]
    assert collected.to_arrow().schema.field("result").type == pa.int64()


def test_times_of_several_zones_are_the_same_moments_in_utc_and_that_is_said() -> None:
    collected = assemble([part({0: EAST}), part({1: AT.replace(tzinfo=UTC)})], ARGUMENTS)
    assert collected.to_pandas()["result"].tolist() == [pd.Timestamp(EAST), pd.Timestamp(AT, tz="UTC")]
    assert "all are given in UTC" in collected.warnings[0]


def test_only_the_columns_of_frames_that_cannot_be_united_are_text() -> None:
    results = {0: pd.DataFrame({"height": [1], "n": [1]}), 1: pd.DataFrame({"height": ["x"], "n": [2]})}
    collected = assemble([part(results)], ARGUMENTS)
    assert collected.to_arrow()["height"].to_pylist() == ["1", '"x"']
    assert collected.to_arrow()["n"].to_pylist() == [1, 2]
    assert collected.warnings == [
        "column 'height' is written as JSON text: it is int64 in some results and large_string in others"
    ]
    assert collected.to_pandas()["height"].tolist() == [1, "x"]


def test_objects_in_frames_that_contain_themselves_are_text() -> None:
    frame = pd.DataFrame({"o": pd.Series([CYCLE, 1], dtype=object)})
    collected = assemble([part({0: frame})], ARGUMENTS)
    assert collected.to_arrow()["o"].to_pylist() == ['["[...]"]', "1"]
    assert collected.to_pandas()["o"].iloc[0][0][0] == collected.to_pandas()["o"].iloc[0][0]


def test_columns_of_one_name_are_both_kept() -> None:
    frame = pd.DataFrame([[1, 2, 3]], columns=["a", "a", "a_2"])
    collected = assemble([part({0: frame, 1: frame[["a_2"]]})], ARGUMENTS)
    assert collected.to_arrow().schema.names[3:] == ["a", "a_3", "a_2"]
    assert collected.to_arrow()["a_3"].to_pylist() == [2, None]
    assert collected.to_pandas().columns.tolist() == ["a", "a", "a_2"]
    assert "several columns 'a'" in collected.warnings[0]


def test_index_levels_come_first_whatever_their_types() -> None:
    frames = {0: pd.DataFrame({"v": [1]}), 1: pd.DataFrame({"v": [2]}, index=["a"])}
    collected = assemble([part(frames)], ARGUMENTS)
    assert collected.to_arrow().schema.names == ["x", "name", "__index_level_2__", "v"]
    assert collected.to_arrow().column(2).to_pylist() == ["0", '"a"']
    assert collected.to_pandas().index.tolist() == [(0, "a", 0), (1, "b", "a")]


def test_indexes_of_different_depth_are_filled_up() -> None:
    deep = pd.DataFrame({"v": [1]}, index=pd.MultiIndex.from_tuples([(5, 6)]))
    collected = assemble([part({0: deep, 1: pd.DataFrame({"v": [2]})})], ARGUMENTS, drop_index=True)
    assert collected.to_arrow().drop_columns("v").to_pydict() == {
        "task": [0, 1],
        "__index_level_1__": [5, 0],
        "__index_level_2__": [6, None],
    }


def test_labels_of_any_kind_are_kept_in_pandas() -> None:
    frame = pd.DataFrame({("a", "b"): [1]})
    found = assemble([part({1: frame})], ARGUMENTS.select(["x"])).to_pandas()
    pd.testing.assert_frame_equal(found, pd.concat([frame], keys=[1], names=["x", None]))


def test_frames_of_types_that_arrow_cannot_hold_keep_them_in_pandas_and_are_text_in_arrow() -> None:
    frame = pd.DataFrame({"z": np.array([1j])})
    collected = assemble([part({3: frame, 1: frame})], ARGUMENTS.select(["x"]))
    pd.testing.assert_frame_equal(collected.to_pandas(), pd.concat([frame, frame], keys=[1, 3], names=["x", None]))
    assert collected.to_arrow()["z"].to_pylist() == ['"1j"', '"1j"']


def test_empty_frames_only_make_an_empty_table() -> None:
    collected = assemble([part({0: pd.DataFrame(), 1: pd.DataFrame()})], ARGUMENTS)
    assert collected.to_arrow().schema.names == ["x", "name", "__index_level_2__"]
    assert collected.to_pandas().index.names == ["x", "name", None]
    assert collected.n_rows == 0


def test_a_result_that_cannot_be_unpickled_may_be_left_out() -> None:
    table = part({0: 1, 4: {1}})
    broken = table.set_column(2, "result_pickle", pa.array([None, b"no pickle"], pa.binary()))
    collected = assemble([broken], ARGUMENTS, drop_index=True, leave_out_unreadable=True)
    assert collected.to_arrow().to_pydict() == {"task": [0], "result": [1]}
    assert collected.warnings[0].startswith("the result of task 4 cannot be unpickled")


def test_no_results_make_an_empty_table() -> None:
    collected = assemble([], ARGUMENTS)
    assert collected.n_rows == 0
    assert collected.to_arrow().schema.names == ["x", "name", "result"]
    assert collected.to_pandas().index.names == ["x", "name"]


def test_nested_arguments_are_json_text_in_the_index() -> None:
    arguments = pa.table({"options": [{"a": [1, None]}, None]})
    frame = assemble([part({0: 1, 1: 2})], arguments).to_pandas()
    assert frame.index[0] == '{"a": [1, null]}'


def stored(name: str, values: list[Any]) -> pa.Table:
    """Arguments as map stores objects."""
    field = pa.field(name, pa.binary(), metadata={ENCODING: PICKLE, b"jobpool.optional": b"1"})
    cells = [None if value is None else pickle.dumps(value) for value in values]
    return pa.Table.from_arrays([pa.array(cells, pa.binary())], schema=pa.schema([field]))


def test_arguments_that_are_objects_are_the_objects_in_pandas_and_their_repr_in_arrow() -> None:
    arguments = stored("p", [Path("/a"), (1, "x"), None, {1}, (1, [2]), "\ud800"])
    collected = assemble([part({task: task for task in range(6)})], arguments)
    assert collected.to_pandas().index.tolist() == [Path("/a"), (1, "x"), None, "{1}", "(1, [2])", "\ud800"]
    assert collected.to_pandas().index.names == ["p"]
    shown = [repr(Path("/a")), "(1, 'x')", None, "{1}", "(1, [2])", "\\ud800"]
    assert collected.to_arrow()["p"].to_pylist() == shown
    assert collected.warnings == []


def test_arguments_that_are_objects_stand_beside_each_row_of_a_table() -> None:
    arguments = stored("p", [Path("/a"), Path("/b"), Path("/c")]).append_column("n", pa.array([1, 2, 3]))
    frame = pd.DataFrame({"v": [1, 2]})
    found = assemble([part({2: frame, 0: frame})], arguments).to_pandas()
    expected = pd.concat([frame, frame], keys=[(Path("/a"), 1), (Path("/c"), 3)], names=["p", "n", None])
    pd.testing.assert_frame_equal(found, expected)


def test_an_argument_that_cannot_be_unpickled_is_no_obstacle_without_the_index() -> None:
    field = pa.field("p", pa.binary(), metadata={ENCODING: PICKLE})
    arguments = pa.Table.from_arrays([pa.array([b"no pickle"], pa.binary())], schema=pa.schema([field]))
    with pytest.raises(DamagedPoolError, match=r"the index cannot be made of argument 'p': .*UnpicklingError"):
        assemble([part({0: 1})], arguments)
    assert assemble([part({0: 1})], arguments, drop_index=True).to_pandas()["result"].tolist() == [1]


def test_arguments_given_as_values_of_several_types_are_these_values_in_the_index() -> None:
    field = pa.field("p", pa.string(), metadata={ENCODING: LITERAL})
    arguments = pa.Table.from_arrays([pa.array(["1", '"a"', "[1]"])], schema=pa.schema([field]))
    found = assemble([part({0: 1, 1: 2, 2: 3})], arguments).to_pandas()
    assert found.index.tolist() == [1, "a", "[1]"]


def test_sliced_parts_and_arguments_collect_alike() -> None:
    whole = part({task: pd.DataFrame({"a": [task] * (task % 3)}) for task in range(12)})
    found = assemble([whole.slice(6), whole.slice(0, 6)], ARGUMENTS, drop_index=True)
    again = assemble([whole], ARGUMENTS, drop_index=True)
    assert found.to_arrow().equals(again.to_arrow())


def test_a_pickle_that_cannot_be_loaded_names_its_task() -> None:
    table = part({0: 1, 4: {1}})
    broken = table.set_column(2, "result_pickle", pa.array([None, b"no pickle"], pa.binary()))
    with pytest.raises(DamagedPoolError, match="the result of task 4 cannot be unpickled"):
        assemble([broken], ARGUMENTS)


def test_duckdb_and_polars_read_the_table_as_it_stands() -> None:
    table = assemble([part({0: pd.DataFrame({"a": [1, 2]}), 1: pd.DataFrame({"a": [3]})})], ARGUMENTS).to_arrow()
    with duckdb.connect() as connection:
        connection.register("collected", table)
        assert connection.sql("select name, sum(a)::int from collected group by name order by name").fetchall() == [
            ("a", 3),
            ("b", 3),
        ]
    loaded = pl.from_arrow(table)
    assert isinstance(loaded, pl.DataFrame)
    assert loaded["a"].to_list() == [1, 2, 3]


def test_collecting_plain_values_as_arrow_does_not_import_pandas() -> None:
    code = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from jobpool_cli.store.values.codec import encode\n"
        "from jobpool_cli.store.values.buffers import fixed_width\n"
        "from jobpool_cli.store.outcomes.collect import assemble\n"
        "e = encode(['a', 'b'])\n"
        "schema = pa.schema([pa.field('task', pa.int64()), e.field])\n"
        "tasks = fixed_width(np.array([1, 0]), pa.int64())\n"
        "arguments = pa.Table.from_arrays([tasks], ['x'])\n"
        "table = assemble([pa.Table.from_arrays([tasks, e.result], schema=schema)], arguments).to_arrow()\n"
        "assert table.to_pydict() == {'x': [1, 0], 'result': ['b', 'a']}\n"
        "assert 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
