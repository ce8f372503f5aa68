"""Lengths of time and sizes as people write them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from jobpool_cli.errors import UsageError
from jobpool_cli.model import MAX_PROCESSES

if TYPE_CHECKING:
    from datetime import timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
# Compiled when they are used: every command has this module, few have a length of time or a size.
_DURATION = r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m|h|d)?\s*"
_SIZE = r"(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(?:i?B)?"


def seconds(text: str) -> float:
    """Read a length of time: seconds, or ``500ms``, ``90s``, ``2m``, ``1h30m``, ``1d``.

    Raises:
        UsageError: it is none.
    """
    total, at = 0.0, 0
    duration = re.compile(_DURATION, re.IGNORECASE)
    while found := duration.match(text, at):
        total += float(found[1]) * _UNITS[(found[2] or "s").lower()]
        at = found.end()
        if found[2] is None:
            break
    if at != len(text) or not text.strip():
        raise UsageError(f"{text!r} is not a length of time", "write seconds, or for example 500ms, 90s, 2m, 1h30m")
    return total


def as_seconds(given: float | str | timedelta, name: str) -> float:
    """Return a length of time, as Python code may give it, in seconds.

    Args:
        given: seconds, a timedelta, or a text as ``seconds`` reads it.
        name: what it is for, for the error.

    Raises:
        UsageError: it is none.
    """
    if isinstance(given, str):
        return seconds(given)
    total: object = given.total_seconds() if hasattr(given, "total_seconds") else given
    try:
        found = float("nan") if isinstance(total, bool) else float(total)  # type: ignore[arg-type]  # any number
    except (TypeError, ValueError):
        found = float("nan")
    if math.isnan(found):
        raise UsageError(f"{name} is {given!r}, and must be seconds, a timedelta, or a text such as '2m'")
    return found


def size(text: str) -> int:
    """Read a number of bytes: plain, or with K, M, G, T (powers of 1024).

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE)
    if found is None:
        raise UsageError(f"{text!r} is not a size", "write bytes, or for example 512M, 2G")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def worker_numbers(text: str) -> tuple[int | None, int]:
    """Read a number of workers, or ``MIN:MAX``; return both, None for the least where there is none.

    Raises:
        UsageError: it is none.
    """
    least, colon, most = text.rpartition(":")
    try:
        found = (int(least) if colon else None, int(most))
    except ValueError:
        found = (None, 0)
    if found[1] < 1 or not 0 <= (found[0] or 0) <= found[1]:
        raise UsageError(f"{text!r} is not a number of workers", "write a number from 1 on, or MIN:MAX")
    if found[1] > MAX_PROCESSES:
        raise UsageError(f"{found[1]} workers are too many", f"a pool has at most {MAX_PROCESSES}")
    return found
