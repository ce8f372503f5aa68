"""Hosts that do not exist: what stands in for the bridge and for a thousand machines when the supervisor is measured.

It speaks to the supervisor as ``jobpool_cli.engines.dask.bridge`` does, and each of its hosts as a host process does.
A worker that is handed a batch lets the time pass that the tasks would take, and sends what they would have returned.
"""

from __future__ import annotations

import heapq
import os
import selectors
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from jobpool_cli.engines.remote.stream import Stream
from jobpool_cli.store.outcomes.table import batch_of, blob_of, kind_of, task_numbers
from jobpool_cli.store.values.codec import encode
from jobpool_cli.worker.protocol import BatchOrder, Frame, FrameReader, frame_bytes

# What a task takes, in seconds.
TASK_VARIABLE = "JOBPOOL_FARM_TASK_SECONDS"


@dataclass
class _Host:
    """One host with one worker."""

    number: int
    worker: int = 0
    reader: FrameReader = field(default_factory=FrameReader)
    orders: deque[BatchOrder] = field(default_factory=deque)
    done: int = 0
    free_at: float = 0.0
    is_busy: bool = False


class Farm:
    """All hosts."""

    def __init__(self, channel: socket.socket, task_seconds: float) -> None:
        """Serve a supervisor at the other end of a channel."""
        self._stream = Stream(channel)
        self._task_seconds = task_seconds
        self._hosts: dict[int, _Host] = {}
        self._due: list[tuple[float, int, _Host]] = []
        self._order = count()
        self._news_seconds = 0.2
        """How often outcomes of a batch leave a worker."""

    def run(self) -> None:
        """Work until the stream ends."""
        selector = selectors.DefaultSelector()
        selector.register(self._stream.fileno(), selectors.EVENT_READ)
        while not self._stream.closed:
            wait = min(0.1, max(0.0, self._due[0][0] - time.monotonic())) if self._due else 0.1
            selector.select(0.001 if self._stream.waiting else wait)
            self._stream.flush()
            for frame in self._stream.receive():
                self._do(frame)
            while self._due and self._due[0][0] <= time.monotonic():
                self._finish(heapq.heappop(self._due)[2])

    def _do(self, frame: Frame) -> None:
        match frame.kind:
            case "connect":
                self._stream.send("connected", {"workers": frame.body["asked"]["workers"]})
            case "open":
                number = frame.body["host"]
                self._hosts[number] = _Host(number)
                self._stream.send("up", {"host": number, "where": f"host-{number}"})
            case "data":
                host = self._hosts[frame.body["host"]]
                for each in host.reader.take(frame.payload):
                    self._of_host(host, each)

    def _of_host(self, host: _Host, frame: Frame) -> None:
        match frame.kind:
            case "begin":
                self._news_seconds = frame.body["news_seconds"]
            case "spawn":
                host.worker = frame.body["worker"]
                self._tell(host, "ready", {"slot": 0, "worker": host.worker})
            case "send":
                host.orders.append(BatchOrder.decode(frame.payload))
                if not host.is_busy:
                    host.free_at = time.monotonic()
                    self._go_on(host)
            case "take-back":
                for order in list(host.orders)[1:]:
                    if order.batch == frame.body["batch"]:
                        host.orders.remove(order)
                        self._tell(host, "taken-back", frame.body)

    def _go_on(self, host: _Host) -> None:
        """Have the next part of the batch in hand end when its tasks would."""
        host.is_busy = bool(host.orders)
        if host.is_busy:
            host.free_at += self._part(host) * self._task_seconds
            heapq.heappush(self._due, (host.free_at, next(self._order), host))

    def _part(self, host: _Host) -> int:
        left = host.orders[0].size - host.done
        return min(left, max(1, int(self._news_seconds / self._task_seconds))) if self._task_seconds else left

    def _finish(self, host: _Host) -> None:
        order, part = host.orders[0], self._part(host)
        tasks = task_numbers(order.slices(host.done, host.done + part))
        host.done += part
        now = time.time_ns()
        nothing = np.zeros(part, np.int64)
        results = encode((tasks * tasks).tolist())
        outcomes = batch_of(
            tasks=tasks,
            started_us=np.full(part, now // 1000, np.int64),
            duration_ns=np.full(part, int(self._task_seconds * 1e9), np.int64),
            cpu_ns={},
            log_start=nothing,
            log_end=nothing,
            results=results,
            attempt=order.attempt,
            worker=host.worker,
            udf=order.udf,
        )
        final = host.done == order.size
        body = {
            "batch": order.batch,
            "upto": host.done,
            "final": final,
            "rows": part,
            "ranges": order.slices(host.done - part, host.done),
            "result_kind": kind_of(results.field),
            "whole": outcomes.nbytes,
            "busy": max(part * self._task_seconds, 1e-6),
            "failures": [],
            "last_finished": now // 1000,
        }
        blob = blob_of(outcomes, compressed=False)
        self._tell(host, "outcomes", {"slot": 0, "worker": host.worker, "body": body}, blob)
        if final:
            host.orders.popleft()
            host.done = 0
        self._go_on(host)

    def _tell(self, host: _Host, kind: str, body: dict[str, Any], payload: Any = b"") -> None:
        self._stream.send("data", {"host": host.number}, frame_bytes(kind, body, payload) + bytes(payload))


if __name__ == "__main__":
    given = dict(each.removeprefix("--").split("=", 1) for each in sys.argv[1:])
    Farm(socket.socket(fileno=int(given["channel"])), float(os.environ[TASK_VARIABLE])).run()
