"""What hosts send, written into the pool as if it had happened here: output, files of results, what runs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from jobpool_cli.layout import TEMPORARY_PREFIX, PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.slots import ATTEMPT, FIRST, IDLE, LOG_START, PID, POSITION, STARTED
from jobpool_cli.worker.protocol import ProtocolError

_SEGMENT = re.compile(re.escape(TEMPORARY_PREFIX) + r"[0-9a-f]{12}-segment\.parquet")


def write_log(paths: PoolPaths, worker: int, at: int, data: bytes) -> None:
    """Write a part of a worker's output to its log.

    Raises:
        OSError: the disk does not take it.
    """
    fd = os.open(paths.worker_log(worker), os.O_WRONLY | os.O_NOFOLLOW)
    try:
        _write_all(fd, data, at)
    finally:
        os.close(fd)


def write_segment(paths: PoolPaths, name: str, at: int, data: bytes) -> None:
    """Write a part of a file of large results, under its temporary name.

    Raises:
        OSError: the disk does not take it.
        ProtocolError: that is no name of such a file.
    """
    fd = durable.open_private(_segment(paths, name), os.O_WRONLY)
    try:
        _write_all(fd, data, at)
    finally:
        os.close(fd)


def sync_segment(paths: PoolPaths, name: str) -> None:
    """Flush a file of large results that is whole.

    Raises:
        OSError: the disk did not take it.
        ProtocolError: that is no name of such a file.
    """
    durable.sync_file(_segment(paths, name))


def show(slot: memoryview, pid: int, words: Sequence[int]) -> None:
    """Show what a worker runs, as local workers do by themselves.

    Args:
        slot: its slot in the pool's shared memory.
        pid: its process number, on its machine.
        words: the slot's POSITION, nanoseconds since STARTED, FIRST, ATTEMPT and LOG_START.
    """
    position, elapsed, first, attempt, log_start = words
    slot[PID], slot[FIRST], slot[ATTEMPT], slot[LOG_START] = pid, first, attempt, log_start
    if position != IDLE:
        slot[STARTED] = time.monotonic_ns() - elapsed
    slot[POSITION] = position


def _segment(paths: PoolPaths, name: str) -> Path:
    if not _SEGMENT.fullmatch(name):
        raise ProtocolError(f"a file that is none of results: {name!r:.80}")
    return paths.results / name


def _write_all(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written
