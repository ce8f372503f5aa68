"""Terminals that keep what is written to them, and looks at pools to be shown on them."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import struct
import subprocess
import termios
from datetime import UTC, datetime

import pytest

from jobpool_cli.model import PoolState, PoolStatus, TaskState
from tests.conftest import PATIENCE_SECONDS


class Terminal(io.StringIO):
    """A stream that a person watches."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 40 columns that can show colour."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def status_of(state: PoolState = PoolState.RUNNING, pool: str = "p", **counts: int) -> PoolStatus:
    """A look at a pool of so many tasks in each state."""
    every: dict[TaskState, int] = {each: counts.get(each.value, 0) for each in TaskState}
    return PoolStatus(pool, state, sum(every.values()), every, datetime(2026, 1, 1, tzinfo=UTC), 2.0)


class Screen:
    """A command on a terminal of 100 columns; ``text`` is all that it sent."""

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        """Start the command."""
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            words, stdin=inner, stdout=inner, stderr=inner, env=env | {"TERM": "xterm"}, start_new_session=True
        )
        os.close(inner)
        os.set_blocking(self._fd, False)
        self._sent = b""

    @property
    def text(self) -> str:
        with contextlib.suppress(BlockingIOError, OSError):
            while sent := os.read(self._fd, 65536):
                self._sent += sent
        return self._sent.decode().replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def end(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)
