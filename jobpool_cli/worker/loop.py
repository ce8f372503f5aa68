"""The worker process: load the function once, run batches, send their outcomes back as columns.

The loop around one task is a microsecond or two: two clock reads, three words of shared memory, a flush and a log
offset. Nothing is sent, encoded or allocated task by task beyond that; ``outbox`` does it for many at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from jobpool_cli.errors import JobPoolError
from jobpool_cli.layout import HostPaths, PoolPaths
from jobpool_cli.store.arguments.rows import TaskArguments
from jobpool_cli.store.slots import (
    ATTEMPT,
    DONE,
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
from jobpool_cli.worker.failure import FRAMES_LIMIT, cut, describe, exit_code_of, sound
from jobpool_cli.worker.importing import limited_import
from jobpool_cli.worker.loading import load_snapshot
from jobpool_cli.worker.outbox import BatchOutcomes, Outbox
from jobpool_cli.worker.patience import Patience
from jobpool_cli.worker.protocol import CHANNEL_CLOSED_EXIT_CODE, BatchOrder, send_frame

# A task longer than this pays for its CPU time.
THOROUGH_NANOSECONDS = 50_000
# What tasks may have changed in the process is looked at after so much of their time, so after each one that takes
# longer, and at a batch's end. The look costs 5 microseconds, or 25 where a task has filled the processor's caches.
RESTORE_NANOSECONDS = 5_000_000
# CPU time of short tasks is not measured one by one. What may have gone to those since the clock was last read, as a
# part of the task whose CPU time is asked for: above it the time is not known rather than wrong.
CPU_ERROR_PARTS = 50
# Patience with the sending of outcomes when a task ends the process by itself.
LAST_FLUSH_SECONDS = 1.0
# How a worker ends that was told to (SIGTERM) and has sent what it had.
STOPPED_EXIT_CODE = 75


class Worker:
    """One worker process's life after its imports."""

    def __init__(
        self, paths: PoolPaths, *, slot: int, worker: int, orders: socket.socket, outcomes: socket.socket
    ) -> None:
        """Set up; ``orders`` and ``outcomes`` are the two channels of ``protocol``."""
        self._paths = paths
        self._worker = worker
        self._slot = SharedSlots(paths.slots).slot(slot)
        away = HostPaths(paths.root)
        self._away = away if away.batches.is_dir() else None
        self._orders = orders
        self._outcomes = outcomes
        self._outbox = Outbox(paths, worker, outcomes)
        patience = Patience(self._slot, self._outbox.tell_refusal)
        self._outbox.patience = patience
        self._capture = OutputCapture(patience)
        self._udfs: dict[int, TaskArguments] = {}
        self._forked = False
        self._order: BatchOrder | None = None
        self._done: BatchOutcomes | None = None
        os.register_at_fork(after_in_child=self._mark_forked)
        self._exit_at_once = os._exit
        os._exit = self._exit_of_task
        context.provide(self._current)

    def _mark_forked(self) -> None:
        self._forked = True

    def _exit_of_task(self, status: int) -> NoReturn:
        """What `os._exit` is to a task: what others before it have finished is sent first, and not run again."""
        try:
            if not self._forked:
                # In a thread of its own: the one that calls this may hold what sending takes.
                sending = threading.Thread(target=self._outbox.flush, kwargs={"final": False}, daemon=True)
                sending.start()
                sending.join(LAST_FLUSH_SECONDS)
        finally:
            self._exit_at_once(status)

    def _current(self) -> context.TaskContext | None:
        order, done = self._order, self._done
        if order is None or done is None:
            return None
        # Not from the shared slot, which a function may have written into.
        position = len(done.results) + len(done.failed)
        if position >= order.size:
            return None
        return context.TaskContext(self._paths.root.name, order.task_at(position), order.attempt)

    def boot(self, udf: int) -> bool:
        """Load a code version and report; False if that failed and the pool cannot run."""
        try:
            self._udf(udf)
        except BaseException as error:  # noqa: BLE001 - user code: whatever it raises is the report
            if isinstance(error, StopTask) or isinstance(error.__context__, StopTask):
                # Somebody sent SIGTERM: that says nothing of the code.
                self._exit_at_once(STOPPED_EXIT_CODE)
            text, hint = traceback.format_exc(), ""
            if isinstance(error, JobPoolError):
                text, hint = error.message, error.hint
            text, hint = sound(text), sound(hint)
            print(text, file=sys.stderr)  # noqa: T201 - to the worker's log
            send_frame(self._outcomes, "boot-failed", {"message": cut(text, FRAMES_LIMIT), "hint": hint})
            return False
        send_frame(self._outcomes, "ready", {})
        self._outbox.start()
        return True

    def _udf(self, version: int) -> TaskArguments:
        loaded = self._udfs.get(version)
        if loaded is None:
            folder = self._paths.udf_version(version)
            verify_snapshot(folder)
            # The supervisor watches over the first import; it cannot tell a later one from a task.
            with limited_import() if self._udfs else contextlib.nullcontext():
                function = load_snapshot(folder, read_snapshot(folder))
            loaded = self._udfs[version] = TaskArguments(self._paths.args, function)
            # Loading changes sys.path and may set signal handlers: what tasks of this version are to find.
            self._capture.surroundings.remember()
            self._capture.restore()
            self._capture.end_of_output()
        return loaded

    def serve(self) -> None:
        """Run batches until the supervisor closes the channel."""
        try:
            self._serve()
        except OSError:
            if all(map(_is_open, (self._orders, self._outcomes))):
                raise
            # A task closed what it did not open.
            self._exit_at_once(CHANNEL_CLOSED_EXIT_CODE)

    def _serve(self) -> None:
        while True:
            message = self._orders.recv(1 << 20)
            if not message:
                return
            self._run(BatchOrder.decode(message))

    def _run(self, order: BatchOrder) -> None:
        self._order = order
        try:
            loaded = self._udf(order.udf)
            call_next = loaded.calls(order.ranges, self._away.batch(order.batch) if self._away else None)
        except Exception as error:  # noqa: BLE001 - the arguments file or another code version: every task fails alike
            self._fail_batch(order, error)
            return
        self._slot[ATTEMPT] = order.attempt
        try:
            self._run_rows(order, call_next)
        except StopTask:
            # The signal came between two tasks: nothing was running, nothing is lost but what was not sent.
            self._exit_at_once(STOPPED_EXIT_CODE)
        finally:
            if not self._forked:
                self._slot[POSITION] = IDLE

    def _run_rows(self, order: BatchOrder, call_next: Callable[[], Any]) -> None:  # noqa: C901, PLR0915 - the hot loop
        slot, clock, end_of_output = self._slot, time.monotonic_ns, self._capture.end_of_output
        cpu_clock, restore = self._outbox.process_time_without_it, self._capture.restore
        base = next_range = order.batch << POSITION_BITS
        ranges = iter(order.ranges)
        slot[LOG_START] = log_end = end_of_output()
        self._done = done = self._outbox.open(order, log_end)
        add_start, add_end, add_result = done.starts.append, done.ends.append, done.results.append
        cpu_before, cpu_read = cpu_clock(), clock()
        restored = cpu_read
        for word in range(base, base + order.size):
            if word == next_range:
                low, high = next(ranges)
                slot[FIRST] = low - (word - base)
                next_range = word + high - low
            slot[STARTED] = started = clock()
            slot[POSITION] = word
            if base <= slot[LIMIT] <= word:
                break
            try:
                result = call_next()
            except BaseException as error:  # noqa: BLE001 - SystemExit and its kin fail one task, not the worker
                ended = clock()
                if self._forked:
                    self._exit_at_once(exit_code_of(error))
                if isinstance(error, StopTask):
                    # The supervisor knows why, and blames the task; what is finished is not to be run again.
                    self._outbox.flush(final=False)
                    self._exit_at_once(STOPPED_EXIT_CODE)
                self._capture.restore()
                self._add_failure(word - base, error, started, ended, log_end)
                slot[LOG_START] = log_end = end_of_output()
                cpu_before, cpu_read = cpu_clock(), clock()
            else:
                ended = clock()
                if self._forked:
                    self._exit_at_once(0)
                # The outbox may send at any moment: what belongs to a row is there before the row is.
                log_now = end_of_output()
                if log_now != log_end:
                    log_now = self._capture.sure_end_of_output()
                    done.logs.append((len(done.results), log_end, log_now))
                    slot[LOG_START] = log_end = log_now
                if ended - started > THOROUGH_NANOSECONDS:
                    cpu_now = cpu_clock()
                    if (started - cpu_read) * CPU_ERROR_PARTS < ended - started:
                        done.cpu[len(done.results)] = cpu_now - cpu_before
                    cpu_before, cpu_read = cpu_now, ended
                    if ended - restored > RESTORE_NANOSECONDS:
                        restore()
                        restored = ended
                add_start(started)
                add_end(ended)
                add_result(result)
        self._capture.restore()
        slot[DONE] = order.batch
        slot[POSITION] = IDLE
        self._done = None
        self._outbox.flush(final=True)

    def _add_failure(self, position: int, error: BaseException, started: int, ended: int, log_start: int) -> None:
        described = describe(error)
        self._show(described)
        self._outbox.add_failure(
            {
                **described,
                "position": position,
                "started": started,
                "duration": ended - started,
                # A task may have moved the log's offset.
                "log": [log_start, max(log_start, self._capture.end_of_output())],
            }
        )

    def _show(self, described: dict[str, Any]) -> None:
        """Write to the log what a person at a terminal would have seen."""
        # The task may have put something else in the place of the streams.
        self._capture.end_of_output()
        sys.stderr.write(f"{described['frames']}{described['type']}: {described['message']}\n")

    def _fail_batch(self, order: BatchOrder, error: Exception) -> None:
        """Report the same failure for every task of a batch; the log tells it once, in the range of each of them."""
        # First of all: whatever limit is set from now on counts for nothing.
        self._slot[DONE] = order.batch
        base = order.batch << POSITION_BITS
        limit = self._slot[LIMIT] - base
        now, log_start, described = time.monotonic_ns(), self._capture.end_of_output(), describe(error)
        self._outbox.open(order, log_start)
        self._show(described)
        failure = {**described, "started": now, "duration": 0, "log": [log_start, self._capture.end_of_output()]}
        for position in range(limit if 0 <= limit < order.size else order.size):
            self._outbox.add_failure({**failure, "position": position})
        self._outbox.flush(final=True)


def _is_open(channel: socket.socket) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(channel.fileno()).st_mode)
    except OSError:
        return False
