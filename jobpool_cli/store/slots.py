"""Shared memory: what each worker process runs right now, without a message or a system call per task.

The file ``slots`` holds ``MAX_SLOTS`` records of sixteen signed 64-bit words in the machine's byte order. The worker
writes all words but ``LIMIT``; the supervisor writes ``LIMIT``; readers such as ``status`` only look.

=========== ======================================================================================================
word        meaning
=========== ======================================================================================================
WORKER      number of the worker process that owns the slot (names its log file); 0: nobody
PID         its process number, for display only
POSITION    ``batch << 32 | position in the batch`` of the task that runs; -1 while none does
STARTED     ``time.monotonic_ns()`` when that task began
FIRST       task number at position 0, as if the batch were one range; rewritten at each gap between ranges
ATTEMPT     attempt of the batch
LOG_START   offset in the worker's log at which the task's output begins
LIMIT       ``batch << 32 | position``: from this position on, the batch was taken back; other batches: no limit
=========== ======================================================================================================

A batch's tail is taken back without a lock. The worker first publishes POSITION and then reads LIMIT; the supervisor
first writes LIMIT, waits until that store has long reached the worker, and then reads POSITION: whatever lies behind
the position that it sees, the worker has not begun and will not begin.
"""

from __future__ import annotations

import mmap
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jobpool_cli.layout import FILE_MODE
from jobpool_cli.model import MAX_PROCESSES, RunningTask

MAX_SLOTS = MAX_PROCESSES
WORDS = 16
SLOT_BYTES = WORDS * 8

WORKER, PID, POSITION, STARTED, FIRST, ATTEMPT, LOG_START, LIMIT = range(8)

IDLE = -1
POSITION_BITS = 32
POSITION_MASK = (1 << POSITION_BITS) - 1


def create_slots(path: Path) -> None:
    """Make (or clear) the file of slots: all idle."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, FILE_MODE)
    try:
        os.ftruncate(fd, 0)
        os.ftruncate(fd, MAX_SLOTS * SLOT_BYTES)
    finally:
        os.close(fd)


class SharedSlots:
    """All slots, mapped for writing; the supervisor has one of these."""

    def __init__(self, path: Path) -> None:
        """Map an existing file of slots."""
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            self._map = mmap.mmap(fd, MAX_SLOTS * SLOT_BYTES)
        finally:
            os.close(fd)

    def slot(self, index: int) -> memoryview:
        """Return one slot as a view of ``WORDS`` integers."""
        return memoryview(self._map)[index * SLOT_BYTES : (index + 1) * SLOT_BYTES].cast("q")


def reset(slot: memoryview, worker: int, pid: int) -> None:
    """Give a slot to a new worker process."""
    slot[POSITION] = IDLE
    slot[LIMIT] = IDLE
    slot[WORKER] = worker
    slot[PID] = pid


def position_in(slot: memoryview, batch: int) -> int | None:
    """Return the position at which the slot's worker is in a batch, None if it is not in that batch."""
    word: int = slot[POSITION]
    return word & POSITION_MASK if word != IDLE and word >> POSITION_BITS == batch else None


def left_running(path: Path) -> list[tuple[int, int, int]]:
    """Return (low, high, attempt) of tasks that a dead supervisor's workers may have run and not told of.

    For each worker that was in a batch: from position 0 to its last one, as if the batch were one range. Where it is
    not, low may be too low, and tasks of the ranges before are not in it.
    """
    try:
        words = memoryview(path.read_bytes()).cast("q")
    except (OSError, TypeError):
        return []
    found = []
    for base in range(0, len(words) - WORDS + 1, WORDS):
        word = words[base + POSITION]
        if words[base + WORKER] and word != IDLE:
            first = words[base + FIRST]
            found.append((first, first + (word & POSITION_MASK) + 1, words[base + ATTEMPT]))
    return found


def read_running(path: Path) -> list[RunningTask]:
    """Return the running tasks that the slots show; the caller knows whether the pool's supervisor lives.

    The file is read in one go and may catch a worker between two tasks: what it shows is a snapshot, for people.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    now, wall = time.monotonic_ns(), datetime.now(UTC)
    words = memoryview(data).cast("q")
    found = []
    for base in range(0, len(words), WORDS):
        word = words[base + POSITION]
        if not words[base + WORKER] or word == IDLE:
            continue
        elapsed = max(0, now - words[base + STARTED]) / 1e9
        found.append(
            RunningTask(
                task=words[base + FIRST] + (word & POSITION_MASK),
                attempt=words[base + ATTEMPT],
                worker=words[base + WORKER],
                pid=words[base + PID],
                started=wall - timedelta(seconds=elapsed),
                elapsed=elapsed,
                log_start=words[base + LOG_START],
            )
        )
    return sorted(found, key=lambda running: running.task)
