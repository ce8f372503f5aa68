"""GeoDataFrames stay GeoDataFrames: as results, collected, and in files that geopandas reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobpool_cli.store.outcomes import columns
from jobpool_cli.store.outcomes.collect import Collected, assemble
from jobpool_cli.store.outcomes.export import export
from jobpool_cli.store.values import geometry
from jobpool_cli.store.values.codec import decode, encode
from jobpool_cli.store.values.jsonable import jsonable
from tests.store.parts import part

gpd = pytest.importorskip("geopandas")
testing = pytest.importorskip("geopandas.testing")
shapely = pytest.importorskip("shapely")

KEYS = pa.table({"x": list(range(12))})
WKT = ["POINT EMPTY", "POINT Z (1 2 3)", "POLYGON Z EMPTY", "GEOMETRYCOLLECTION (POINT (1 2))", "LINESTRING (0 0, 1 1)"]


def places(*shapes: str | None, crs: object = 4326, name: str = "geometry") -> Any:
    made = [None if shape is None else shapely.from_wkt(shape) for shape in shapes]
    frame = gpd.GeoDataFrame({"v": range(len(made))}, geometry=gpd.GeoSeries(made, crs=crs))
    return frame if name == "geometry" else frame.rename_geometry(name)


def same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, gpd.GeoDataFrame):
        testing.assert_geodataframe_equal(found, expected, check_crs=expected.active_geometry_name is not None)
        assert found.active_geometry_name == expected.active_geometry_name
    elif isinstance(expected, gpd.GeoSeries):
        testing.assert_geoseries_equal(found, expected)
        assert found.name == expected.name
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    else:
        pd.testing.assert_series_equal(found, expected)


def from_file(collected: Collected) -> Any:
    sink = io.BytesIO()
    pq.write_table(collected.to_arrow(), sink)
    return gpd.read_parquet(io.BytesIO(sink.getvalue()))


ALL = places(*WKT, None)
TWO = ALL.assign(other=gpd.GeoSeries([shapely.Point(1, 2)] * 6, crs=3857)).set_geometry("other")


@pytest.mark.parametrize(
    "value",
    [
        ALL,
        TWO,
        ALL.rename_geometry("shape"),
        ALL.set_crs(None, allow_override=True),
        ALL.to_crs("+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80 +units=m"),
        ALL.set_index("v"),
        pd.DataFrame(ALL),
        ALL.geometry,
        ALL.geometry.rename(None),
        pd.Series(ALL.geometry),
    ],
)
def test_geometries_come_back_as_they_were_without_a_pickle(value: Any) -> None:
    values = [value, None, value.iloc[:2], value.iloc[:0]]
    encoded = encode(values)
    assert encoded.pickles is None
    for found, expected in zip(decode(encoded.result, encoded.field, None), values, strict=True):
        if expected is None:
            assert found is None
        else:
            same(found, expected)


@pytest.mark.parametrize("value", [gpd.GeoDataFrame(), gpd.GeoDataFrame({"a": [1]})])
def test_what_has_no_active_geometry_comes_back_as_it_was(value: Any) -> None:
    encoded = encode([value])
    same(decode(encoded.result, encoded.field, encoded.pickles)[0], value)


def test_geo_frames_of_all_kinds_in_one_batch_come_back_equal() -> None:
    values = [ALL, TWO, pd.DataFrame(ALL), ALL.rename_geometry("shape"), ALL.to_crs(3857), TWO.set_geometry("geometry")]
    encoded = encode(values)
    for found, expected in zip(decode(encoded.result, encoded.field, encoded.pickles), values, strict=True):
        same(found, expected)


def test_geo_frames_collect_into_one_as_concat_has_it() -> None:
    first, second = places("POINT (1 2)", None), places("POINT (3 4)", "POINT Z (5 6 7)")
    collected = assemble([part({0: first, 1: second}), part({2: None, 3: gpd.GeoDataFrame()})], KEYS)
    assert collected.warnings == []
    expected = pd.concat([first, second], keys=[0, 1], names=["x", None])
    same(collected.to_pandas(), expected)
    same(from_file(collected), expected)


def test_several_geometry_columns_keep_their_own_systems() -> None:
    collected = assemble([part({0: TWO}), part({1: TWO})], KEYS)
    found = collected.to_pandas()
    same(found, pd.concat([TWO, TWO], keys=[0, 1], names=["x", None]))
    assert found.active_geometry_name == "other"
    assert [found.crs.to_epsg(), found["geometry"].crs.to_epsg()] == [3857, 4326]
    same(from_file(collected), found)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (
            places("POINT (1 2)", crs=3857),
            "the geometries 'geometry' of task 0 are in EPSG:4326, but those of task 1 in EPSG:3857",
        ),
        (
            places("POINT (1 2)", crs=None),
            "the geometries 'geometry' of task 0 are in EPSG:4326, but those of task 1 in no reference system",
        ),
        (
            places("POINT (1 2)", name="shape"),
            "the active geometry of task 0 is 'geometry', but that of task 1 'shape'",
        ),
    ],
)
def test_geo_frames_that_do_not_agree_stay_whole_and_a_note_says_why(other: Any, why: str) -> None:
    one = places("POINT (1 2)")
    for parts in ([part({0: one, 1: other})], [part({0: one}), part({1: other})]):
        collected = assemble(parts, KEYS)
        assert collected.notes == [f"the results stay whole, in one column 'result': {why}"]
        for found, expected in zip(collected.to_pandas()["result"], [one, other], strict=True):
            same(found, expected)


def test_geo_frames_without_rows_have_no_say_in_the_system() -> None:
    one = places("POINT (1 2)")
    empty = [gpd.GeoDataFrame(geometry=[]), one.iloc[:0].to_crs(3857)]
    collected = assemble([part({0: empty[0]}), part({1: one}), part({2: empty[1]})], KEYS)
    assert collected.warnings == []
    same(collected.to_pandas()[["v", "geometry"]], pd.concat([one], keys=[1], names=["x", None]))
    assert assemble([part({0: empty[1]})], KEYS).to_pandas().crs == 3857


def test_rows_of_plain_frames_beside_geo_frames_have_no_geometry() -> None:
    found = assemble([part({0: places("POINT (1 2)")}), part({1: pd.DataFrame({"v": [7]})})], KEYS).to_pandas()
    assert isinstance(found, gpd.GeoDataFrame)
    assert found.geometry.isna().tolist() == [False, True]


@pytest.mark.parametrize("other", ["text", b"bytes"])
def test_a_column_of_geometries_and_something_else_holds_the_very_objects(other: object) -> None:
    parts = [part({0: places("POINT (1 2)")}), part({1: pd.DataFrame({"geometry": [other]})})]
    collected = assemble(parts, KEYS)
    assert collected.warnings == [
        "column 'geometry' is written as JSON text: it holds geometries in some results and something else in others"
    ]
    assert collected.to_pandas()["geometry"].tolist() == [shapely.Point(1, 2), other]
    assert collected.to_arrow()["geometry"][0].as_py() == '"POINT (1 2)"'


def test_geo_series_collect_into_a_geo_frame() -> None:
    series = gpd.GeoSeries([shapely.Point(1, 2), None], crs=4326)
    found = assemble([part({0: series, 1: series.iloc[:0]}), part({2: series})], KEYS).to_pandas()
    same(found, pd.concat([series.to_frame("geometry")] * 2, keys=[0, 2], names=["x", None]))


def test_an_argument_of_the_name_of_the_geometry_is_kept(tmp_path: Path) -> None:
    collected = assemble([part({0: places("POINT (1 2)")})], pa.table({"geometry": ["p"]}))
    assert collected.to_pandas().index.tolist() == [("p", 0)]
    export(collected.to_arrow(), tmp_path / "x.parquet", "parquet")
    same(gpd.read_parquet(tmp_path / "x.parquet"), collected.to_pandas())


def test_text_files_have_geometries_as_wkt(tmp_path: Path) -> None:
    table = assemble([part({0: places("POINT (1 2)", None)})], KEYS, drop_index=True).to_arrow()
    export(table, tmp_path / "x.csv", "csv")
    assert (tmp_path / "x.csv").read_text().splitlines()[1:] == ["0,0,0,POINT (1 2)", "0,1,1,"]
    export(table, tmp_path / "x.jsonl", "jsonl")
    assert '"geometry": "POINT (1 2)"' in (tmp_path / "x.jsonl").read_text()
    assert jsonable(places("POINT (1 2)")) == [{"v": 0, "geometry": "POINT (1 2)"}]


def test_without_geopandas_frames_are_plain_and_hold_wkb(monkeypatch: pytest.MonkeyPatch) -> None:
    table = part({0: places("POINT (1 2)")})
    for module in (geometry, columns):
        monkeypatch.setattr(module, "has_geopandas", lambda: False)
    collected = assemble([table], KEYS)
    assert collected.warnings == ["geopandas is not installed here: column 'geometry' holds WKB"]
    found = collected.to_pandas()
    assert type(found) is pd.DataFrame
    assert found["geometry"].tolist() == [shapely.to_wkb(shapely.Point(1, 2))]
    restored: Any = decode(table["result"], table.schema.field("result"), None)
    assert type(restored[0]) is pd.DataFrame
    assert restored[0]["geometry"].dtype == np.dtype(object)
