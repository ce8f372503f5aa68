from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import pandas as pandas_strategies

from jobpool_cli.errors import DamagedPoolError, InputError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store.arguments.binding import bind, write_arguments
from jobpool_cli.store.arguments.inputs import read_arguments
from jobpool_cli.store.arguments.python import arguments_of
from jobpool_cli.store.arguments.recheck import check_stored
from jobpool_cli.store.arguments.rows import TaskArguments
from jobpool_cli.store.arguments.signature import Parameter, Signature
from jobpool_cli.store.arguments.stored import (
    arguments_frame,
    open_arguments,
    read_calls,
    read_constants,
    read_table,
    read_values,
    show_constants,
)


def one(x: Any) -> Any:
    return x


def any_name(**given: Any) -> dict[str, Any]:
    return given


def stored(folder: Path, function: Callable[..., Any] | Signature, values: object, **constants: object) -> Path:
    """The file of arguments in a pool's folder that holds nothing else."""
    signature = function if isinstance(function, Signature) else Signature.of(function)
    paths = PoolPaths(folder)
    paths.args.unlink(missing_ok=True)
    write_arguments(bind(signature, arguments_of(values, signature), constants, textual_constants=False), paths.args)
    return paths.args


def constants_of(path: Path) -> dict[str, object]:
    return read_constants(path, open_arguments(path)[1])


def test_values_read_back_as_they_were_given(tmp_path: Path) -> None:
    values = [1, "a", None, (1, 2), Path("a"), {1}]
    path = stored(tmp_path, one, values)
    assert read_values(path) == values
    assert read_values(path, [5, 0, 5]) == [{1}, 1, {1}]
    assert read_values(path, []) == []
    assert read_calls(path, [3]) == [{"x": (1, 2)}]


def test_dicts_read_back_with_the_keys_that_they_had(tmp_path: Path) -> None:
    values = [{"a": 1}, {"b": None}, {}, {"a": 2, "b": "x"}]
    path = stored(tmp_path, any_name, values)
    assert read_values(path) == read_calls(path) == values
    assert read_calls(path, [1]) == [{"b": None}]
    frame = arguments_frame(path)
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"a": [1, np.nan, np.nan, 2], "b": [np.nan, None, np.nan, "x"]}))


def test_tasks_without_arguments_are_counted(tmp_path: Path) -> None:
    path = stored(tmp_path, any_name, [{}] * 3)
    assert read_values(path) == [{}, {}, {}]
    assert read_calls(path, [1]) == [{}]
    assert arguments_frame(path).shape == (3, 0)
    path = stored(tmp_path, one, [])
    assert read_values(path) == []
    assert arguments_frame(path).shape == (0, 0)


def test_a_file_of_arguments_reads_back_as_rows(tmp_path: Path) -> None:
    def f(x: int, y: Path) -> None: ...

    (tmp_path / "t.csv").write_text("x,y\n1,a\n2,b\n", encoding="utf-8")
    write_arguments(bind(Signature.of(f), read_arguments(str(tmp_path / "t.csv")), {}), tmp_path / "args.parquet")
    assert read_values(tmp_path / "args.parquet", [1]) == [{"x": 2, "y": "b"}]


def test_people_see_values_of_python_as_they_are_written(tmp_path: Path) -> None:
    path = stored(tmp_path, one, [(1, "a"), (2, "b")])
    assert read_table(path).to_pylist() != []
    path = stored(tmp_path, one, [{1}, None])
    assert read_table(path)["x"].to_pylist() == ["{1}", None]


def test_a_value_whose_class_is_gone_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "short_lived.py").write_text("class Thing:\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import short_lived  # type: ignore[import-not-found]  # noqa: PLC0415

    data = pickle.dumps(short_lived.Thing())
    del sys.modules["short_lived"]
    (tmp_path / "short_lived.py").unlink()
    field = pa.field("x", pa.binary(), metadata={b"jobpool.encoding": b"pickle"})
    stored_values = pa.array([data, pickle.dumps(5)])
    pq.write_table(pa.Table.from_arrays([stored_values], schema=pa.schema([field])), tmp_path / "args.parquet")
    assert "not readable here: " in read_table(tmp_path / "args.parquet")["x"][0].as_py()
    with pytest.raises(DamagedPoolError, match="cannot be loaded"):
        read_values(tmp_path / "args.parquet")
    assert read_calls(tmp_path / "args.parquet", [1, 0], skip_unreadable=True) == [{"x": 5}, {}]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2], dtype="int8"),
        pd.Series([1, 2], dtype="uint64"),
        pd.Series([0.5, np.nan], dtype="float32"),
        pd.Series([True, False]),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([2**62 + 1, None], dtype="Int64"),
        pd.Series([0.5, None], dtype="Float32"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series(["a", None]),
        pd.Series(["a", None], dtype="string"),
        pd.Series(["a", None], dtype=object),
        pd.Series([1, 2], dtype=object),
        pd.Series([1, "a", (1,), None], dtype=object),
        pd.Series(["b", "a", None], dtype=pd.CategoricalDtype(["b", "a", "c"], ordered=True)),
        pd.Series([3, 1], dtype="category"),
        pd.Series(pd.date_range("2024", periods=2, unit="ns")),
        pd.Series(pd.date_range("2024", periods=2, unit="s")),
        pd.Series([pd.Timestamp("2024"), pd.NaT]),
        pd.Series(pd.date_range("2024", periods=2, tz="Europe/Berlin")),
        pd.Series(pd.to_timedelta([1, None], unit="s")),
        pd.Series(pd.period_range("2024", periods=2)),
        pd.Series(pd.interval_range(0, 2)),
        pd.Series([date(2024, 1, 1), None]),
        pd.Series([1, None], dtype="int64[pyarrow]"),
        pd.Series([1j, 2]),
        pd.Series([np.zeros(2), np.ones(2)]),
        pd.Series([], dtype="float64"),
        pd.Series([], dtype="object"),
    ],
    ids=lambda column: str(column.dtype),
)
def test_a_dataframe_reads_back_as_it_was(column: pd.Series[Any], tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": column})
    path = stored(tmp_path, one, frame.set_axis(range(7, 7 + len(frame))))
    pd.testing.assert_frame_equal(arguments_frame(path), frame)
    pd.testing.assert_frame_equal(
        arguments_frame(path, list(range(len(frame)))[::-1]), frame[::-1].reset_index(drop=True)
    )


def test_what_an_annotation_changed_has_the_type_of_the_new_values(tmp_path: Path) -> None:
    signature = Signature("f", (Parameter("x", int), Parameter("y", int | None), Parameter("z", float)))
    frame = pd.DataFrame({"x": ["1", "2"], "y": [1.0, np.nan], "z": np.array([1, 2], np.float32)})
    found = arguments_frame(stored(tmp_path, signature, frame))
    assert found["x"].tolist() == [1, 2]
    assert [str(dtype) for dtype in found.dtypes] == ["int64", "float64", "float32"]


def test_values_have_the_types_that_pandas_gives_them(tmp_path: Path) -> None:
    for values in ([1, 2], [0.5, 1.5], ["a", "b"], [True], [datetime(2024, 1, 1)], [1, "a"], [date(2024, 1, 1)]):  # noqa: DTZ001
        pd.testing.assert_frame_equal(arguments_frame(stored(tmp_path, one, values)), pd.DataFrame({"x": values}))


frames = pandas_strategies.data_frames(
    [
        pandas_strategies.column("a", dtype=int),
        pandas_strategies.column("b", dtype=float),
        pandas_strategies.column("c", elements=st.text(st.characters(codec="utf-8"), max_size=3), dtype=object),
        pandas_strategies.column("d", dtype="datetime64[ns]"),
        pandas_strategies.column("e", dtype=bool),
        pandas_strategies.column("f", dtype="timedelta64[ns]"),
    ],
    index=pandas_strategies.range_indexes(max_size=4),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(frame=frames)
def test_any_dataframe_reads_back_as_it_was(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = stored(tmp_path, any_name, frame)
    pd.testing.assert_frame_equal(arguments_frame(path), frame)
    assert len(read_values(path)) == len(frame)


def test_a_geodataframe_reads_back_with_its_geometries_and_reference_systems(tmp_path: Path) -> None:
    gpd = pytest.importorskip("geopandas")
    testing = pytest.importorskip("geopandas.testing")
    shapely = pytest.importorskip("shapely")
    points = [shapely.Point(0, 0, 5), None, shapely.Point(1, 1)]
    frame = gpd.GeoDataFrame({"n": [1, 2, 3], "site": points}, geometry="site", crs=4326)
    frame["projected"] = frame["site"].to_crs(3857)
    path = stored(tmp_path, any_name, frame)
    found = arguments_frame(path)
    testing.assert_geodataframe_equal(found, frame)
    assert (found.crs, found["projected"].crs) == (frame.crs, frame["projected"].crs)
    testing.assert_geodataframe_equal(arguments_frame(path, [2]), frame.iloc[[2]].reset_index(drop=True))
    assert read_calls(path, [0]) == [{"n": 1, "site": points[0], "projected": frame["projected"][0]}]
    plain = pd.DataFrame({"site": frame["site"]})
    assert type(arguments_frame(stored(tmp_path, any_name, plain))) is pd.DataFrame


def test_the_arguments_of_a_dataframe_are_parquet_for_everybody(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    frame = pd.DataFrame({"a": pd.Categorical(["x", "y"]), "b": pd.array([1, 2], dtype="Int64")})
    assert polars.read_parquet(stored(tmp_path, any_name, frame)).to_dicts() == frame.to_dict("records")


def test_a_constant_arrives_as_it_is_and_once(tmp_path: Path) -> None:
    def f(x: int, a: Any, b: Any, c: Any) -> tuple[Any, Any, Any, int]:
        return a, b, c, x

    array = np.arange(100_000)
    values = {"a": array, "b": (1, [None]), "c": "5"}
    path = stored(tmp_path, f, [1, 2], **values)
    assert [each.stat().st_mode & 0o777 for each in PoolPaths(tmp_path).constants.iterdir()] == [0o600]
    assert path.stat().st_size < 20_000
    call = TaskArguments(path, f).call()
    assert call(1)[0] is call(2)[0]
    np.testing.assert_array_equal(call(1)[0], array)
    assert call(1)[1:] == ((1, [None]), "5", 1)
    assert list(constants_of(path)) == ["a", "b", "c"]


def test_a_large_constant_that_is_cut_off_is_a_damage(tmp_path: Path) -> None:
    path = stored(tmp_path, any_name, [{}], x="a" * 100_000, y=list(range(50_000)))
    assert constants_of(path) == {"x": "a" * 100_000, "y": list(range(50_000))}
    file = PoolPaths(tmp_path).constants / "0001.pickle"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamagedPoolError, match=r"0001\.pickle holds .* bytes instead of"):
        constants_of(path)
    file.unlink()
    with pytest.raises(DamagedPoolError, match="cannot be read"):
        TaskArguments(path, any_name)


@pytest.mark.parametrize("name", ["../planted.pickle", "/elsewhere/planted.pickle"])
def test_a_constant_is_read_from_the_pool_alone(name: str, tmp_path: Path) -> None:
    path = stored(tmp_path, any_name, [{}], x="a" * 100_000)
    table = pq.read_table(path)
    stray = table.schema.metadata[b"jobpool.constants"].replace(b"0000.pickle", name.encode())
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"jobpool.constants": stray}), path)
    with pytest.raises(DamagedPoolError, match="names a file outside of its pool"):
        TaskArguments(path, any_name)


def test_people_see_constants_without_large_ones_being_read(tmp_path: Path) -> None:
    path = stored(tmp_path, any_name, [{}], n=5, odd={1}, large=np.zeros(1_000_000))
    (PoolPaths(tmp_path).constants / "0000.pickle").unlink()
    shown = show_constants(path)
    assert repr(shown) == "{'n': 5, 'odd': {1}, 'large': <numpy.ndarray, 8,000,139 bytes>}"
    assert isinstance(shown["odd"], str)


def test_nothing_is_unpickled_from_the_pool_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, any_name, [{"x": {1}}], odd={1})
    monkeypatch.setattr("os.geteuid", lambda: 4242)
    monkeypatch.setattr("jobpool_cli.store.arguments.decoding.unpickled", None)
    notice = "<not shown: it would have to be unpickled, and the pool is not yours alone>"
    assert repr(show_constants(path)) == f"{{'odd': {notice}}}"
    assert read_table(path).to_pylist() == [{"x": notice}]


def test_a_constant_is_converted_as_values_are(tmp_path: Path) -> None:
    def f(x: int, when: date, n: int | None = 1, *, m: float = 0.0) -> None: ...

    path = stored(tmp_path, f, [1], when="2024-01-31", n=None, m=2)
    assert repr(constants_of(path)) == repr({"when": date(2024, 1, 31), "n": None, "m": 2.0})
    for name, value, message in (
        ("when", "x", "the constant when: 'x' is not a date: "),
        ("m", None, "the constant m: the value is missing, and a float is needed"),
    ):
        with pytest.raises(InputError) as caught:
            stored(tmp_path, f, [1], **{"when": date(2024, 1, 1), name: value})
        assert caught.value.message.startswith(message)


def test_a_constant_that_cannot_be_sent_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the constant y is a _thread\.lock, which cannot be sent"):
        stored(tmp_path, any_name, [{}], y=threading.Lock())


def refused(path: Path, function: Callable[..., Any] | Signature, tasks: list[int] | None = None) -> str:
    signature = function if isinstance(function, Signature) else Signature.of(function)
    with pytest.raises(InputError) as caught:
        check_stored(path, signature, tasks)
    assert "map anew" in caught.value.hint
    return caught.value.message


def test_other_code_is_refused_values_that_its_annotations_would_have_to_convert(tmp_path: Path) -> None:
    path = stored(tmp_path, one, ["2024-01-31", "2024-02-01"])

    def wants_dates(x: date) -> None: ...
    def wants_text(x: str | None) -> None: ...

    lines = refused(path, wants_dates).splitlines()
    assert lines == [
        "the pool's arguments do not fit wants_dates(x):",
        "task 0, x: '2024-01-31' is stored as a str, and a date is needed",
        "task 1, x: '2024-02-01' is stored as a str, and a date is needed",
    ]
    assert "task 1, x:" in refused(path, wants_dates, [1])
    check_stored(path, Signature.of(wants_text))
    check_stored(path, Signature.of(wants_dates), [])


@pytest.mark.parametrize(
    ("values", "annotation", "fits"),
    [
        ([1, 2], float, True),
        ([1, 2], int | None, True),
        ([1, None], int, False),
        ([1, 2], str, False),
        ([1.0, 2.0], int, True),
        ([1.5], int, False),
        ([{"x": {"a": 1}}], dict[str, int], True),
        ([{"x": {"a": 1}}], dict[str, str], False),
        ([(1, 2)], tuple[int, ...], True),
        ([[1]], set[int], False),
        ([Path("a")], Path, True),
        ([float("nan")], float, True),
        (list(range(100_000)), int, True),
        (["a"] * 100, int, False),
    ],
)
def test_other_code_gets_what_serves_as_it_is(values: list[Any], annotation: Any, fits: bool, tmp_path: Path) -> None:  # noqa: FBT001
    path = stored(tmp_path, one, values)
    signature = Signature("g", (Parameter("x", annotation),))
    if fits:
        check_stored(path, signature)
    else:
        assert "the pool's arguments do not fit g(x):\ntask " in refused(path, signature)


def test_other_code_must_have_defaults_where_tasks_leave_arguments_out(tmp_path: Path) -> None:
    def before(x: int, y: int = 1) -> None: ...
    def other_default(x: int, y: int = 2) -> tuple[int, int]:
        return x, y

    def no_default(x: int, y: int) -> None: ...

    path = stored(tmp_path, before, [{"x": 1, "y": 5}, {"x": 2}])
    check_stored(path, Signature.of(other_default))
    arguments = TaskArguments(path, other_default)
    assert [arguments.call()(*row) for row in zip(*arguments.rows([(0, 2)]), strict=True)] == [(1, 5), (2, 2)]
    assert "item 1 of the pool has no key y" in refused(path, no_default)
    check_stored(path, Signature.of(no_default), [0])
