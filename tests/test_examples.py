"""The examples' functions as plain Python, over the real rows; that jobpool runs them is tested end to end."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> None:
    subprocess.run([sys.executable, EXAMPLES / "prepare.py"], check=True)


def rows(job: str) -> Iterator[dict[str, str]]:
    with (EXAMPLES / job / "args.csv").open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def minutes(cell: str) -> int | None:
    return None if cell == "NA" else int(cell)


def test_every_flight_gets_a_verdict_and_the_log_names_the_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    from examples.flights.udf import verdict  # noqa: PLC0415 - the tables that it needs are made first

    verdicts = Counter(
        verdict(
            date.fromisoformat(row["day"]),
            row["carrier"],
            int(row["flight"]),
            row["origin"],
            row["dest"],
            minutes(row["dep_delay"]),
            minutes(row["arr_delay"]),
        )
        for row in rows("flights")
    )
    assert verdicts == {"on time": 247_246, "late": 80_100, "cancelled": 8_255, "diverted": 1_175}
    assert capsys.readouterr().out.count(" never left\n") == verdicts["cancelled"]


def test_each_month_of_an_airport_is_a_frame_with_a_row_per_day() -> None:
    from examples.weather.udf import days  # noqa: PLC0415 - reads a table when it is imported

    frames = [days(row["origin"], int(row["month"])) for row in rows("weather")]
    assert len(frames) == 36
    assert sum(map(len, frames)) == 1_092
    assert {frame.index.name for frame in frames} == {"day"}
    assert all((frame["low"] <= frame["high"]).all() for frame in frames)


def test_planes_whose_record_is_not_in_order_fail_until_the_function_is_mended() -> None:
    from examples.planes import udf, udf_mended  # noqa: PLC0415 - as the others

    failures: Counter[type[Exception]] = Counter()
    for row in rows("planes"):
        arguments = (row["tailnum"], row["year"], row["engine"], int(row["engines"]), int(row["seats"]))
        mended = udf_mended.plane(*arguments)
        try:
            assert udf.plane(*arguments) == mended
        except (ValueError, KeyError) as error:
            failures[type(error)] += 1
    assert failures == {ValueError: 70, KeyError: 22}
