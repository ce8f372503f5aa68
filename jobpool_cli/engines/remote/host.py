"""The host process: the local engine on a machine where the pool is not; orders come in, what happens goes out.

It keeps a folder like a pool's, with what its workers read and write: code, constants, the rows of single batches,
logs, segments. What workers write travels to the supervisor, always before the outcome that speaks of it. When the
stream ends, for whatever reason, all that it started ends with it.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobpool_cli.engines.base import BootFailed, EngineEvent, Lost, Outcomes, Ready, Refused
from jobpool_cli.engines.local import LocalEngine
from jobpool_cli.engines.processes import adopt_orphans, raise_descriptors
from jobpool_cli.engines.remote.stream import CHUNK_BYTES, Stream
from jobpool_cli.layout import HostPaths, check_name
from jobpool_cli.model import PoolOptions
from jobpool_cli.store import durable
from jobpool_cli.store.slots import (
    ATTEMPT,
    FIRST,
    IDLE,
    LOG_START,
    PID,
    POSITION,
    STARTED,
    WORKER,
    SharedSlots,
    create_slots,
)
from jobpool_cli.worker.protocol import FLUSH_VARIABLE, BatchOrder, Frame

POLL_SECONDS = 0.1
# While the other side has no room, so often is looked for some.
FLUSH_SECONDS = 0.002
# So much may wait to be sent before no more is read from files, and from workers.
ENOUGH_BYTES = 4 << 20
DEAF_BYTES = 32 << 20

SHOWN = (WORKER, PID, POSITION, STARTED, FIRST, ATTEMPT, LOG_START)

Part = tuple[str, dict[str, Any], bytes]


class Host:
    """One host, from its first frame to the end of its stream."""

    def __init__(self, channel: socket.socket, folder: Path) -> None:
        """Begin.

        Args:
            channel: the stream to the supervisor, whatever carries it.
            folder: where the pool's folder is made.
        """
        self._stream = Stream(channel)
        self._folder = folder
        self._paths = HostPaths(folder)
        self._engine: LocalEngine | None = None
        self._views: list[memoryview] = []
        self._numbers: deque[int] = deque()
        self._outgoing: deque[Iterator[Part]] = deque()
        """What is to be sent, in order; files are read when their turn comes."""
        self._logs: dict[int, int] = {}
        """How much of each worker's log has been sent."""
        self._workers: dict[int, int] = {}
        """The worker in each slot."""
        self._news_seconds = math.inf
        """How often it is told what runs, and what was printed."""
        self._told_at = 0.0
        self._told: list[list[int]] = []
        self._over = False

    def run(self) -> None:
        """Work until the stream ends, or it is told to stop."""
        self._stream.send("hello", {"python": platform.python_version(), "machine": platform.node()})
        try:
            while not (self._over or self._stream.closed):
                self._turn()
        finally:
            if self._engine is not None:
                self._engine.stop()

    def _turn(self) -> None:
        if self._engine is None:
            # Nothing else to wait for.
            time.sleep(FLUSH_SECONDS)
        else:
            self._engine.deaf = self._stream.waiting > DEAF_BYTES
            busy = self._stream.waiting or self._outgoing
            for event in self._engine.poll(FLUSH_SECONDS if busy else POLL_SECONDS):
                self._tell(event)
        for frame in self._stream.receive():
            self._do(frame)
        if time.monotonic() - self._told_at > self._news_seconds:
            self._told_at = time.monotonic()
            self._tell_news()
        self._send()

    # --- what is asked of it

    def _do(self, frame: Frame) -> None:  # noqa: C901 - one case a kind
        body = frame.body
        match frame.kind:
            case "begin":
                self._begin(body)
            case "file":
                self._write(body, frame.payload)
            case "spawn":
                self._numbers.append(body["worker"])
                self._workers[body["slot"]] = body["worker"]
                self._logs[body["worker"]] = 0
                self._running.udf = body["udf"]
                self._running.spawn(body["slot"], 0.0)
            case "send":
                order = BatchOrder.decode(frame.payload)
                with contextlib.suppress(KeyError):  # its death is on the way, and names the batch as unbegun
                    self._running.send(body["slot"], order)
            case "take-back":
                if self._running.take_back(body["slot"], body["batch"]):
                    self._paths.batch(body["batch"]).unlink(missing_ok=True)
                    self._put("taken-back", body)
            case "trim":
                kept = self._running.trim(body["slot"], body["batch"])
                if kept is not None:
                    self._put("trimmed", {**body, "kept": kept})
            case "kill":
                self._running.kill(body["slot"], body["cause"])
            case "stop":
                self._over = True

    @property
    def _running(self) -> LocalEngine:
        if self._engine is None:
            raise RuntimeError("nothing was begun")
        return self._engine

    def _begin(self, body: dict[str, Any]) -> None:
        check_name(body["pool"])
        self._paths = paths = HostPaths(self._folder / body["pool"])
        for folder in (paths.root, paths.udf, paths.results, paths.logs, paths.batches):
            durable.make_folder(folder)
        create_slots(paths.slots)
        options = PoolOptions(**body["options"])
        self._news_seconds = body["news_seconds"]
        # Inherited by the workers.
        os.environ[FLUSH_VARIABLE] = str(self._news_seconds)
        self._engine = LocalEngine(
            paths,
            options,
            # A mark of its own: other hosts of the pool may be on the same machine.
            pool_id=f"{body['id']}/{body['host']}",
            folder=Path(body["folder"]),
            udf=body["udf"],
            numbers=iter(self._numbers.popleft, None),
        )
        self._engine.watch(self._stream.fileno())
        slots = SharedSlots(paths.slots)
        self._views = [slots.slot(index) for index in range(options.processes)]

    def _write(self, body: dict[str, Any], data: bytes) -> None:
        path = self._paths.root / body["path"]
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = durable.open_private(path, os.O_WRONLY)
        try:
            os.pwrite(fd, data, body["at"])
        finally:
            os.close(fd)

    # --- what it tells

    def _put(self, kind: str, body: dict[str, Any], payload: bytes = b"") -> None:
        self._outgoing.append(iter([(kind, body, payload)]))

    def _tell(self, event: EngineEvent) -> None:
        worker = self._workers.get(event.slot, 0)
        where = {"slot": event.slot, "worker": worker}
        match event:
            case Ready():
                self._put("ready", where)
            case BootFailed(_, message, hint):
                self._outgoing.append(self._log(worker))
                self._put("boot-failed", {**where, "message": message, "hint": hint})
            case Refused(_, number, message):
                self._put("refused", {**where, "number": number, "message": message})
            case Outcomes(_, number, body, payload):
                self._outgoing.append(self._log(number))
                if "file" in body:
                    self._outgoing.append(self._segment(body["file"]))
                self._put("outcomes", {"slot": event.slot, "worker": number, "body": body}, payload)
            case Lost():
                self._outgoing.append(self._log(event.worker))
                self._put("lost", asdict(event))
                self._outgoing.append(self._forget(event.worker))

    def _tell_news(self) -> None:
        """Tell what runs, and send what was printed meanwhile."""
        if self._outgoing:
            return
        found = []
        for slot, view in enumerate(self._views):
            words = [view[each] for each in SHOWN]
            if words[2] != IDLE:
                words[3] = time.monotonic_ns() - words[3]
            found.append([slot, *words])
        shown = [[*words[:4], *words[5:]] for words in found]
        if shown != self._told:
            self._told = shown
            self._put("slots", {"slots": found})
        for worker in list(self._logs):
            self._outgoing.append(self._log(worker))

    def _log(self, worker: int) -> Iterator[Part]:
        """Send what a worker has printed up to now."""
        path = self._paths.worker_log(worker)
        try:
            size = path.stat().st_size
        except OSError:
            return
        while (at := self._logs.get(worker, size)) < size:
            with path.open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), min(CHUNK_BYTES, size - at), at)
            if not data:
                return
            self._logs[worker] = at + len(data)
            yield "log", {"worker": worker, "at": at}, data

    def _forget(self, worker: int) -> Iterator[Part]:
        """Drop the log of a worker that is gone."""
        self._logs.pop(worker, None)
        self._paths.worker_log(worker).unlink(missing_ok=True)
        yield from ()

    def _segment(self, name: str) -> Iterator[Part]:
        """Send a file of large results, and delete it."""
        path = self._paths.results / name
        with path.open("rb", buffering=0) as file:
            at = 0
            while data := os.pread(file.fileno(), CHUNK_BYTES, at):
                yield "file", {"name": name, "at": at}, data
                at += len(data)
        path.unlink()
        yield "file-end", {"name": name, "size": at}, b""

    def _send(self) -> None:
        """Send in order, no more than the other side takes."""
        self._stream.flush()
        while self._outgoing and self._stream.waiting < ENOUGH_BYTES:
            part = next(self._outgoing[0], None)
            if part is None:
                self._outgoing.popleft()
            else:
                self._stream.send(*part)


def main() -> None:
    """Serve one supervisor; the command line is private to what starts it."""
    given = dict(each.removeprefix("--").split("=", 1) for each in sys.argv[1:])
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    raise_descriptors()
    adopt_orphans()
    folder = Path(tempfile.mkdtemp(prefix="jobpool-host-", dir=given.get("folder")))
    try:
        Host(socket.socket(fileno=int(given["channel"])), folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
