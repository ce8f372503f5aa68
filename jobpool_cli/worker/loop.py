"""The worker process: load the function once, run batches, send their outcomes back as columns.

The loop around one task is a microsecond: two clock reads, two words of shared memory, a flush and a log offset.
Nothing is sent, encoded or allocated task by task beyond that.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.arguments import TaskArguments
from jobpool_cli.store.outcomes import Int64s, encode_blob, kind_of, table_of, task_numbers
from jobpool_cli.store.slots import (
    ATTEMPT,
    FIRST,
    IDLE,
    LIMIT,
    LOG_START,
    POSITION,
    POSITION_BITS,
    STARTED,
    SharedSlots,
)
from jobpool_cli.store.snapshot import read_snapshot, verify_snapshot
from jobpool_cli.store.values import encode
from jobpool_cli.worker import context
from jobpool_cli.worker.capture import OutputCapture, StopTask
from jobpool_cli.worker.failure import describe, unstorable
from jobpool_cli.worker.function import load_snapshot
from jobpool_cli.worker.protocol import BatchOrder, Ranges, send_frame

# A batch that turns out longer than planned sends what it has after this: progress shows, and less can be lost.
FLUSH_NANOSECONDS = 100_000_000
# A task longer than this pays for a look at everything it may have changed in the process, and for its CPU time.
THOROUGH_NANOSECONDS = 50_000
# Results beyond this go to a segment that the worker writes itself, so that the supervisor's memory stays small.
INLINE_BYTES = 8 << 20
STOPPED_EXIT_CODE = 75


@dataclass
class Chunk:
    """Outcomes since the last frame: parallel lists of the successes, and what is not plain beside them.

    Attributes:
        start: position in the batch at which the chunk begins.
        log_start: length of the log at that moment.
        starts: monotonic nanoseconds, one per success, like ``ends`` and ``results``.
        logs: (row, start, end) of the output of the successes that wrote something.
        cpu: CPU nanoseconds by row, of the successes that took long enough to be measured.
        failed: positions of the failures.
    """

    start: int
    log_start: int
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    results: list[object] = field(default_factory=list)
    logs: list[tuple[int, int, int]] = field(default_factory=list)
    cpu: dict[int, int] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def positions(self) -> Int64s:
        """Return the batch positions of the successes."""
        count = len(self.results) + len(self.failed)
        positions = np.arange(self.start, self.start + count, dtype=np.int64)
        return np.delete(positions, np.array(self.failed, np.int64) - self.start) if self.failed else positions

    def log_ranges(self) -> tuple[Int64s, Int64s]:
        """Return where each success's output begins and ends in the log."""
        rows = len(self.results)
        if not self.logs:
            offsets = np.full(rows, self.log_start, np.int64)
            return offsets, offsets
        marks = np.array(self.logs, np.int64)
        # An empty range may lie anywhere: where the last output before it ended is as good a place as any.
        last_mark = np.searchsorted(marks[:, 0], np.arange(rows), "right") - 1
        ends = np.where(last_mark < 0, self.log_start, marks[last_mark, 2])
        starts = ends.copy()
        starts[marks[:, 0]] = marks[:, 1]
        return starts, ends


@dataclass(frozen=True)
class LoadedUdf:
    """One code version, ready to be called."""

    call: Callable[..., Any]
    arguments: TaskArguments


class Worker:
    """One worker process's life after its imports."""

    def __init__(
        self, paths: PoolPaths, *, pool: str, slot: int, worker: int, orders: socket.socket, outcomes: socket.socket
    ) -> None:
        """Set up; ``orders`` and ``outcomes`` are the two channels of ``protocol``."""
        self._paths = paths
        self._pool = pool
        self._worker = worker
        self._slot = SharedSlots(paths.slots).slot(slot)
        self._orders = orders
        self._outcomes = outcomes
        self._capture = OutputCapture()
        self._udfs: dict[int, LoadedUdf] = {}
        self._pid = os.getpid()
        self._forked = False
        self._order: BatchOrder | None = None
        os.register_at_fork(after_in_child=self._mark_forked)
        context.provide(self._current)

    def _mark_forked(self) -> None:
        self._forked = True

    def _current(self) -> context.TaskContext | None:
        word = self._slot[POSITION]
        if self._order is None or word == IDLE:
            return None
        task = self._slot[FIRST] + (word & ((1 << POSITION_BITS) - 1))
        return context.TaskContext(self._pool, task, self._order.attempt)

    def boot(self, udf: int) -> bool:
        """Load a code version and report; False if that failed and the pool cannot run."""
        try:
            self._udf(udf)
        except BaseException as error:  # noqa: BLE001 - user code: whatever it raises is the report
            text = getattr(error, "message", None) or traceback.format_exc()
            print(text, file=sys.stderr)  # noqa: T201 - to the worker's log
            send_frame(self._outcomes, "boot-failed", {"message": str(text)})
            return False
        self._capture.end_of_output()
        self._capture.remember()
        send_frame(self._outcomes, "ready", {})
        return True

    def _udf(self, version: int) -> LoadedUdf:
        loaded = self._udfs.get(version)
        if loaded is None:
            folder = self._paths.udf_version(version)
            verify_snapshot(folder)
            function = load_snapshot(folder, read_snapshot(folder))
            arguments = TaskArguments(self._paths.args, function)
            loaded = self._udfs[version] = LoadedUdf(arguments.call(), arguments)
        return loaded

    def serve(self) -> None:
        """Run batches until the supervisor closes the channel."""
        while True:
            # A first look without waiting costs less than the poll that a busy loop would otherwise do.
            select.select([self._orders], [], [])
            message = self._orders.recv(1 << 20)
            if not message:
                return
            self._run(BatchOrder.decode(message))

    def _run(self, order: BatchOrder) -> None:
        self._order = order
        try:
            loaded = self._udf(order.udf)
            columns = loaded.arguments.rows(order.ranges)
        except Exception as error:  # noqa: BLE001 - the arguments file or another code version: every task fails alike
            self._fail_batch(order, error)
            return
        count = sum(high - low for low, high in order.ranges)
        rows: Iterable[tuple[object, ...]] = zip(*columns, strict=True) if columns else iter([()] * count)
        self._slot[ATTEMPT] = order.attempt
        try:
            self._run_rows(order, loaded.call, rows)
        except StopTask:
            # The signal came between two tasks: nothing was running, nothing is lost but what was not sent.
            os._exit(STOPPED_EXIT_CODE)
        finally:
            if not self._forked:
                self._slot[POSITION] = IDLE

    def _run_rows(  # noqa: C901, PLR0915 - the hot loop: a call costs more than a line
        self, order: BatchOrder, call: Callable[..., Any], rows: Iterable[tuple[object, ...]]
    ) -> None:
        slot, clock, end_of_output = self._slot, time.monotonic_ns, self._capture.end_of_output
        base = word = next_range = order.batch << POSITION_BITS
        ranges = iter(order.ranges)
        slot[LOG_START] = log_end = end_of_output()
        chunk = Chunk(0, log_end)
        add_start, add_end, add_result = chunk.starts.append, chunk.ends.append, chunk.results.append
        flush_at = clock() + FLUSH_NANOSECONDS
        cpu_before = time.process_time_ns()
        for row in rows:
            if word == next_range:
                low, high = next(ranges)
                slot[FIRST] = low - (word - base)
                next_range = word + high - low
            slot[STARTED] = started = clock()
            slot[POSITION] = word
            if base <= slot[LIMIT] <= word:
                break
            try:
                result = call(*row)
            except BaseException as error:  # noqa: BLE001 - SystemExit and its kin fail one task, not the worker
                ended = clock()
                if self._forked:
                    os._exit(1)
                if isinstance(error, StopTask):
                    # The supervisor knows why, and blames the task; what is finished is not to be run again.
                    self._send(order, chunk, word - base, final=False)
                    os._exit(STOPPED_EXIT_CODE)
                self._add_failure(chunk, word - base, error, started, ended, log_end)
                chunk.failed.append(word - base)
                self._capture.restore()
                slot[LOG_START] = log_end = self._capture.end_of_output()
            else:
                ended = clock()
                if self._forked:
                    os._exit(0)
                add_start(started)
                add_end(ended)
                add_result(result)
                log_now = end_of_output()
                if log_now != log_end:
                    chunk.logs.append((len(chunk.results) - 1, log_end, log_now))
                    slot[LOG_START] = log_end = log_now
                if ended - started > THOROUGH_NANOSECONDS:
                    self._capture.restore()
                    cpu_now = time.process_time_ns()
                    chunk.cpu[len(chunk.results) - 1] = cpu_now - cpu_before
                    cpu_before = cpu_now
            word += 1
            if ended > flush_at:
                slot[POSITION] = IDLE
                self._send(order, chunk, word - base, final=False)
                chunk = Chunk(word - base, log_end)
                add_start, add_end, add_result = chunk.starts.append, chunk.ends.append, chunk.results.append
                flush_at = clock() + FLUSH_NANOSECONDS
                cpu_before = time.process_time_ns()
        self._capture.restore()
        slot[POSITION] = IDLE
        self._send(order, chunk, word - base, final=True)

    def _add_failure(
        self, chunk: Chunk, position: int, error: BaseException, started: int, ended: int, log_start: int
    ) -> None:
        described = describe(error)
        # The log shows what a person at a terminal would have seen.
        sys.stderr.write(f"{described['frames']}{described['type']}: {described['message']}\n")
        chunk.failures.append(
            {
                **described,
                "position": position,
                "started": started,
                "duration": ended - started,
                "log": [log_start, self._capture.end_of_output()],
            }
        )

    def _add_unstorable(self, chunk: Chunk, row: int, position: int, log_end: int, error: Exception) -> None:
        started, ended = chunk.starts[row], chunk.ends[row]
        self._add_failure(chunk, position, unstorable(chunk.results[row], error), started, ended, log_end)

    def _fail_batch(self, order: BatchOrder, error: Exception) -> None:
        """Report the same failure for every task of a batch."""
        now, count = time.monotonic_ns(), sum(high - low for low, high in order.ranges)
        chunk = Chunk(0, self._capture.end_of_output())
        for position in range(count):
            self._add_failure(chunk, position, error, now, now, chunk.log_start)
        self._send(order, chunk, count, final=True)

    def _send(self, order: BatchOrder, chunk: Chunk, upto: int, *, final: bool) -> None:
        """Encode the outcomes of a chunk and send them."""
        # Monotonic readings become wall-clock times here, once per chunk: a clock that is set in between cannot make
        # a duration negative.
        offset = time.time_ns() - time.monotonic_ns()
        body: dict[str, Any] = {"batch": order.batch, "upto": upto, "final": final, "rows": 0}
        payload: Any = b""
        starts, ends = np.array(chunk.starts, np.int64), np.array(chunk.ends, np.int64)
        if chunk.results:
            body, payload = self._encode(order, chunk, body, starts, ends, offset)
        failures = chunk.failures
        for failure in failures:
            failure["ended"] = (failure["started"] + failure["duration"] + offset) // 1000
            failure["started"] = (failure["started"] + offset) // 1000
        last = [int(ends[-1] + offset) // 1000] if len(ends) else []
        body["last_finished"] = max([*last, *(failure["ended"] for failure in failures)], default=None)
        body["busy"] = (int((ends - starts).sum()) + sum(failure["duration"] for failure in failures)) / 1e9
        body["failures"] = failures
        send_frame(self._outcomes, "outcomes", body, payload)

    def _encode(
        self, order: BatchOrder, chunk: Chunk, body: dict[str, Any], starts: Any, ends: Any, offset: int
    ) -> tuple[dict[str, Any], Any]:
        encoded = encode(chunk.results)
        positions = chunk.positions()
        log_starts, log_ends = chunk.log_ranges()
        cpu = chunk.cpu
        if encoded.unstorable:
            for row, error in encoded.unstorable.items():
                self._add_unstorable(chunk, row, int(positions[row]), int(log_ends[row]), error)
            kept = np.delete(np.arange(len(positions)), list(encoded.unstorable))
            encoded = encode([chunk.results[row] for row in kept])
            positions, starts, ends = positions[kept], starts[kept], ends[kept]
            log_starts, log_ends = log_starts[kept], log_ends[kept]
            cpu = {new: cpu[old] for new, old in enumerate(kept.tolist()) if old in cpu}
        if not len(positions):
            return body, b""
        tasks = task_numbers(order.ranges)[positions]
        blob = encode_blob(
            tasks=tasks,
            started_us=(starts + offset) // 1000,
            duration_ns=ends - starts,
            cpu_ns=cpu,
            log_start=log_starts,
            log_end=log_ends,
            results=encoded,
            attempt=order.attempt,
            worker=self._worker,
            udf=order.udf,
        )
        body["rows"] = len(tasks)
        body["ranges"] = _ranges_of(tasks)
        body["result_kind"] = kind_of(encoded.field)
        body["udf"] = order.udf
        if blob.size > INLINE_BYTES:
            from jobpool_cli.store.segments import write_segment  # noqa: PLC0415 - only workers of large results

            temporary = durable.temporary_beside(self._paths.results / "segment.parquet")
            body["size"] = write_segment([table_of(blob)], temporary)
            body["file"] = temporary.name
            return body, b""
        return body, blob


def _ranges_of(tasks: Any) -> Ranges:
    """Return half-open ranges that cover exactly these task numbers, which need not be sorted."""
    breaks = np.flatnonzero(np.diff(tasks) != 1) + 1
    firsts = tasks[np.concatenate(([0], breaks))]
    lasts = tasks[np.concatenate((breaks - 1, [len(tasks) - 1]))]
    return tuple((int(low), int(high) + 1) for low, high in zip(firsts, lasts, strict=True))
