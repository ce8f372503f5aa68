"""What is compressed: columns that shrink, and no others, in segments and blobs alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobpool_cli.store.outcomes.compression import TRIAL_ABOVE_BYTES, leaves_of
from jobpool_cli.store.outcomes.segments import write_segment
from jobpool_cli.store.outcomes.table import batch_of, spread_out
from jobpool_cli.store.values.codec import decode, encode

NOISE = np.random.default_rng(7).random(2 * TRIAL_ABOVE_BYTES // 8)


def segment(values: list[object], path: Path) -> dict[str, str]:
    """Write a segment of these results; return how each of its columns is compressed."""
    numbers = np.arange(len(values))
    batch = batch_of(
        tasks=numbers, started_us=numbers, duration_ns=numbers, cpu_ns={}, log_start=numbers, log_end=numbers,
        results=encode(values), attempt=1, worker=1, udf=1,
    )  # fmt: skip
    assert write_segment([spread_out([pa.Table.from_batches([batch])])], path) == path.stat().st_size
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        chunks = [group.column(number) for number in range(group.num_columns)]
        table = file.read()
    found = decode(table["result"], table.schema.field("result"), table["result_pickle"])
    assert all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in zip(found, values, strict=True))
    return {chunk.path_in_schema: chunk.compression for chunk in chunks}


def test_noise_is_stored_as_it_is_and_all_else_compressed(tmp_path: Path) -> None:
    codecs = segment([NOISE, NOISE[::-1] / 3], tmp_path / "segment.parquet")
    assert codecs.pop("result.list.element") == "UNCOMPRESSED"
    assert set(codecs.values()) == {"ZSTD"}


def test_numbers_with_a_pattern_are_compressed(tmp_path: Path) -> None:
    codecs = segment([np.arange(len(NOISE)), np.arange(len(NOISE))], tmp_path / "segment.parquet")
    assert set(codecs.values()) == {"ZSTD"}


def test_few_bytes_are_compressed_without_a_trial(tmp_path: Path) -> None:
    codecs = segment([NOISE[:100], NOISE[100:200]], tmp_path / "segment.parquet")
    assert set(codecs.values()) == {"ZSTD"}


def test_pickles_that_do_not_shrink_are_stored_as_they_are(tmp_path: Path) -> None:
    image = NOISE.view(np.complex128)
    codecs = segment([image, image[::-1] / 3], tmp_path / "segment.parquet")
    assert codecs["result_pickle"] == "UNCOMPRESSED"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[{"a": 1, "b": "x"}], None, []]),
        pa.array([[("k", 1.5)], None], pa.map_(pa.string(), pa.float64())),
        pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
        pa.array(["x", None, "x"]).dictionary_encode(),
        pa.nulls(3),
        pa.array([{"a.b": [1], "c": None}]),
    ],
    ids=lambda column: str(column.type)[:20],
)
def test_leaves_have_the_names_that_they_have_in_the_file(column: pa.Array, tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"result": column}), path)
    schema = pq.read_metadata(path).schema
    assert [leaf.path for leaf in leaves_of("result", [column])] == [schema.column(n).path for n in range(len(schema))]


def test_batches_of_one_kind_become_one_table_whatever_columns_they_came_with() -> None:
    def batch(tasks: list[int], values: list[object], log: int, cpu: dict[int, int]) -> pa.Table:
        numbers = np.array(tasks)
        logs = np.zeros(len(tasks), np.int64)
        made = batch_of(
            tasks=numbers, started_us=numbers * 10, duration_ns=numbers * 2**33, cpu_ns=cpu, log_start=logs,
            log_end=logs + log, results=encode(values), attempt=tasks[0], worker=2, udf=3,
        )  # fmt: skip
        return pa.Table.from_batches([made])

    batches = [
        batch([1, 2], [None, None], 0, {}), batch([9, 3, 4], [5, "odd", 8], 7, {2: 99}), batch([5], [6], 0, {0: 1})
    ]  # fmt: skip
    together = spread_out(batches)
    apart = [row for one in batches for row in spread_out([one]).to_pylist()]
    assert together.to_pylist() == apart
    assert [row["task"] for row in apart] == [1, 2, 9, 3, 4, 5]
    assert [row["cpu_ns"] for row in apart] == [None, None, None, None, 99, 1]
    assert [row["duration_ns"] for row in apart] == [each * 2**33 for each in (1, 2, 9, 3, 4, 5)]
    assert [row["attempt"] for row in apart] == [1, 1, 9, 9, 9, 5]
