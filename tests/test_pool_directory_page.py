"""docs/reference/pool-directory.md and the code say the same of the pool directory."""

from __future__ import annotations

import re
import sqlite3
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobpool_cli import layout
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import slots
from jobpool_cli.store.outcomes.table import batch_of, blob_of, table_of
from jobpool_cli.store.values.codec import encode

PAGE = (Path(__file__).parents[1] / "docs/reference/pool-directory.md").read_text(encoding="utf-8")


def rows_of(heading: str) -> list[list[str]]:
    """Return the cells of the first table behind a heading, without its two head rows."""
    section = PAGE.split(heading, 1)[1]
    lines = [line for line in section.splitlines() if line.strip()]
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table[2:]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_lists_every_path_of_the_directory_and_no_other() -> None:
    paths = PoolPaths(Path("/pool"))
    single = {name: getattr(paths, name) for name, member in vars(PoolPaths).items() if isinstance(member, property)}
    expected = {str(path.relative_to("/pool")) for path in single.values()} - {"udf"} | {"udf/v1"}
    listed = {names_in(row[0])[0].rstrip("/") for row in rows_of("is a pool that is being made or deleted.")}
    assert listed == expected


def test_the_page_names_the_files_inside_the_folders_as_the_code_does() -> None:
    paths = PoolPaths(Path("/pool"))
    for path in (paths.segment(1), paths.worker_log(1)):
        assert f"`{path.name}`" in PAGE


def test_the_page_lists_the_columns_of_the_results_with_their_types() -> None:
    one = np.array([5], np.int64)
    blob = blob_of(batch_of(
        tasks=one, started_us=one, duration_ns=one, cpu_ns={}, log_start=one, log_end=one, results=encode([1]),
        attempt=1, worker=1, udf=1,
    ))  # fmt: skip
    schema = table_of(blob).schema
    shown = {
        pa.dictionary(pa.int8(), pa.string()): "dictionary of string",
        pa.timestamp("us", "UTC"): "timestamp[us, UTC]",
    }
    expected = [
        (field.name, "by value" if field.name == "result" else shown.get(field.type, str(field.type)))
        for field in schema
    ]
    assert [(names_in(row[0])[0], row[1]) for row in rows_of("### Columns of `results/*.parquet`")] == expected


def test_the_page_lists_the_tables_and_columns_of_the_state_database() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        resources.files("jobpool_cli.store.state").joinpath("schema.sql").read_text(encoding="utf-8")
    )
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    actual = {table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in tables}
    connection.close()
    assert {names_in(row[0])[0]: names_in(row[1]) for row in rows_of("## `state.db`")} == actual


def test_the_page_lists_the_words_of_a_slot() -> None:
    listed = [(int(row[0]), names_in(row[1])[0]) for row in rows_of("## `slots`")]
    assert [(getattr(slots, name), name) for _, name in listed] == listed
    assert f"{slots.MAX_SLOTS} records" in PAGE


@pytest.mark.parametrize("text", [f"{layout.APPLICATION_ID:#x}", f"are both {layout.FORMAT_VERSION}"])
def test_the_page_states_the_format_s_identity(text: str) -> None:
    assert text in PAGE
