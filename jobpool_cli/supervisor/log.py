"""supervisor.log, which is standard output: what it does not take is lost, and nothing else."""

from __future__ import annotations

import contextlib
import os

STDOUT = 1


def log(text: str) -> None:
    """Write a line, if the disk takes it."""
    with contextlib.suppress(OSError):
        os.write(STDOUT, f"{text}\n".encode(errors="backslashreplace"))
