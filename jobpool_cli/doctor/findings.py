"""What a look found: one line each, for people and for programs."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

# What is looked at for a pool, and is the machine's.
DISK, FILE_SYSTEM = "disk", "file system"


class Mark(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"  # something to know, or to do one day; nothing is lost
    BAD = "bad"  # something is damaged, or will not work


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        mark: how bad it is.
        subject: a file of the pool, or what else was looked at.
        text: what was found.
        advice: what to do; empty where there is nothing to do.
        repairs: whether ``--repair`` mends it.
    """

    mark: Mark
    subject: str
    text: str
    advice: str = ""
    repairs: bool = False


def ok(subject: str, text: str) -> Finding:
    """All is well with it."""
    return Finding(Mark.OK, subject, text)


def warn(subject: str, text: str, advice: str = "", *, repairs: bool = False) -> Finding:
    """Something to know."""
    return Finding(Mark.WARN, subject, text, advice, repairs)


def bad(subject: str, text: str, advice: str = "", *, repairs: bool = False) -> Finding:
    """Something is damaged."""
    return Finding(Mark.BAD, subject, text, advice, repairs)
