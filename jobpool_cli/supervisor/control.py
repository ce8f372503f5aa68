"""Requests of commands, carried out: each in the transaction that also records its answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import requests
from jobpool_cli.store.requests import Request
from jobpool_cli.store.state.look import SHUT_DOWN
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.state.writer import StateWriter
from jobpool_cli.supervisor.events import (
    CancelAsked,
    Event,
    PauseAsked,
    ResumeAsked,
    StopAsked,
    StopRevoked,
    TasksAdded,
    UdfChanged,
)
from jobpool_cli.supervisor.scheduler import Scheduler

# What calls a shutdown off; a supervisor that ends for any other reason leaves it to the next one, which whoever asks
# will start.
LATER = frozenset({"retry", "resume"})
# Stands in the books while a supervisor works: true as soon as it does not any more.
WAS_KILLED = "the supervisor was killed"


class Control:
    """Carries requests out and answers them."""

    def __init__(
        self,
        paths: PoolPaths,
        writer: StateWriter,
        feed: Callable[[Event], None],
        change: Callable[[Callable[[], None]], None],
        flush: Callable[[], None],
        scheduler: Scheduler,
        must_end: Callable[[], bool],
    ) -> None:
        """Work for one supervisor.

        Args:
            paths: the pool.
            writer: of its state.
            feed: takes events for the scheduler.
            change: collects what the next commit writes.
            flush: commits.
            scheduler: asked for numbers only.
            must_end: whether the supervisor stops for a reason of its own, which no request changes.
        """
        self._paths = paths
        self._writer = writer
        self._feed = feed
        self._change = change
        self._flush = flush
        self._scheduler = scheduler
        self._must_end = must_end
        self._taken: set[str] = set()
        self._answered: list[Path] = []
        self._cancelled = 0
        self.stop_reason = ""

    def carry_out_requests(self) -> bool:
        """Carry out what waits; True if there was anything."""
        found = [path for path in requests.waiting(self._paths.requests) if path.name not in self._taken]
        for path in found:
            self._taken.add(path.name)
            try:
                request = requests.read(path)
            except (ValueError, OSError) as error:
                print(f"request {path.name} was ignored: {error}", flush=True)  # to supervisor.log
            else:
                if request.action in LATER and not self._goes_on():
                    continue
                if not self._was_answered(request):
                    self._answer(request)
            self._answered.append(path)
        return bool(found)

    def _goes_on(self) -> bool:
        """Call a shutdown off that is under way; False if the supervisor ends all the same."""
        if self._scheduler.stopping and self.stop_reason and not self._must_end():
            self.stop_reason = ""
            self._change(partial(self._writer.set_stop_reason, WAS_KILLED))
            self._feed(StopRevoked())
        return not self._scheduler.stopping

    def cancelled(self, ranges: tuple[tuple[int, int], ...]) -> None:
        """Count tasks that the request in hand cancels."""
        self._cancelled += sum(high - low for low, high in ranges)

    def committed(self) -> None:
        """Remove the files of requests whose answers are on the disk."""
        for path in self._answered:
            # What cannot be removed (a folder, say) stays among the taken ones and is not looked at again.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                self._taken.discard(path.name)
        self._answered.clear()

    def _was_answered(self, request: Request) -> bool:
        with StateReader(self._paths.state_db) as reader:
            return reader.answer(request.id) is not None

    def _answer(self, request: Request) -> None:
        now = time.time_ns() // 1000
        try:
            if request.action == "retry":
                self._retry(request, now)
                return
            answer = self._carry_out(request)
        except (KeyError, TypeError, ValueError) as error:
            answer = {"error": f"the request makes no sense: {error!r}"}
        self._change(partial(self._writer.add_answer, request.id, now, request.action, answer))

    def _carry_out(self, request: Request) -> dict[str, Any]:
        match request.action:
            case "cancel":
                self._cancelled = 0
                self._feed(CancelAsked(running=bool(request.details.get("running"))))
                return {"cancelled": self._cancelled, "running": self._scheduler.outstanding_tasks}
            case "pause":
                self._change(partial(self._writer.set_paused, paused=True))
                self._feed(PauseAsked())
                return {"running": self._scheduler.outstanding_tasks}
            case "resume":
                self._change(partial(self._writer.set_paused, paused=False))
                self._feed(ResumeAsked())
                return {}
            case "shutdown":
                self.stop_reason = SHUT_DOWN
                # At once, so that `resume` knows that it has something to do.
                self._change(partial(self._writer.set_stop_reason, SHUT_DOWN))
                self._feed(StopAsked(kill=bool(request.details.get("kill"))))
                return {"running": self._scheduler.outstanding_tasks}
        raise ValueError(f"unknown action {request.action!r}")

    def _retry(self, request: Request, now: int) -> None:
        """Take failed and, if asked, cancelled tasks up again.

        Read and written in a transaction of its own: what is taken up is what was failed at that moment, and the
        events that follow speak of nothing that is not on the disk.
        """
        tasks: list[int] | None = request.details.get("tasks")
        udf: int | None = request.details.get("udf")
        self._flush()
        with self._writer.transaction():
            failed = self._writer.take_up_failures(tasks)
            fresh, later = self._writer.take_up_cancelled(tasks) if request.details.get("cancelled") else ((), [])
            cancelled = sum(high - low for low, high in fresh) + len(later)
            answer = {"retried": len(failed), "cancelled": cancelled}
            taken_up = bool(failed or cancelled)
            if udf is not None:
                if taken_up:
                    # Before anybody reads the answer: a task that it calls pending must not begin with the old code.
                    self._feed(UdfChanged(udf))
                answer["pending"] = self._scheduler.waiting_tasks
            if taken_up:
                self._writer.mark_retry(now, udf)
            self._writer.add_answer(request.id, now, request.action, answer)
        if taken_up:
            self._feed(TasksAdded(ranges=fresh, singles=tuple(sorted([*failed, *later]))))
