"""Columns of geometries, as geopandas has them, in well-known binary (WKB).

Whoever returns a GeoDataFrame has geopandas, so it is imported where it is used. Who reads it may not have it: then the
bytes stand in the geometries' place.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from jobpool_cli.store.values.buffers import binaries, presence, texts
from jobpool_cli.store.values.fitted import Fitted, Spec

if TYPE_CHECKING:
    import pandas as pd

KIND = "geometry"

# A field of a collected table with this metadata holds geometries in WKB.
WKB = {b"jobpool.encoding": b"wkb"}


class Geometries(NamedTuple):
    """What a column of geometries has beside these; its dtype tells nothing.

    Attributes:
        crs: the coordinate reference system, as ``crs_text`` has it.
        active: whether it is the active geometry of a GeoDataFrame.
    """

    crs: str | None
    active: bool


def is_geometry(dtype: object) -> bool:
    """Whether a column of this dtype holds geometries; by name, so that nothing is imported for it."""
    return type(dtype).__name__ == "GeometryDtype" and type(dtype).__module__.startswith("geopandas.")


def is_geo(value: object) -> bool:
    """Whether this is a GeoDataFrame or a GeoSeries, or of a class made from these."""
    return any(each.__module__.startswith("geopandas.") for each in type(value).__mro__)


def geo_layout(value: Any, dtypes: Sequence[object]) -> tuple[object, ...] | None:
    """What frames or Series of these dtypes must agree in beside them: class, active geometry, and each CRS.

    None for a GeoDataFrame without an active geometry: geopandas would choose one, or make another class of it.
    """
    geometries = [number for number, dtype in enumerate(dtypes) if is_geometry(dtype)]
    geo = is_geo(value)
    if not geometries and not geo:
        return ()
    columns = [value] if value.ndim == 1 else [value.iloc[:, number] for number in geometries]
    active = active_geometry(value)
    if geo and value.ndim > 1 and active is None:
        return None
    return (geo, active, *(crs_text(column.array) for column in columns))


def active_geometry(value: Any) -> Any:
    """The name of a GeoDataFrame's active geometry column; None for anything else."""
    return getattr(value, "active_geometry_name", None)


def crs_text(geometries: Any) -> str | None:
    """The coordinate reference system of an array of geometries, in the words that pyproj's own pickles use."""
    crs = geometries.crs
    return None if crs is None else str(crs.srs)


def without_geo(value: Any) -> Any:
    """A GeoDataFrame or GeoSeries as plain pandas; the columns stay geometries."""
    import pandas as pd  # noqa: PLC0415 - the value comes from it

    return pd.Series(value) if value.ndim == 1 else pd.DataFrame(value)


def fit_geometries(series: pd.Series[Any]) -> Fitted:
    """A column of geometries; they are kept as geopandas' own pickles keep them."""
    import shapely  # noqa: PLC0415 - geometries are its objects

    cells = shapely.to_wkb(np.asarray(series.array, dtype=object)).tolist()
    return Fitted(binaries(cells, presence(cells)), {"kind": KIND, "crs": crs_text(series.array)})


def restore_geometries(column: pa.Array, spec: Spec) -> Any:
    """The geometries as geopandas' array; without geopandas an array of bytes objects."""
    cells = np.fromiter(column.to_pylist(), np.dtype(object), len(column))
    if not has_geopandas():
        return cells
    from geopandas.array import from_wkb  # noqa: PLC0415 - only where there are geometries

    return from_wkb(cells, crs=spec["crs"])


def geometries_of(shapes: list[Any], crs: str | None) -> Any:
    """Shapely's objects as geopandas' array; without geopandas an array of these objects."""
    cells = np.fromiter(shapes, np.dtype(object), len(shapes))
    if not has_geopandas():
        return cells
    from geopandas.array import from_shapely  # noqa: PLC0415 - only where there are geometries

    return from_shapely(cells, crs=crs)


def wkt_texts(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A column of WKB as text (WKT), in as many chunks; None where shapely is not installed."""
    try:
        import shapely  # noqa: PLC0415 - only where there are geometries
    except ImportError:
        return None
    chunks = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        shapes = shapely.from_wkb(np.fromiter(chunk.to_pylist(), np.dtype(object), len(chunk)))
        cells = shapely.to_wkt(shapes, rounding_precision=-1).tolist()
        chunks.append(texts(cells, presence(cells)).cast(pa.large_string()))
    return pa.chunked_array(chunks, pa.large_string())


def geo_of(frame: Any, active: object) -> Any:
    """A frame as GeoDataFrame with this active geometry, or a Series as GeoSeries; unchanged without geopandas."""
    if not has_geopandas():
        return frame
    import geopandas as gpd  # noqa: PLC0415 - only where there are geometries

    if frame.ndim == 1:
        return gpd.GeoSeries(frame)
    return gpd.GeoDataFrame(frame) if active is None else gpd.GeoDataFrame(frame, geometry=active)


@functools.cache
def has_geopandas() -> bool:
    """Whether geopandas can be imported here."""
    try:
        import geopandas  # noqa: F401, PLC0415 - a broken installation counts as none
    except ImportError:
        return False
    return True
