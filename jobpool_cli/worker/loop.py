"""The worker process: load the function once, run batches, send their outcomes back as columns.

The loop around one task is a microsecond or two: two clock reads, three words of shared memory, a flush and a log
offset. Nothing is sent, encoded or allocated task by task beyond that; ``outbox`` does it for many at once.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jobpool_cli.layout import PoolPaths
from jobpool_cli.store.arguments.stored import TaskArguments
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
from jobpool_cli.worker import context
from jobpool_cli.worker.capture import OutputCapture, StopTask
from jobpool_cli.worker.failure import describe
from jobpool_cli.worker.function import load_snapshot
from jobpool_cli.worker.outbox import BatchOutcomes, Outbox
from jobpool_cli.worker.protocol import BatchOrder, send_frame

# A task longer than this pays for a look at everything it may have changed in the process, and for its CPU time.
THOROUGH_NANOSECONDS = 50_000
# How a worker ends that was told to (SIGTERM) and has sent what it had.
STOPPED_EXIT_CODE = 75


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
        self._outbox = Outbox(paths, worker, outcomes)
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
        self._outbox.start()
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

    def _run_rows(  # noqa: C901 - the hot loop: a call costs more than a line
        self, order: BatchOrder, call: Callable[..., Any], rows: Iterable[tuple[object, ...]]
    ) -> None:
        slot, clock, end_of_output = self._slot, time.monotonic_ns, self._capture.end_of_output
        base = word = next_range = order.batch << POSITION_BITS
        ranges = iter(order.ranges)
        slot[LOG_START] = log_end = end_of_output()
        done = self._outbox.open(order, log_end)
        add_start, add_end, add_result = done.starts.append, done.ends.append, done.results.append
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
                    self._outbox.flush(final=False)
                    os._exit(STOPPED_EXIT_CODE)
                self._add_failure(done, word - base, error, started, ended, log_end)
                self._capture.restore()
                slot[LOG_START] = log_end = end_of_output()
            else:
                ended = clock()
                if self._forked:
                    os._exit(0)
                # The outbox may send at any moment: what belongs to a row is there before the row is.
                log_now = end_of_output()
                if log_now != log_end:
                    done.logs.append((len(done.results), log_end, log_now))
                    slot[LOG_START] = log_end = log_now
                if ended - started > THOROUGH_NANOSECONDS:
                    self._capture.restore()
                    cpu_now = time.process_time_ns()
                    done.cpu[len(done.results)] = cpu_now - cpu_before
                    cpu_before = cpu_now
                add_start(started)
                add_end(ended)
                add_result(result)
            word += 1
        self._capture.restore()
        slot[POSITION] = IDLE
        self._outbox.flush(final=True)

    def _add_failure(
        self, done: BatchOutcomes, position: int, error: BaseException, started: int, ended: int, log_start: int
    ) -> None:
        described = describe(error)
        # The log shows what a person at a terminal would have seen.
        sys.stderr.write(f"{described['frames']}{described['type']}: {described['message']}\n")
        done.failures.append(
            {
                **described,
                "position": position,
                "started": started,
                "duration": ended - started,
                "log": [log_start, self._capture.end_of_output()],
            }
        )
        done.failed.append(position)

    def _fail_batch(self, order: BatchOrder, error: Exception) -> None:
        """Report the same failure for every task of a batch."""
        now, count = time.monotonic_ns(), sum(high - low for low, high in order.ranges)
        log_start = self._capture.end_of_output()
        done = self._outbox.open(order, log_start)
        for position in range(count):
            self._add_failure(done, position, error, now, now, log_start)
        self._outbox.flush(final=True)
