"""The supervisor's end of the bridge: a child process that knows Dask, so that the supervisor need not."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

from jobpool_cli.engines.remote.carrier import Connected, Data, Down, Gone, News, Up
from jobpool_cli.engines.remote.stream import Stream

BRIDGE = "jobpool_cli.engines.dask.bridge"
END_SECONDS = 30.0


class DaskCarrier:
    """Hosts as tasks of a Dask cluster."""

    def __init__(self, asked: dict[str, Any], program: str = BRIDGE) -> None:
        """Start the bridge.

        Args:
            asked: ``pool``, its id; ``scheduler``, an address; or what ``clusters.make_cluster`` takes.
            program: the bridge's module, or another that speaks as it does.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", program, f"--channel={theirs.fileno()}"],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._stream = Stream(ours)
        self._stream.send("connect", {"asked": asked})
        self._is_gone = False

    @property
    def waiting(self) -> int:
        """Bytes that the bridge has no room for yet."""
        return self._stream.waiting

    def fileno(self) -> int:
        """Return the stream's descriptor."""
        return self._stream.fileno()

    def open(self, host: int) -> None:
        """Have a task submitted that becomes a host."""
        self._stream.send("open", {"host": host})

    def send(self, host: int, data: bytes) -> None:
        """Send bytes to a host."""
        self._stream.send("data", {"host": host}, data)

    def end(self, host: int) -> None:
        """Give a host back."""
        self._stream.send("end", {"host": host})

    def news(self) -> list[News]:
        """Return what has come."""
        self._stream.flush()
        found: list[News] = []
        for frame in self._stream.receive():
            body = frame.body
            match frame.kind:
                case "connected":
                    found.append(Connected(body["workers"]))
                case "up":
                    found.append(Up(body["host"], body["where"]))
                case "data":
                    found.append(Data(body["host"], frame.payload))
                case "down":
                    found.append(Down(body["host"], body["why"]))
                case "gone":
                    self._is_gone = True
                    found.append(Gone(body["why"], body["hint"], is_refusal=body["refusal"]))
        if self._stream.closed and not self._is_gone:
            self._is_gone = True
            found.append(Gone("the process that speaks to Dask has ended", "see the pool's supervisor.log"))
        return found

    def close(self) -> None:
        """End the bridge, and with it all hosts."""
        self._stream.shut()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stream.close()
