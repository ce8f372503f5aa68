"""Frames both ways over a stream that never makes either side wait."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from typing import Any

from jobpool_cli.worker.protocol import Frame, FrameReader, ProtocolError, frame_bytes

# More is not put into one frame: it shares the stream with others.
CHUNK_BYTES = 1 << 20
READ_BYTES = 16 << 20
BUFFER_BYTES = 4 << 20


class Stream:
    """A non-blocking stream socket; what the other side has no room for waits here.

    Attributes:
        closed: why nothing comes any more; empty while something may.
    """

    def __init__(self, channel: socket.socket) -> None:
        """Take a connected stream socket over."""
        channel.settimeout(0)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._channel = channel
        self._reader = FrameReader()
        self._waiting: deque[memoryview] = deque()
        self.waiting = 0
        """Bytes that the other side has no room for yet."""
        self.closed = ""

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._channel.fileno()

    def send(self, kind: str, body: dict[str, Any], payload: bytes | memoryview = b"") -> None:
        """Send a frame, as far as there is room; ``flush`` sends the rest."""
        for part in (frame_bytes(kind, body, payload), payload):
            if len(part):
                self._waiting.append(memoryview(part).cast("B"))
                self.waiting += len(part)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        try:
            while self._waiting:
                sent = self._channel.send(self._waiting[0])
                self.waiting -= sent
                if sent < len(self._waiting[0]):
                    self._waiting[0] = self._waiting[0][sent:]
                else:
                    self._waiting.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            self.closed = self.closed or error.strerror or str(error)
            self._waiting.clear()
            self.waiting = 0

    def receive(self) -> list[Frame]:
        """Return the frames that have come; ``closed`` tells whether there will be more."""
        try:
            frames, alive = self._reader.feed(self._channel, READ_BYTES)
        except ProtocolError as error:
            self.closed = error.message
            return []
        if not alive:
            self.closed = self.closed or "the other side has ended"
        return frames

    def shut(self) -> None:
        """Tell the other side that nothing more comes."""
        self.flush()
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._channel.close()
