"""The engine of many machines: the same batches, handed to hosts, which run the local engine where they are.

What hosts tell is checked as what a local worker tells (``reports``), and stands in the pool as if it had happened
here: their workers' output in logs/, what they run in ``slots``, large results in results/. How the bytes travel is a
carrier's matter.
"""

from __future__ import annotations

import math
import os
import selectors
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobpool_cli.engines.base import (
    BootFailed,
    Closed,
    EngineEvent,
    Lost,
    Queued,
    Refused,
    TakenBack,
    Trace,
    Trimmed,
)
from jobpool_cli.engines.remote import mirror
from jobpool_cli.engines.remote.carrier import Carrier, Connected, Data, Down, Gone, News, Up
from jobpool_cli.engines.remote.stream import CHUNK_BYTES
from jobpool_cli.engines.reports import Reports
from jobpool_cli.errors import REFUSALS
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.arguments.rows import StoredRows, ship
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.slots import BEAT, SharedSlots, reset
from jobpool_cli.worker.protocol import BatchOrder, Frame, FrameReader, ProtocolError, frame_bytes

# What the disk refused is tried again so often.
AGAIN_SECONDS = 0.5
BEAT_SECONDS = 1.0
FLUSH_SECONDS = 0.002
NEWS_SECONDS = 0.2
# Where workers come and go with the work, one without any is given back after this time.
IDLE_SECONDS = 30.0
# Who started the pool does not wait longer for the first host: there may be a queue.
PATIENCE_SECONDS = 15.0


@dataclass
class _Slot:
    """A slot of the pool: the worker in it, if there is one or one is asked for."""

    host: int
    index: int
    view: memoryview
    worker: int = 0
    due: float | None = None
    reports: Reports | None = None
    cause: str = ""


@dataclass
class _Host:
    """A host of so many slots."""

    number: int
    slots: Sequence[int]
    asked: bool = False
    up: bool = False
    ended: bool = False
    """Whether it was given back: what is asked of it from now on is for the one that follows."""
    where: str = ""
    reader: FrameReader = field(default_factory=FrameReader)
    backlog: list[Frame] = field(default_factory=list)
    """Frames that wait because the disk refused what an earlier one brought."""
    versions: set[int] = field(default_factory=set)
    idle_since: float = math.inf


class RemoteEngine:
    """Worker processes on other machines."""

    def __init__(
        self,
        paths: PoolPaths,
        manifest: Manifest,
        *,
        udf: int,
        numbers: Iterator[int],
        carrier: Carrier,
        news_seconds: float = NEWS_SECONDS,
    ) -> None:
        """Prepare; no host is asked for yet.

        Args:
            paths: the pool.
            manifest: what it is.
            udf: the code version that workers load first.
            numbers: those of the workers to come.
            carrier: gets the hosts.
            news_seconds: how long outcomes, and what else there is to tell, may wait to be told together.
        """
        options = manifest.options
        self._paths = paths
        self._manifest = manifest
        self._options = options
        self._numbers = numbers
        self._carrier = carrier
        self._news_seconds = news_seconds
        self._minimum = options.cluster.minimum if options.cluster is not None else None
        self.udf = udf
        self.deaf = False
        shared = SharedSlots(paths.slots)
        per = options.processes_per_worker
        self._slots = [_Slot(slot // per, slot % per, shared.slot(slot)) for slot in range(options.processes)]
        self._hosts = [_Host(host, range(host * per, (host + 1) * per)) for host in range(options.workers)]
        self._stored = StoredRows(paths.args)
        self._selector = selectors.DefaultSelector()
        self._selector.register(carrier.fileno(), selectors.EVENT_READ)
        self._events: list[EngineEvent] = []
        self._again_at = 0.0
        self._beat_at = 0.0
        self._patience_ends = math.inf
        self._is_gone = False
        for slot in self._slots:
            reset(slot.view, 0, 0)

    def watch(self, fd: int) -> None:
        """Have ``poll`` return early when a descriptor of the caller's becomes readable."""
        self._selector.register(fd, selectors.EVENT_READ)

    # --- the contract

    def spawn(self, slot: int, delay: float) -> None:
        """Ask for a worker, and for its host if that is not there."""
        self._slots[slot].due = time.monotonic() + delay

    def _spawn_due(self) -> Iterator[EngineEvent]:
        now = time.monotonic()
        for number, slot in enumerate(self._slots):
            if slot.due is None or slot.due > now:
                continue
            host = self._hosts[slot.host]
            if self._is_gone:
                slot.due = None
                yield self._unstarted(number, "no host can be had any more")
            elif not host.asked:
                host.asked = True
                self._carrier.open(host.number)
            elif host.up:
                slot.due = None
                self._start(number, slot, host)

    def _start(self, number: int, slot: _Slot, host: _Host) -> None:
        slot.worker = next(self._numbers)
        slot.reports = Reports(number, slot.worker, self._paths.results)
        slot.cause = ""
        os.close(durable.open_new(self._paths.worker_log(slot.worker), append=True))
        reset(slot.view, slot.worker, 0)
        self._bring_code(host, self.udf)
        self._say(host, "spawn", {"slot": slot.index, "worker": slot.worker, "udf": self.udf})

    def _unstarted(self, number: int, why: str) -> Lost:
        return Lost(number, 0, "unstarted", batch=None, position=None, booted=False, exit=why)

    def send(self, slot: int, order: BatchOrder) -> None:
        """Send a batch with the rows of its tasks."""
        to = self._slots[slot]
        host = self._hosts[to.host]
        if to.reports is None:
            return
        to.reports.sent(order)
        self._bring_code(host, order.udf)
        if self._stored.schema.names:
            rows = ship(self._stored.table(order.ranges))
            self._bring(host, f"batches/{order.batch}.arrow", memoryview(rows))
        self._say(host, "send", {"slot": to.index}, order.encode())

    def take_back(self, slot: int, batch: int) -> bool:
        """Ask for a batch; ``TakenBack`` follows if its worker has not begun it."""
        to = self._slots[slot]
        self._say(self._hosts[to.host], "take-back", {"slot": to.index, "batch": batch})
        return False

    def trim(self, slot: int, batch: int) -> int | None:
        """Ask for a batch's tail; ``Trimmed`` follows if there is one to be had."""
        to = self._slots[slot]
        self._say(self._hosts[to.host], "trim", {"slot": to.index, "batch": batch})
        return None

    def kill(self, slot: int, cause: str) -> None:
        """Have a worker ended, and all that it started."""
        to = self._slots[slot]
        if to.worker:
            to.cause = cause
            self._say(self._hosts[to.host], "kill", {"slot": to.index, "cause": cause})

    def poll(self, timeout: float) -> Iterator[EngineEvent]:
        """Wait for what hosts tell."""
        yield from self._spawn_due()
        if self.deaf or any(host.backlog for host in self._hosts):
            time.sleep(timeout)
        else:
            self._selector.select(min(timeout, FLUSH_SECONDS) if self._carrier.waiting else timeout)
        if not self.deaf:
            if time.monotonic() >= self._again_at:
                for host in self._hosts:
                    yield from self._hear(host, [])
            if not any(host.backlog for host in self._hosts):
                for news in self._carrier.news():
                    yield from self._take(news)
        if time.monotonic() > self._patience_ends:
            self._patience_ends = math.inf
            yield Queued(0)
        if time.monotonic() - self._beat_at > BEAT_SECONDS:
            self._beat_at = time.monotonic()
            self._slots[0].view[BEAT] = time.monotonic_ns()
            yield from self._give_back()

    def _give_back(self) -> Iterator[EngineEvent]:
        """Give back hosts that have nothing to do, where they come and go with the work."""
        if self._minimum is None:
            return
        now = time.monotonic()
        spare = sum(host.up for host in self._hosts) - self._minimum
        for host in reversed(self._hosts):
            slots = [self._slots[number] for number in host.slots]
            is_idle = host.up and all(slot.due is None and _is_idle(slot) for slot in slots)
            host.idle_since = min(host.idle_since, now) if is_idle else math.inf
            if spare > 0 and now - host.idle_since > IDLE_SECONDS:
                spare -= 1
                for slot in slots:
                    slot.cause = "stopped"
                yield from self._give_up(host, "it had nothing to do")

    def stop(self) -> None:
        """End all workers on all hosts."""
        for host in self._hosts:
            if host.up:
                self._say(host, "stop", {})
        self._carrier.close()
        for slot in self._slots:
            reset(slot.view, 0, 0)

    # --- to hosts

    def _say(self, host: _Host, kind: str, body: dict[str, Any], payload: bytes | memoryview = b"") -> None:
        if host.up:
            self._carrier.send(host.number, frame_bytes(kind, body, payload) + bytes(payload))

    def _bring(self, host: _Host, path: str, data: memoryview) -> None:
        """Send a file of the pool's."""
        for at in range(0, max(1, len(data)), CHUNK_BYTES):
            self._say(host, "file", {"path": path, "at": at}, data[at : at + CHUNK_BYTES])

    def _bring_folder(self, host: _Host, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self._bring(host, str(path.relative_to(self._paths.root)), memoryview(durable.read_old(path)))

    def _bring_code(self, host: _Host, version: int) -> None:
        if version not in host.versions:
            host.versions.add(version)
            self._bring_folder(host, self._paths.udf_version(version))

    def _begin(self, host: _Host) -> None:
        options = self._options._replace(workers=1)
        body = {
            "pool": self._paths.root.name,
            "id": self._manifest.id,
            "host": f"{host.number}-{os.urandom(4).hex()}",
            "folder": self._manifest.folder,
            "options": options.as_dict(),
            "udf": self.udf,
            "news_seconds": self._news_seconds,
        }
        self._say(host, "begin", body)
        head = pa.BufferOutputStream()
        pq.write_table(self._stored.schema.empty_table(), head)
        self._bring(host, "args.parquet", memoryview(head.getvalue()))
        if self._paths.constants.is_dir():
            self._bring_folder(host, self._paths.constants)

    # --- from hosts

    def _take(self, news: News) -> Iterator[EngineEvent]:
        match news:
            case Connected(workers):
                self._patience_ends = time.monotonic() + (PATIENCE_SECONDS if workers else 0.0)
            case Up(number, where):
                host = self._hosts[number]
                host.up, host.where = True, where
                host.reader, host.versions = FrameReader(), set()
                self._begin(host)
            case Data(number, data):
                host = self._hosts[number]
                if not host.up:
                    return
                try:
                    frames = host.reader.take(data)
                except ProtocolError as error:
                    yield from self._give_up(host, error.message)
                    return
                yield from self._hear(host, frames)
            case Down(number, why):
                host = self._hosts[number]
                yield from self._lose(host, why)
                host.asked = host.ended = False
            case Gone():
                yield from self._end(news)

    def _end(self, news: Gone) -> Iterator[EngineEvent]:
        self._is_gone = True
        if news.is_refusal:
            yield BootFailed(0, news.why, news.hint)
        for host in self._hosts:
            yield from self._lose(host, news.why)
        yield Closed(0, news.why)

    def _give_up(self, host: _Host, why: str) -> Iterator[EngineEvent]:
        """Do without a host that is there."""
        yield from self._lose(host, why)
        host.ended = True
        self._carrier.end(host.number)

    def _lose(self, host: _Host, why: str) -> Iterator[EngineEvent]:
        """All of a host's workers are gone with it."""
        # What it told before stands.
        host.up = False
        host.backlog.clear()
        for number in host.slots:
            slot = self._slots[number]
            if slot.due is not None and host.asked and not (slot.worker or host.ended):
                slot.due = None
                yield self._unstarted(number, why)
            elif slot.worker and slot.reports is not None:
                lost = Lost(
                    slot=number,
                    worker=slot.worker,
                    # One that had not loaded the code yet says nothing of it.
                    cause=slot.cause or ("crash" if slot.reports.booted else "stopped"),
                    # What its slot shows is a while ago: any of its tasks may have begun since then.
                    batch=None,
                    position=None,
                    booted=slot.reports.booted,
                    exit=f"its host is gone: {why}",
                    sure=False,
                )
                self._free(slot)
                yield lost

    def _free(self, slot: _Slot) -> None:
        slot.worker, slot.reports = 0, None
        reset(slot.view, 0, 0)

    def _hear(self, host: _Host, frames: list[Frame]) -> Iterator[EngineEvent]:
        """Take in what a host tells, in order; what the disk refuses waits, and all that comes after it."""
        host.backlog += frames
        while host.backlog and host.up:
            frame = host.backlog[0]
            try:
                yield from self._heard(host, frame)
            except OSError as error:
                if error.errno not in REFUSALS:
                    raise
                self._again_at = time.monotonic() + AGAIN_SECONDS
                yield Refused(host.slots[0], error.errno, f"what {host.where} sends cannot be written")
                return
            except (ProtocolError, KeyError, TypeError, ValueError, IndexError) as error:
                yield from self._give_up(host, f"it told what no host tells: {error}")
                return
            if host.backlog:
                del host.backlog[0]

    def _heard(self, host: _Host, frame: Frame) -> Iterator[EngineEvent]:
        body = frame.body
        match frame.kind:
            case "hello":
                pass
            case "log":
                if body["worker"] in [self._slots[number].worker for number in host.slots]:
                    mirror.write_log(self._paths, body["worker"], body["at"], frame.payload)
            case "file":
                mirror.write_segment(self._paths, body["name"], body["at"], frame.payload)
            case "file-end":
                mirror.sync_segment(self._paths, body["name"])
            case "slots":
                for index, worker, pid, *words in body["slots"]:
                    slot = self._slot_of(host, index)
                    if slot.worker == worker:
                        mirror.show(slot.view, pid, words)
            case _:
                yield from self._heard_of_worker(host, frame)

    def _heard_of_worker(self, host: _Host, frame: Frame) -> Iterator[EngineEvent]:
        body = frame.body
        slot = self._slot_of(host, body["slot"])
        number = host.slots[body["slot"]]
        match frame.kind:
            case "ready" | "boot-failed" | "refused" | "outcomes":
                if slot.worker != body["worker"] or slot.reports is None:
                    return
                content = body["body"] if frame.kind == "outcomes" else body
                event = slot.reports.event(Frame(frame.kind, content, frame.payload))
                if event is not None:
                    yield event
            case "taken-back":
                if slot.reports is not None and slot.reports.has(body["batch"]):
                    slot.reports.taken_back(body["batch"])
                    yield TakenBack(number, body["batch"])
            case "trimmed":
                kept = slot.reports.trimmed(body["batch"], body["kept"]) if slot.reports is not None else None
                if kept is not None:
                    yield Trimmed(number, body["batch"], kept)
            case "lost":
                if slot.worker == body["worker"]:
                    lost = _lost(number, body)
                    self._free(slot)
                    yield lost
            case _:
                raise ProtocolError(f"a message of an unknown kind: {frame.kind!r:.40}")

    def _slot_of(self, host: _Host, index: int) -> _Slot:
        if not 0 <= index < len(host.slots):
            raise ProtocolError(f"there is no slot {index!r:.40}")
        return self._slots[host.slots[index]]


def _is_idle(slot: _Slot) -> bool:
    """Whether a slot's worker, if there is one, is ready and has nothing to do."""
    return slot.reports is None or (slot.reports.booted and slot.reports.idle)


def _lost(slot: int, body: dict[str, Any]) -> Lost:
    """A loss as a host tells it."""
    trace = body["trace"]
    where = trace["where"] if trace else None
    return Lost(
        slot=slot,
        worker=int(body["worker"]),
        cause=str(body["cause"]),
        batch=body["batch"],
        position=body["position"],
        booted=bool(body["booted"]),
        exit=str(body["exit"]),
        started=body["started"],
        duration=body["duration"],
        log=(body["log"][0], body["log"][1]) if body["log"] else None,
        trace=Trace(str(trace["text"]), (where[0], where[1], where[2]) if where else None) if trace else None,
        unbegun=tuple(body["unbegun"]),
        sure=bool(body["sure"]),
    )
