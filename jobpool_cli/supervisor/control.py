"""Requests of commands, carried out: each in the transaction that also records its answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import requests
from jobpool_cli.store.aside import set_aside
from jobpool_cli.store.requests import Request
from jobpool_cli.store.state.look import SHUT_DOWN
from jobpool_cli.store.state.reader import StateReader
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
from jobpool_cli.supervisor.log import log
from jobpool_cli.supervisor.recording import Recorder
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
        feed: Callable[[Event], None],
        recorder: Recorder,
        scheduler: Scheduler,
        must_end: Callable[[], bool],
    ) -> None:
        """Work for one supervisor.

        Args:
            paths: the pool.
            feed: takes events for the scheduler.
            recorder: of what it changes.
            scheduler: asked for numbers only.
            must_end: whether the supervisor stops for a reason of its own, which no request changes.
        """
        self._paths = paths
        self._recorder, self._writer, self._change = recorder, recorder.writer, recorder.change
        self._feed = feed
        self._scheduler = scheduler
        self._must_end = must_end
        self._taken: set[str] = set()
        self._answered: dict[Path, str] = {}
        """Files of requests that are carried out and not yet recorded, and what they ask for."""
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
                log(f"request {path.name!a} was ignored: {error}")
                self._remove(path)
            else:
                if request.action in LATER and not self._goes_on():
                    continue
                if not self._was_answered(request) and not self._answer(request):
                    # There is no room on the disk: it waits.
                    self._taken.discard(path.name)
                    continue
                self._answered[path] = request.action
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
            self._remove(path)
        self._answered.clear()

    def ended_unrecorded(self) -> None:
        """Leave to the next supervisor what this one could not record: all but its own end, which whoever asked has."""
        for path, action in self._answered.items():
            if action == "shutdown":
                self._remove(path)
        self._answered.clear()

    def _remove(self, path: Path) -> None:
        # What cannot be removed (a folder, say) stays among the taken ones and is not looked at again.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            self._taken.discard(path.name)

    def _was_answered(self, request: Request) -> bool:
        with StateReader(self._paths.state_db) as reader:
            return reader.answer(request.id) is not None

    def _answer(self, request: Request) -> bool:
        """Carry a request out; False if the disk does not let it be."""
        now = time.time_ns() // 1000
        try:
            requests.check_details(request.details, self._paths)
            if request.action == "retry":
                retry = self._retry_damaged if request.details.get("damaged") else self._retry
                return retry(request, now)
            answer = self._carry_out(request)
        except (KeyError, TypeError, ValueError) as error:
            answer = {"error": f"the request makes no sense: {error!r}"}
        except DamagedPoolError as error:
            answer = {"error": error.message}
        self._change(partial(self._writer.add_answer, request.id, now, request.action, answer))
        return True

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

    def _retry(self, request: Request, now: int) -> bool:
        """Take failed and, if asked, cancelled tasks up again; False if there is no room on the disk to do so.

        Read and written in a transaction of its own: what is taken up is what was failed at that moment, and the
        events that follow speak of nothing that is not on the disk.
        """
        tasks: list[int] | None = request.details.get("tasks")
        udf: int | None = request.details.get("udf")
        if self._recorder.held or not self._recorder.commit():
            return False
        with self._recorder.attempt() as attempt, self._writer.transaction():
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
        if attempt.done and taken_up:
            self._feed(TasksAdded(ranges=fresh, singles=tuple(sorted([*failed, *later]))))
        return attempt.done

    def _retry_damaged(self, request: Request, now: int) -> bool:
        """Take up the tasks whose results cannot be read any more: those that are named, where that is still so.

        A damaged segment is moved aside before its row goes: killed in between, it is a missing one, and still known.
        """
        from jobpool_cli.store.outcomes.opening import damaged_segments, results_by_udf  # noqa: PLC0415 - pyarrow

        if self._recorder.held or not self._recorder.commit():
            return False
        named = set(request.details["segments"])
        with StateReader(self._paths.state_db) as reader:
            files = damaged_segments(self._paths, [each for each in reader.segments() if each.file in named])
            blobs = list(reader.damaged_blobs())
            by_udf = results_by_udf(self._paths, reader, files, blobs) if files or blobs else {}
        with self._recorder.attempt() as moved:
            for file in files:
                set_aside(self._paths, self._paths.results / file)
        if not moved.done:
            return False
        with self._recorder.attempt() as attempt, self._writer.transaction():
            again = self._writer.take_up_successes(files, blobs, by_udf) if files or blobs else []
            if again:
                self._writer.mark_retry(now, None)
            self._writer.add_answer(request.id, now, request.action, {"retried": len(again), "cancelled": 0})
        if attempt.done and again:
            self._feed(TasksAdded(singles=tuple(again)))
        return attempt.done
