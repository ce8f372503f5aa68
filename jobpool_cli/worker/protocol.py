"""The messages between the supervisor and a worker process.

Supervisor to worker: one JSON message per batch over a ``SOCK_SEQPACKET`` pair. The kernel hands each message to one
reader only, and the supervisor keeps a copy of the worker's end: by reading from it, it takes back a batch that the
worker has not begun, with no race. Worker to supervisor: frames over a stream, each a fixed header, a JSON part and a
binary part (the outcomes as an Arrow IPC stream).
"""

from __future__ import annotations

import json
import socket
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from jobpool_cli.errors import JobPoolError
from jobpool_cli.store.ranges import Ranges

MAGIC = b"jbpl"
# magic, length of the JSON part, length of the binary part, CRC-32 of the JSON part
HEADER = struct.Struct("<4sIQI")

# Beyond these it is no header, whatever its first bytes say: the supervisor must not wait for, and hold, gigabytes.
MAX_TEXT_BYTES = 1 << 30
MAX_PAYLOAD_BYTES = 1 << 32
CHUNK_BYTES = 1 << 20
JOINED_BYTES = 1 << 16

# A message must fit into a socket's send buffer; scattered tasks (a retry) are sent in several batches.
MAX_RANGES_PER_BATCH = 4000


class ProtocolError(JobPoolError):
    """A worker sent something that is not a frame, for instance because the UDF wrote into its descriptors."""


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
        return cls(*json.loads(data))


@dataclass(frozen=True)
class BatchOrder:
    """A batch as the worker is told of it: half-open ranges of tasks, all of one attempt and one code version."""

    batch: int
    ranges: Ranges
    attempt: int
    udf: int

    def encode(self) -> bytes:
        """The message's bytes."""
        return json.dumps([self.batch, self.ranges, self.attempt, self.udf], separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> BatchOrder:
        """The inverse of ``encode``."""
        batch, ranges, attempt, udf = json.loads(data)
        return cls(batch, tuple((low, high) for low, high in ranges), attempt, udf)


@dataclass(frozen=True)
class Frame:
    """One message of a worker: ``kind`` is warm, ready, boot-failed or outcomes; the rest depends on it."""

    kind: str
    body: dict[str, Any]
    payload: bytes


def send_frame(channel: socket.socket, kind: str, body: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    """Send one frame; blocks until the supervisor has room for it."""
    text = json.dumps({"kind": kind, **body}, separators=(",", ":")).encode()
    head = HEADER.pack(MAGIC, len(text), len(payload), zlib.crc32(text)) + text
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
                self._buffer += chunk
                frames += self._frames()
        except BlockingIOError:
            pass
        except ConnectionResetError:
            alive = False
        if not frames:
            self._check()
        return frames, alive

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _frames(self) -> list[Frame]:
        """Take the whole frames off the buffer; remember if what follows is none."""
        frames = []
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            magic, text_size, payload_size, checksum = HEADER.unpack_from(self._buffer, start)
            if magic != MAGIC or text_size > MAX_TEXT_BYTES or payload_size > MAX_PAYLOAD_BYTES:
                self._broken = ProtocolError("a worker sent bytes that are no message")
                break
            text_start = start + HEADER.size
            payload_start = text_start + text_size
            end = payload_start + payload_size
            if len(self._buffer) < end:
                break
            text = bytes(self._buffer[text_start:payload_start])
            if zlib.crc32(text) != checksum:
                self._broken = ProtocolError("a worker sent a message with a wrong checksum")
                break
            body = json.loads(text)
            frames.append(Frame(body.pop("kind"), body, bytes(self._buffer[payload_start:end])))
            start = end
        del self._buffer[:start]
        return frames
