"""The command line inside this process: a hundred times as quick as one of its own, for sweeps over damaged pools."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn
from unittest import mock

from jobpool_cli.cli.main import main


class Told(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str


class HungError(AssertionError):
    """A command did not end."""


def run(home: Path, *words: str | Path, seconds: float = 20.0) -> Told:
    """Run a command that starts nothing; it must end in time, and never by a fault of its own."""
    # With a buffer below, into which tables go as bytes.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    surroundings = {"JOBPOOL_HOME": str(home), "JOBPOOL_DEBUG": "1"}
    with (
        mock.patch.dict(os.environ, surroundings),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _limit(seconds, f"jobpool {' '.join(map(str, words))}"),
    ):
        code = main([str(word) for word in words])
    return Told(code, _text(out), _text(err))


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode(errors="replace")  # type: ignore[attr-defined, no-any-return]


@contextlib.contextmanager
def _limit(seconds: float, what: str) -> Iterator[None]:
    def give_up(_number: int, _frame: FrameType | None) -> NoReturn:
        raise HungError(f"{what} took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
