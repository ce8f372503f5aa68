"""What a dying worker wrote of where it was: faulthandler's traces, found in its log."""

from __future__ import annotations

import os
import re
from pathlib import Path

from jobpool_cli import errors
from jobpool_cli.engines.base import Trace
from jobpool_cli.store.origins import is_library

# A trace is a hundred lines at most, written last: what stands before so much of the log's end is none.
LOOK_BYTES = 64 << 10
_PACKAGE = os.path.dirname(errors.__file__) + os.sep
_LOOP = os.path.join(_PACKAGE, "worker", "")
_THREAD = re.compile(r"(Stack|Current thread|Thread)(?: 0x[0-9a-f]+)?(?: \[.*\])? \(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')

Frame = tuple[str, int, str]


def last_trace(log: Path, start: int, end: int) -> Trace | None:
    """Return the last trace that faulthandler wrote in a byte range of a log, of the thread that ran the task.

    Args:
        log: a worker's log.
        start: where the output of its last task begins.
        end: where it ends.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(start, end - LOOK_BYTES))
            text = file.read(max(0, min(end - start, LOOK_BYTES))).decode("utf-8", "replace")
    except OSError:
        return None
    frames, headline = _chosen(text.splitlines())
    if not frames:
        return None
    where = next(((file, line, name) for file, line, name in frames if not is_library(file)), None)
    shown = [f'  File "{file}", line {line} in {name}' for file, line, name in frames]
    return Trace("\n".join([*headline, "Most recent call first:", *shown]) + "\n", where)


def _chosen(lines: list[str]) -> tuple[list[Frame], list[str]]:
    """Return the frames of the thread that matters, and the line that says what happened, if there is one.

    That is the thread that crashed, or else the one that ran the task: the signal to write down where it is may have
    reached any other.
    """
    frames: list[Frame] = []
    headline: list[str] = []
    for number, line in enumerate(lines):
        if line.startswith("Fatal Python error: "):
            headline = [line, ""]
        thread = _THREAD.fullmatch(line)
        if thread is not None:
            found, runs_task = _frames_from(lines, number + 1)
            if (thread[1] == "Current thread") if headline else runs_task:
                frames = found
    return frames, headline


def _frames_from(lines: list[str], start: int) -> tuple[list[Frame], bool]:
    """Return a thread's frames from a line on, down to jobpool's own, and whether it runs tasks."""
    frames: list[Frame] = []
    for line in lines[start:]:
        match = _FRAME.fullmatch(line)
        if match is None:
            break
        if match[1].startswith(_PACKAGE):
            return frames, match[1].startswith(_LOOP)
        frames.append((match[1], int(match[2]), match[3]))
    return frames, False
