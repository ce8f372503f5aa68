"""What GeoParquet's readers want to know about a table: which columns hold geometries, and where on Earth they are."""

from __future__ import annotations

import json
from collections.abc import Mapping


def geoparquet_metadata(primary: str, columns: Mapping[str, str | None]) -> bytes:
    """The value of the schema's key ``geo``, after the GeoParquet specification 1.0.

    Args:
        primary: name of the column with the active geometry.
        columns: all columns of geometries, in WKB, with the text of their CRS.
    """
    from pyproj import CRS  # noqa: PLC0415 - comes with geopandas, only needed where there are geometries

    described: dict[str, dict[str, object]] = {
        name: {
            "encoding": "WKB",
            "crs": None if crs is None else CRS(crs).to_json_dict(),
            "geometry_types": [],  # any
        }
        for name, crs in columns.items()
    }
    return json.dumps({"version": "1.0.0", "primary_column": primary, "columns": described}).encode()
