"""The messages between the supervisor and a worker process.

Supervisor to worker: one JSON message per batch over a ``SOCK_SEQPACKET`` pair. The kernel hands each message to one
reader only, and the supervisor keeps a copy of the worker's end: by reading from it, it takes back a batch that the
worker has not begun, with no race. Worker to supervisor: frames over a stream, each a fixed header, a JSON part and a
binary part (the outcomes as an Arrow IPC stream).

The function runs in the same process and may write into the worker's descriptors by mistake: header and content bear
checksums, so that a stray write is seen before anything is waited for or believed. What a whole frame may say is
checked by ``engines.reports``.
"""

from __future__ import annotations

import json
import socket
import struct
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from jobpool_cli.errors import JobPoolError
from jobpool_cli.store.ranges import Range, Ranges

MAGIC = b"jbpl"
# magic, length of the JSON part, length of the binary part, CRC-32 of both parts; then the CRC-32 of all these
HEADER = struct.Struct("<4sIIII")
CHECKED_HEADER = struct.Struct("<4sIII")

# Beyond these it is no frame of a worker's: the supervisor must not wait for, and hold, gigabytes. Outcomes larger than
# ``outbox.INLINE_BYTES`` are written to a segment; failures are sent some megabytes at a time.
MAX_TEXT_BYTES = 256 << 20
MAX_PAYLOAD_BYTES = 16 << 20
CHUNK_BYTES = 1 << 20
JOINED_BYTES = 1 << 16

# How a worker ends that finds one of its channels closed.
CHANNEL_CLOSED_EXIT_CODE = 76

# How many seconds a worker's outcomes may wait to be sent together.
FLUSH_VARIABLE = "JOBPOOL_FLUSH_SECONDS"

# A message must fit into a socket's send buffer; scattered tasks (a retry) are sent in several batches.
MAX_RANGES_PER_BATCH = 4000


class ProtocolError(JobPoolError):
    """A worker sent what none sends, for instance because the UDF wrote into its descriptors; the message says what."""


@dataclass(frozen=True)
class Assignment:
    """The first message to a worker process, which comes with the descriptor of its log: what it is for."""

    root: str
    slot: int
    worker: int
    udf: int

    def encode(self) -> bytes:
        """The message's bytes."""
        return json.dumps([self.root, self.slot, self.worker, self.udf]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Assignment:
        """The inverse of ``encode``."""
        root, slot, worker, udf = json.loads(data)
        return cls(root, slot, worker, udf)


@dataclass(frozen=True)
class BatchOrder:
    """A batch as the worker is told of it: half-open ranges of tasks, all of one attempt and one code version."""

    batch: int
    ranges: Ranges
    attempt: int
    udf: int

    @cached_property
    def _offsets(self) -> list[int]:
        """The position at which each range begins, and how many positions there are."""
        return [0, *accumulate(high - low for low, high in self.ranges)]

    @property
    def size(self) -> int:
        """How many tasks."""
        return self._offsets[-1]

    def task_at(self, position: int) -> int:
        """Return the task at a position."""
        index = bisect_right(self._offsets, position) - 1
        return self.ranges[index][0] + position - self._offsets[index]

    def slices(self, start: int, stop: int) -> list[Range]:
        """Return the task ranges at the positions from start to stop."""
        found = []
        for low, high in self.ranges:
            begin, end = max(low, low + start), min(high, low + stop)
            if begin < end:
                found.append((begin, end))
            start, stop = start - (high - low), stop - (high - low)
        return found

    def encode(self) -> bytes:
        """The message's bytes."""
        return json.dumps([self.batch, self.ranges, self.attempt, self.udf], separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> BatchOrder:
        """The inverse of ``encode``.

        Raises:
            ProtocolError: that is no order.
        """
        try:
            batch, ranges, attempt, udf = json.loads(data)
            order = cls(batch, tuple((low, high) for low, high in ranges), attempt, udf)
            numbers = (batch, attempt, udf, *(end for each in order.ranges for end in each))
            if all(type(each) is int for each in numbers) and all(0 <= low < high for low, high in order.ranges):
                return order
        except (ValueError, TypeError, RecursionError) as error:
            raise ProtocolError(f"an order that cannot be read: {error}") from error
        raise ProtocolError("an order that makes no sense")


@dataclass(frozen=True)
class Frame:
    """One message of a worker: ``kind`` is warm, ready, boot-failed, refused or outcomes; the rest depends on it."""

    kind: str
    body: dict[str, Any]
    payload: bytes


def frame_bytes(kind: str, body: dict[str, Any], payload: bytes | memoryview = b"") -> bytes:
    """Return a frame up to its payload, which follows."""
    text = json.dumps({"kind": kind, **body}, separators=(",", ":")).encode()
    checked = CHECKED_HEADER.pack(MAGIC, len(text), len(payload), zlib.crc32(payload, zlib.crc32(text)))
    return checked + zlib.crc32(checked).to_bytes(4, "little") + text


def send_frame(channel: socket.socket, kind: str, body: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    """Send one frame; blocks until the supervisor has room for it."""
    head = frame_bytes(kind, body, payload)
    if len(payload) <= JOINED_BYTES:
        # One system call, and the supervisor wakes once.
        channel.sendall(head + payload)
    else:
        channel.sendall(head)
        channel.sendall(payload)


class FrameReader:
    """Puts frames together from the bytes of a non-blocking stream."""

    def __init__(self) -> None:
        """Start with nothing received."""
        self._buffer = bytearray()
        self._broken: ProtocolError | None = None

    def feed(self, channel: socket.socket, limit: int | None = None) -> tuple[list[Frame], bool]:
        """Read what is there; return the frames completed by it, and whether the stream goes on.

        Args:
            channel: a non-blocking stream.
            limit: leave the rest for the next time when about so many bytes have come.

        Raises:
            ProtocolError: what came is not a frame. Frames before it are returned first; the next call raises.
        """
        self._check()
        frames: list[Frame] = []
        alive, received = True, 0
        try:
            while limit is None or received < limit:
                chunk = channel.recv(CHUNK_BYTES)
                if not chunk:
                    alive = False
                    break
                received += len(chunk)
                frames += self._taken(chunk)
        except BlockingIOError:
            pass
        except ConnectionResetError:
            alive = False
        if not frames:
            self._check()
        return frames, alive

    def take(self, data: bytes) -> list[Frame]:
        """Return the frames completed by bytes that came in another way.

        Raises:
            ProtocolError: as ``feed`` does.
        """
        self._check()
        frames = self._taken(data)
        if not frames:
            self._check()
        return frames

    def _taken(self, data: bytes) -> list[Frame]:
        self._buffer += data
        return self._frames()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    @property
    def is_amid_frame(self) -> bool:
        """Whether the beginning of a frame has come, and its end has not."""
        return bool(self._buffer)

    def _frames(self) -> list[Frame]:
        """Take the whole frames off the buffer; remember if what follows is none."""
        frames = []
        start = 0
        try:
            while (end := self._end_of_frame(start)) is not None:
                frames.append(self._frame(start, end))
                start = end
        except ProtocolError as error:
            self._broken = error
            self._buffer.clear()
        del self._buffer[:start]
        return frames

    def _end_of_frame(self, start: int) -> int | None:
        """Return where the frame that starts there ends, None if not all of it has come."""
        there = len(self._buffer) - start
        if not MAGIC.startswith(bytes(self._buffer[start : start + len(MAGIC)])):
            raise ProtocolError("bytes that are no message")
        if there < HEADER.size:
            return None
        _, text_size, payload_size, _, checksum = HEADER.unpack_from(self._buffer, start)
        if zlib.crc32(self._buffer[start : start + CHECKED_HEADER.size]) != checksum:
            raise ProtocolError("a message whose header has a wrong checksum")
        if text_size > MAX_TEXT_BYTES or payload_size > MAX_PAYLOAD_BYTES:
            raise ProtocolError("a message larger than any can be")
        end: int = start + HEADER.size + text_size + payload_size
        return end if len(self._buffer) >= end else None

    def _frame(self, start: int, end: int) -> Frame:
        _, text_size, _, checksum, _ = HEADER.unpack_from(self._buffer, start)
        text_start = start + HEADER.size
        text = bytes(self._buffer[text_start : text_start + text_size])
        payload = bytes(self._buffer[text_start + text_size : end])
        if zlib.crc32(payload, zlib.crc32(text)) != checksum:
            raise ProtocolError("a message with a wrong checksum")
        try:
            body = json.loads(text)
            kind = body.pop("kind")
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ProtocolError("a message that is not of the form of one") from error
        return Frame(kind, body, payload)
