"""The command line inside this process: a hundred times as quick as one of its own, for sweeps over damaged pools."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from jobpool_cli.cli.main import main
from jobpool_cli.worker.importing import time_limit


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
        time_limit(seconds, HungError(f"jobpool {' '.join(map(str, words))} took more than {seconds:g} s")),
    ):
        code = main([str(word) for word in words])
    return Told(code, _text(out), _text(err))


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode(errors="replace")  # type: ignore[attr-defined, no-any-return]
