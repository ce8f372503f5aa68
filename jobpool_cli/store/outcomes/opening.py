"""Segments opened for reading: what is damaged is never mistaken for results.

A segment's size and its footer's checksum stand in the state database, its pages bear checksums of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store.footers import footer_crc
from jobpool_cli.store.ranges import Ranges, merged
from jobpool_cli.store.state.problems import shown_ranges
from jobpool_cli.store.state.reader import Segment, StateReader

TASK = "task"


@contextlib.contextmanager
def opened(paths: PoolPaths, segment: Segment) -> Iterator[pq.ParquetFile]:
    """Open a segment; whatever is wrong with it, also while it is read, is told with its tasks.

    Raises:
        DamagedPoolError: the file is missing, or not as it was written; names it and its tasks.
    """
    path = paths.results / segment.file
    try:
        if segment.footer is not None:
            _must_be("footer", footer_crc(path), segment.footer)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _must_be("number of rows", file.metadata.num_rows, segment.rows)
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, segment.ranges, error) from error


def _must_be(what: str, found: int, recorded: int) -> None:
    if found != recorded:
        raise ValueError(f"its {what} is not what was written")


def damaged(path: Path, ranges: Ranges, error: Exception) -> DamagedPoolError:
    """Return what to raise of a segment that cannot be read."""
    why = "it is missing" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
    name = path.parent.parent.name
    return DamagedPoolError(
        f"{path} cannot be read: {why}; it holds the results of {shown_ranges(merged(ranges))}",
        f"run these tasks again, and no others: jobpool retry --damaged {name}, or restore the file from a copy",
    )


def check_segment(paths: PoolPaths, segment: Segment) -> None:
    """Read a whole segment.

    Raises:
        DamagedPoolError: it cannot be read, or holds other tasks than it should.
    """
    tasks: list[int] = []
    with opened(paths, segment) as file:
        for number in range(file.num_row_groups):
            tasks += file.read_row_group(number)[TASK].to_pylist()
    wanted = merged(segment.ranges)
    if len(set(tasks)) != len(tasks) or merged((task, task + 1) for task in tasks) != wanted:
        raise damaged(paths.results / segment.file, segment.ranges, ValueError("it holds other tasks than it should"))


def damaged_segments(paths: PoolPaths, segments: Sequence[Segment]) -> list[str]:
    """Return the names of the segments that cannot be read."""
    found = []
    for segment in segments:
        try:
            check_segment(paths, segment)
        except DamagedPoolError:
            found.append(segment.file)
    return found


def results_by_udf(
    paths: PoolPaths, reader: StateReader, without: Sequence[str], blobs: Sequence[int]
) -> dict[int, int]:
    """Return how many results each version of the code has, leaving out some segments and blobs of the inbox."""
    from jobpool_cli.store.outcomes.table import table_of  # noqa: PLC0415 - only where something is damaged

    counted: dict[int, int] = {}
    columns = []
    for segment in reader.segments():
        if segment.file not in without:
            with opened(paths, segment) as file:
                columns.append(file.read(["udf"])["udf"])
    columns += [
        table_of(blob)["udf"] for blob in reader.blobs([each for each in reader.inbox_ids() if each not in blobs])
    ]
    for column in columns:
        for each in column.value_counts().to_pylist():
            counted[each["values"]] = counted.get(each["values"], 0) + each["counts"]
    return counted
