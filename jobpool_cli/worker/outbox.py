"""Outcomes on their way out of a worker: gathered as plain lists, encoded as columns, sent as frames.

The hot loop only appends. A thread looks ten times a second whether outcomes have waited for long, and sends them: a
slow task never holds back what quick ones before it have finished. Sending takes about a millisecond of Python's time
whatever the number of outcomes, so it is not done more often than needed.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, cast

import numpy as np
import pyarrow as pa

from jobpool_cli.errors import ResultTooLarge
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.outcomes.compression import TRIAL_ABOVE_BYTES, WORTH_RATIO, leaves_of
from jobpool_cli.store.outcomes.table import Int64s, batch_of, blob_of, kind_of, spread_out, task_numbers
from jobpool_cli.store.ranges import Ranges
from jobpool_cli.store.values.codec import EncodedResults, encode, refuse
from jobpool_cli.worker.capture import StopTask
from jobpool_cli.worker.failure import describe, unstorable
from jobpool_cli.worker.patience import Patience
from jobpool_cli.worker.protocol import FLUSH_VARIABLE, BatchOrder, send_frame

FLUSH_SECONDS = float(os.environ.get(FLUSH_VARIABLE, "0.2"))
LOOK_SECONDS = 0.1
# Results so large that many are gathered within that time: they are looked after more often, and leave when so much has
# come together. While the thread writes them to a segment, the function goes on.
LARGE_BYTES = 64 << 10
LARGE_LOOK_SECONDS = 0.01
GATHERED_BYTES = 32 << 20
# Compressing less than this costs more time than its way through the inbox.
TINY_BYTES = 16 << 10
# A failure may bring a megabyte of pickled exception: a frame takes no more than about this much of them.
FAILURE_BYTES = 4 << 20
# Results beyond this go to a segment that the worker writes itself, so that the supervisor's memory stays small.
INLINE_BYTES = 8 << 20
# Whoever seals them has them uncompressed in memory: what shrinks to nothing counts as what it was.
INLINE_WHOLE_BYTES = 32 << 20
# A page of Parquet has less than 2 GiB, and a text, bytes, a pickle or an array of one result is in one page.
LARGEST_RESULT_BYTES = 2_000_000_000
# What Arrow counts as bytes of a single text besides its own: where it begins and ends.
OFFSETS_BYTES = 16


@dataclass
class BatchOutcomes:
    """Outcomes of one batch in the order of its positions; the hot loop appends, the outbox only reads.

    Whatever belongs to a row (its log range, its CPU time) is appended before its result, and a failure's record
    before its position: so whatever ``results`` and ``failed`` show is whole.

    Attributes:
        log_start: length of the log when the batch began.
        starts: monotonic nanoseconds, one per success, like ``ends`` and ``results``.
        logs: (row, start, end) of the output of the successes that wrote something.
        cpu: CPU nanoseconds by row, of the successes that took long enough to be measured.
        failures: a record per failure; None in the place of those that are sent.
        failed: positions of the failures.
    """

    order: BatchOrder
    log_start: int
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    results: list[object] = field(default_factory=list)
    logs: list[tuple[int, int, int]] = field(default_factory=list)
    cpu: dict[int, int] = field(default_factory=dict)
    failures: list[dict[str, Any] | None] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)

    def finished(self) -> tuple[int, int]:
        """Return how many (successes, failures) make up a prefix of the batch's positions, while the loop goes on."""
        failures = len(self.failed)
        successes = len(self.results)
        if len(self.failed) > failures:
            # A failure came in between: successes behind it do not belong to the prefix.
            successes = min(successes, self.failed[failures] - failures)
        return successes, failures

    def failures_before(self, row: int) -> int:
        """Return how many failures, of those that ``finished`` tells of, come before a success."""
        return int(np.searchsorted(self._shifted(len(self.failed)), row, "right"))

    def positions(self, first: int, stop: int, failures: int) -> Int64s:
        """Return the batch positions of the successes from row ``first`` to ``stop``."""
        rows = np.arange(first, stop, dtype=np.int64)
        # A success stands as many positions further as failures came before it.
        return rows + np.searchsorted(self._shifted(failures), rows, "right") if failures else rows

    def _shifted(self, failures: int) -> Int64s:
        """Return for each of the first failures how many successes came before it."""
        return np.array(self.failed[:failures], np.int64) - np.arange(failures)

    def log_ranges(self, first: int, stop: int) -> tuple[Int64s, Int64s]:
        """Return where the output of the rows from ``first`` to ``stop`` begins and ends in the log."""
        if not self.logs:
            nothing = np.full(stop - first, self.log_start, np.int64)
            return nothing, nothing
        marks = np.array([mark for mark in self.logs if mark[0] < stop] or [(-1, self.log_start, self.log_start)])
        rows = np.arange(first, stop)
        # An empty range may lie anywhere: where the last output before it ended is as good a place as any.
        last_mark = np.searchsorted(marks[:, 0], rows, "right") - 1
        ends = np.where(last_mark < 0, self.log_start, marks[last_mark, 2])
        own = (last_mark >= 0) & (marks[last_mark, 0] == rows)
        return np.where(own, marks[last_mark, 1], ends), ends


class Outbox:
    """Sends the outcomes of the batch in hand."""

    def __init__(self, paths: PoolPaths, worker: int, channel: socket.socket) -> None:
        """Write to a channel to the supervisor, as worker number ``worker``."""
        self._paths = paths
        self._worker = worker
        self._channel = channel
        self.patience: Patience | None = None
        """With the disk that large results are written to; without it, what the disk refuses is the result's fault."""
        # What is being encoded may print, and what is printed may be refused, with which the supervisor is told.
        self._lock = threading.RLock()
        self._batch: BatchOutcomes | None = None
        self._sent = (0, 0)
        self._sent_at = 0.0
        self._failure_bytes = 0
        self._row_bytes = 0
        """What a row took in memory, on average, of the frame that was sent last."""
        self._thread_clock: int | None = None
        self._is_refused = False
        """Whether the last segment could not be written."""

    def start(self) -> None:
        """Begin to look after outcomes that wait."""
        thread = threading.Thread(target=self._look_after, name="jobpool-outbox", daemon=True)
        thread.start()
        self._thread_clock = time.pthread_getcpuclockid(cast("int", thread.ident))

    def process_time_without_it(self) -> int:
        """Return the CPU nanoseconds of this process, all threads but the outbox's own."""
        own = time.clock_gettime_ns(self._thread_clock) if self._thread_clock is not None else 0
        return time.process_time_ns() - own

    def _look_after(self) -> None:
        while True:
            time.sleep(LARGE_LOOK_SECONDS if self._row_bytes > LARGE_BYTES else LOOK_SECONDS)
            with self._lock:
                batch = self._batch
                if batch is not None and self._is_due(batch):
                    try:
                        self._send(batch, *batch.finished(), final=False)
                    except BaseException:  # noqa: BLE001 - what encodes and pickles results is others' code
                        # Perhaps the running task changes a result that is being read. The flush at the batch's end
                        # finds out which result it is; until then each look tries again.
                        self._sent_at = time.monotonic()

    def _is_due(self, batch: BatchOutcomes) -> bool:
        """Whether outcomes have waited for long, or many bytes of them have gathered."""
        successes, _ = finished = batch.finished()
        if time.monotonic() - self._sent_at >= FLUSH_SECONDS:
            return finished != self._sent
        return (successes - self._sent[0]) * self._row_bytes >= GATHERED_BYTES

    def open(self, order: BatchOrder, log_start: int) -> BatchOutcomes:
        """Begin a batch; return where its outcomes go."""
        with self._lock:
            self._batch = batch = BatchOutcomes(order, log_start)
            self._sent = (0, 0)
            self._sent_at = time.monotonic()
            self._failure_bytes = 0
        return batch

    def tell_refusal(self, number: int, message: str) -> None:
        """Tell the supervisor that the disk does not take what this worker writes."""
        with self._lock:
            send_frame(self._channel, "refused", {"number": number, "message": message})

    def add_failure(self, failure: dict[str, Any]) -> None:
        """Add a failed task to the batch in hand; send what there is if failures pile up."""
        batch = self._batch
        if batch is None:
            raise RuntimeError("a failure without a batch")
        batch.failures.append(failure)
        batch.failed.append(failure["position"])
        self._failure_bytes += sum(len(failure[name] or "") for name in ("message", "frames", "exception"))
        if self._failure_bytes > FAILURE_BYTES:
            self.flush(final=False)

    def flush(self, *, final: bool) -> None:
        """Send what is not sent yet; ``final`` ends the batch."""
        with self._lock:
            if self._batch is not None:
                self._send_or_blame(self._batch, *self._batch.finished(), final=final)
                if final:
                    self._batch = None

    def _send_or_blame(self, batch: BatchOutcomes, successes: int, failures: int, *, final: bool) -> None:
        """Send; results that cannot be encoded together go in halves, down to the one that is to blame: it fails."""
        try:
            self._send(batch, successes, failures, final=final)
        except (StopTask, ConnectionError):
            raise
        except BaseException as error:
            first = self._sent[0]
            if successes == first:
                raise
            if successes == first + 1:
                # It did not even become a column.
                refused = _too_large("too many") if isinstance(error, pa.ArrowCapacityError) else error
                self._send(batch, successes, failures, final=final, refused=refused)
                return
            half = (first + successes) // 2
            self._send_or_blame(batch, half, min(failures, batch.failures_before(half)), final=False)
            self._send_or_blame(batch, successes, failures, final=final)

    def _send(
        self,
        batch: BatchOutcomes,
        successes: int,
        failed: int,
        *,
        final: bool,
        refused: BaseException | None = None,
    ) -> None:
        """Send the outcomes up to these many successes and failures as one frame.

        Nothing is sent and nothing changed if encoding raises. With ``refused`` the results, which that error keeps
        from being encoded, become failures.
        """
        first, first_failure = self._sent
        # Monotonic readings become wall-clock times here, once per frame: a clock that is set in between cannot make
        # a duration negative.
        offset = time.time_ns() - time.monotonic_ns()
        starts = np.array(batch.starts[first:successes], np.int64)
        ends = np.array(batch.ends[first:successes], np.int64)
        failures = [failure for failure in batch.failures[first_failure:failed] if failure is not None]
        body: dict[str, Any] = {"batch": batch.order.batch, "upto": successes + failed, "final": final, "rows": 0}
        payload: Any = b""
        if successes > first:
            positions = batch.positions(first, successes, failed)
            results = batch.results[first:successes]
            columns = _Columns(
                tasks=task_numbers(batch.order.ranges)[positions],
                starts=starts,
                ends=ends,
                logs=batch.log_ranges(first, successes),
                cpu={row - first: batch.cpu[row] for row in range(first, successes) if row in batch.cpu}
                if batch.cpu
                else {},
                results=encode(results) if refused is None else refuse(results, refused),
            )
            if columns.results.unstorable:
                failures += columns.take_out_unstorable(positions, results)
            body, payload = self._encode(batch.order, columns, body, offset)
        body["busy"] = (int((ends - starts).sum()) + sum(failure["duration"] for failure in failures)) / 1e9
        body["failures"], body["last_finished"] = _in_wall_times(failures, ends, offset)
        send_frame(self._channel, "outcomes", body, payload)
        # What is sent need not stay in memory until the batch ends.
        batch.results[first:successes] = repeat(None, successes - first)
        batch.failures[first_failure:failed] = repeat(None, failed - first_failure)
        self._sent = (successes, failed)
        self._sent_at = time.monotonic()
        self._failure_bytes = 0

    def _encode(
        self, order: BatchOrder, columns: _Columns, body: dict[str, Any], offset: int
    ) -> tuple[dict[str, Any], Any]:
        rows = len(columns.tasks)
        if not rows:
            return body, b""
        log_start, log_end = columns.logs
        outcomes = batch_of(
            tasks=columns.tasks,
            started_us=(columns.starts + offset) // 1000,
            duration_ns=columns.ends - columns.starts,
            cpu_ns=columns.cpu,
            log_start=log_start,
            log_end=log_end,
            results=columns.results,
            attempt=order.attempt,
            worker=self._worker,
            udf=order.udf,
        )
        whole = outcomes.nbytes
        body |= {"rows": rows, "ranges": _ranges_of(columns.tasks), "result_kind": kind_of(columns.results.field)}
        body["whole"] = whole
        self._row_bytes = whole // rows
        shrinks, size = _compressed(outcomes, whole)
        if size <= INLINE_BYTES and whole <= INLINE_WHOLE_BYTES:
            blob = blob_of(outcomes, compressed=shrinks)
            if blob.size <= INLINE_BYTES:
                return body, blob
        table = spread_out([pa.Table.from_batches([outcomes])])
        while True:
            try:
                return body | self._write_segment(table), b""
            except OSError as error:
                if self.patience is None or not self.patience.wait(error, "a segment of large results"):
                    raise

    def _write_segment(self, table: pa.Table) -> dict[str, Any]:
        from jobpool_cli.store.outcomes.segments import write_segment  # noqa: PLC0415 - only workers of large results

        if self._is_refused:
            # A look at the disk is cheaper than half of a large segment.
            durable.check_room(self._paths.results)
        temporary = durable.temporary_beside(self._paths.results / "segment.parquet")
        self._is_refused = True
        size = write_segment([table], temporary)
        self._is_refused = False
        return {"size": size, "file": temporary.name}


@dataclass
class _Columns:
    """The successes of one frame, a row each."""

    tasks: Int64s
    starts: Int64s
    ends: Int64s
    logs: tuple[Int64s, Int64s]
    cpu: dict[int, int]
    results: EncodedResults

    def take_out_unstorable(self, positions: Int64s, results: list[object]) -> list[dict[str, Any]]:
        """Drop the rows whose result cannot be stored; return them as failures."""
        failures = [
            {
                **describe(unstorable(results[row], error)),
                "position": int(positions[row]),
                "started": int(self.starts[row]),
                "duration": int(self.ends[row] - self.starts[row]),
                "log": [int(self.logs[0][row]), int(self.logs[1][row])],
            }
            for row, error in self.results.unstorable.items()
        ]
        kept = np.delete(np.arange(len(results)), list(self.results.unstorable))
        self.tasks, self.starts, self.ends = self.tasks[kept], self.starts[kept], self.ends[kept]
        self.logs = (self.logs[0][kept], self.logs[1][kept])
        self.cpu = {new: self.cpu[old] for new, old in enumerate(kept.tolist()) if old in self.cpu}
        self.results = encode([results[row] for row in kept])
        return failures


def _too_large(size: str) -> ResultTooLarge:
    return ResultTooLarge(
        f"the function returned {size} bytes in one piece, and a result holds at most {LARGEST_RESULT_BYTES:,};"
        " write them to a file and return its name, or share them among several tasks"
    )


def _compressed(outcomes: pa.RecordBatch, whole: int) -> tuple[bool, int]:
    """Return whether compressing outcomes of so many bytes pays, and about how large they are then.

    Raises:
        ResultTooLarge: a column is larger than a page of Parquet; of several rows each may well fit alone.
    """
    if whole <= TRIAL_ABOVE_BYTES:
        return whole > TINY_BYTES, whole
    leaves = [
        leaf
        for name, column in zip(outcomes.schema.names, outcomes.columns, strict=True)
        for leaf in leaves_of(name, [column])
    ]
    largest = max(leaf.size for leaf in leaves) - OFFSETS_BYTES
    if largest > LARGEST_RESULT_BYTES:
        raise _too_large(f"{largest:,}")
    size = sum(int(leaf.size * leaf.ratio) for leaf in leaves)
    return size < whole * WORTH_RATIO, size


def _in_wall_times(
    failures: list[dict[str, Any]], ends: Int64s, offset: int
) -> tuple[list[dict[str, Any]], int | None]:
    """Return the failures with times in microseconds since the epoch, and when the last task ended."""
    last = [int(ends[-1] + offset) // 1000] if len(ends) else []
    last += [(failure["started"] + failure["duration"] + offset) // 1000 for failure in failures]
    converted = [{**failure, "started": (failure["started"] + offset) // 1000} for failure in failures]
    return converted, max(last, default=None)


def _ranges_of(tasks: Int64s) -> Ranges:
    """Return half-open ranges that cover exactly these task numbers, which need not be sorted."""
    breaks = np.flatnonzero(np.diff(tasks) != 1) + 1
    if not len(breaks):
        return ((int(tasks[0]), int(tasks[-1]) + 1),)
    firsts = tasks[np.concatenate(([0], breaks))]
    lasts = tasks[np.concatenate((breaks - 1, [len(tasks) - 1]))]
    return tuple((int(low), int(high) + 1) for low, high in zip(firsts, lasts, strict=True))
