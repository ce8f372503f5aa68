"""A carrier to host processes on this machine, through socket pairs: all of the distributed side but a cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from jobpool_cli.engines.remote.carrier import Data, Down, News, Up


class Pipes:
    """Hosts as children of this process."""

    def __init__(self, folder: Path) -> None:
        """Let hosts make their folders there."""
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self.hosts: dict[int, subprocess.Popen[bytes]] = {}
        self._channels: dict[int, socket.socket] = {}
        self._news: list[News] = []
        self._wake, self._waker = os.pipe()

    @property
    def waiting(self) -> int:
        return 0

    def fileno(self) -> int:
        return self._wake

    def open(self, host: int) -> None:
        if host in self.hosts:
            self.hosts[host].wait(20)
        ours, theirs = socket.socketpair()
        with theirs:
            self.hosts[host] = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "jobpool_cli.engines.remote.host",
                    f"--channel={theirs.fileno()}", f"--folder={self._folder}",
                ],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )  # fmt: skip
        ours.settimeout(0)
        self._channels[host] = ours
        self._news.append(Up(host, "here"))

    def send(self, host: int, data: bytes) -> None:
        channel = self._channels[host]
        channel.settimeout(5)
        try:
            channel.sendall(data)
        except OSError:
            return
        channel.settimeout(0)

    def end(self, host: int) -> None:
        self._channels[host].close()
        del self._channels[host]
        self._news.append(Down(host, "ended"))

    def news(self) -> list[News]:
        found, self._news = self._news, []
        for host, channel in list(self._channels.items()):
            try:
                while data := channel.recv(1 << 20):
                    found.append(Data(host, data))
            except BlockingIOError:
                continue
            except OSError:
                pass
            channel.close()
            del self._channels[host]
            found.append(Down(host, "its process ended"))
        return found

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        for process in self.hosts.values():
            process.wait(20)
        os.close(self._wake)
        os.close(self._waker)
