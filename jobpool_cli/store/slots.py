"""Shared memory: what each worker process runs right now, without a message or a system call per task.

The file ``slots`` holds ``MAX_SLOTS`` records of sixteen signed 64-bit words in the machine's byte order. The worker
writes POSITION to LOG_START and DONE; the others are the supervisor's; readers such as ``status`` only look.

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
BEAT        of the first record only: ``time.monotonic_ns()`` of a moment, not long ago, when the supervisor was at work
HELD        of the first record only: why the disk does not take what the supervisor writes, as the system's number
            for such an error; 0 while it does
ENDED       of the first record only: the same of a supervisor that gave up because of it
DONE        the batch that the worker came to the end of last; -1: none yet
=========== ======================================================================================================

A batch's tail is taken back without a lock. The worker first publishes POSITION and then reads LIMIT; the supervisor
first writes LIMIT, waits until that store has long reached the worker, and then reads POSITION: whatever lies behind
the position that it sees, the worker has not begun and will not begin. Of a batch that it does not see the worker in,
it has begun nothing, unless DONE, which the worker writes before it shows that it is in no task, says that it is over.

The file has its blocks on the disk from the beginning: it is where `status` learns that the disk is full, and a store
to shared memory that finds no block for it kills the process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jobpool_cli.model import MAX_PROCESSES, RunningTask
from jobpool_cli.store.durable import open_old, open_private, read_old

MAX_SLOTS = MAX_PROCESSES
WORDS = 16
SLOT_BYTES = WORDS * 8

WORKER, PID, POSITION, STARTED, FIRST, ATTEMPT, LOG_START, LIMIT, BEAT, HELD, ENDED, DONE = range(12)

IDLE = -1
POSITION_BITS = 32
POSITION_MASK = (1 << POSITION_BITS) - 1


def create_slots(path: Path) -> None:
    """Make (or clear) the file of slots: all idle."""
    size = MAX_SLOTS * SLOT_BYTES
    fd = open_private(path, os.O_RDWR)
    try:
        # In place, so that a pool on a full disk keeps its blocks; and by stores, which no limit on files touches.
        os.posix_fallocate(fd, 0, size)
        with mmap.mmap(fd, size) as shared:
            shared[:] = bytes(size)
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
    slot[LIMIT] = slot[DONE] = IDLE
    slot[WORKER] = worker
    slot[PID] = pid


def position_in(slot: memoryview, batch: int) -> int | None:
    """Return the position at which the slot's worker is in a batch, None if it is not in that batch."""
    word: int = slot[POSITION]
    return word & POSITION_MASK if word != IDLE and word >> POSITION_BITS == batch else None


def is_elsewhere(slot: memoryview, batch: int) -> bool:
    """Return whether the slot's worker is in another batch than this one, or past it."""
    word: int = slot[POSITION]
    return (word != IDLE and word >> POSITION_BITS != batch) or slot[DONE] == batch


def silent_for(path: Path) -> float:
    """Return for how many seconds the supervisor has not been at work; 0.0 where that is not known."""
    with contextlib.suppress(OSError), open(open_old(path), "rb", buffering=0) as file:
        beat = int.from_bytes(os.pread(file.fileno(), 8, BEAT * 8), sys.byteorder, signed=True)
        return max(0, time.monotonic_ns() - beat) / 1e9 if beat else 0.0
    return 0.0


def refusals(path: Path) -> tuple[int, int]:
    """Return what the words ``HELD`` and ``ENDED`` say."""
    try:
        with open(open_old(path), "rb", buffering=0) as file:
            words = memoryview(file.read(SLOT_BYTES)).cast("q")
        return words[HELD], words[ENDED]
    except (OSError, TypeError, IndexError):
        return 0, 0


def left_running(path: Path) -> list[tuple[int, int, int]]:
    """Return (low, high, attempt) of tasks that a dead supervisor's workers may have run and not told of.

    For each worker that was in a batch: from position 0 to its last one, as if the batch were one range. Where it is
    not, low may be too low, and tasks of the ranges before are not in it.
    """
    try:
        words = memoryview(read_old(path)).cast("q")
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
        data = read_old(path)
    except OSError:
        return []
    now, wall = time.monotonic_ns(), datetime.now(UTC)
    words = memoryview(data)[: len(data) // SLOT_BYTES * SLOT_BYTES].cast("q")
    found = []
    for base in range(0, len(words), WORDS):
        word = words[base + POSITION]
        task, started = words[base + FIRST] + (word & POSITION_MASK), words[base + STARTED]
        if not words[base + WORKER] or word < 0 or task < 0 or not 0 < started <= now:
            # Nothing runs there; or the function wrote into memory that is not its own.
            continue
        elapsed = (now - started) / 1e9
        found.append(
            RunningTask(
                task=task,
                attempt=words[base + ATTEMPT],
                worker=words[base + WORKER],
                pid=words[base + PID],
                started=wall - timedelta(seconds=elapsed),
                elapsed=elapsed,
                log_start=words[base + LOG_START],
            )
        )
    return sorted(found, key=lambda running: running.task)
