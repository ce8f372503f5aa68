"""Sealed segments: blobs of the inbox made into a few large Parquet files, and read back together with the inbox."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.outcomes.compression import leaves_of
from jobpool_cli.store.outcomes.opening import opened
from jobpool_cli.store.outcomes.table import batch_in, spread_out, table_of, united_pickle_field
from jobpool_cli.store.state.reader import StateReader

ROW_GROUP_ROWS = 131_072
# Rising and nearly constant integers shrink to one or two bytes in Parquet's DELTA_BINARY_PACKED encoding.
DELTA_COLUMNS = ("task", "started", "duration_ns", "cpu_ns", "log_start", "log_end")
# Batches of a row or two take far more memory than their rows do: so many become one as they come in.
BATCHES_AT_A_TIME = 256
DICTIONARY_COLUMNS = ("attempt", "state", "worker", "udf")
# Pages that stay in the processor's cache while they are written.
PAGE_BYTES = 256 << 10
RESULT_COLUMNS = ("result", "result_pickle")


def write_segment(tables: Sequence[pa.Table], path: Path) -> int:
    """Write outcome tables of one kind as one private, synced Parquet file and return its size in bytes.

    The file is not in its place yet: the caller passes a temporary path and renames it when it records the segment.
    """
    tables = _of_one_schema(tables)
    schema = tables[0].schema
    # Whole numbers are mostly neighbours of each other, everything else is mostly one of a few values.
    delta, dictionary = list(DELTA_COLUMNS), list(DICTIONARY_COLUMNS)
    (delta if pa.types.is_integer(schema.field("result").type) else dictionary).append("result")
    fd = durable.open_new(path)
    try:
        with (
            # By its descriptor, as Arrow's own file: Python's would cost a copy of everything.
            pa.OSFile(f"/proc/self/fd/{fd}", "wb") as file,
            pq.ParquetWriter(
                file,
                schema,
                compression=_codecs(tables),
                use_dictionary=dictionary,
                column_encoding=dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
                write_statistics=["task", "started"],
                data_page_size=PAGE_BYTES,
                write_page_checksum=True,
            ) as writer,
        ):
            writer.write_table(pa.concat_tables(tables), row_group_size=ROW_GROUP_ROWS)
        os.fsync(fd)
        return os.fstat(fd).st_size
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(fd)


def _codecs(tables: Sequence[pa.Table]) -> str | dict[str, str]:
    """Return how to compress: all columns, or all but those of results that hardly shrink."""
    leaves = [
        leaf
        for name in RESULT_COLUMNS
        for leaf in leaves_of(name, (chunk for table in tables for chunk in table[name].chunks))
    ]
    if all(leaf.shrinks for leaf in leaves):
        return "zstd"
    codecs = {name: "zstd" for name in tables[0].column_names if name not in RESULT_COLUMNS}
    return codecs | {leaf.path: "zstd" if leaf.shrinks else "none" for leaf in leaves}


def _of_one_schema(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Give tables whose results are all None the schema of the others, and all what the pickles of any share."""
    schema = next((table.schema for table in tables if not pa.types.is_null(table.schema.field("result").type)), None)
    schema = schema or tables[0].schema
    place = schema.get_field_index("result_pickle")
    schema = schema.set(place, united_pickle_field(table.schema for table in tables))
    return [table if table.schema.equals(schema, check_metadata=True) else table.cast(schema) for table in tables]


def seal(blobs: Sequence[bytes], path: Path, most: int) -> tuple[int, int]:
    """Write blobs of one kind (or of all-None results, which go with any kind) as one segment.

    Args:
        blobs: the blobs, of which the first ones are taken.
        path: the file to write.
        most: no further blob is taken once the columns hold so many bytes uncompressed.

    Returns:
        How many blobs were taken, and the file's size in bytes.
    """
    tables: list[pa.Table] = []
    taken = whole = 0
    while taken < len(blobs) and whole < most:
        batches: list[pa.Table] = []
        for blob in blobs[taken : taken + BATCHES_AT_A_TIME]:
            batches.append(batch_in(blob))
            whole += batches[-1].nbytes
            if whole >= most:
                break
        taken += len(batches)
        table = spread_out(batches)
        tables.append(table.combine_chunks() if table.num_rows <= ROW_GROUP_ROWS else table)
    return taken, write_segment(tables, path)


def read_outcomes(
    paths: PoolPaths,
    reader: StateReader,
    columns: Sequence[str] | None = None,
    tasks: tuple[int, int] | None = None,
) -> Iterator[pa.Table]:
    """Yield the outcomes of all successful tasks, sealed or not, as tables; result columns may differ between them.

    Args:
        paths: the pool.
        reader: an open reader of its state.
        columns: those wanted, all if None.
        tasks: a half-open range of task numbers outside which rows may be left out.

    Raises:
        DamagedPoolError: a segment cannot be read; names the file and its tasks.
    """
    wanted = list(columns) if columns is not None else None
    with reader.snapshot():
        reader.check_successes()
        segments = reader.segments()
        blobs = reader.inbox_blobs(tasks)
    for segment in segments:
        if tasks is not None and (segment.last < tasks[0] or segment.first >= tasks[1]):
            continue
        with opened(paths, segment) as file:
            # Not pq.read_table(): it would import pandas by way of pyarrow.dataset.
            known = row_group_bounds(file.metadata)
            groups = [
                number
                for number, (low, high) in enumerate(known or [])
                if tasks is not None and low < tasks[1] and high >= tasks[0]
            ]
            read = tasks is None or known is None
            table = file.read(wanted) if read else file.read_row_groups(groups, wanted)
        yield table
    for blob in blobs:
        table = table_of(blob)
        yield table if wanted is None else table.select(wanted)


def row_group_bounds(metadata: pq.FileMetaData) -> list[tuple[int, int]] | None:
    """Return the lowest and highest task of each row group of a segment; None if the file does not tell."""
    column = metadata.schema.names.index("task")
    bounds = []
    for number in range(metadata.num_row_groups):
        statistics = metadata.row_group(number).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        bounds.append((statistics.min, statistics.max))
    return bounds
