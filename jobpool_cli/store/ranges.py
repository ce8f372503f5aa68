"""Half-open ranges of task numbers: the currency in which tasks are counted, handed out and remembered."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Range = tuple[int, int]
Ranges = tuple[Range, ...]


def merged(ranges: Iterable[Sequence[int]]) -> list[Range]:
    """Sort ranges, drop empty ones, and join those that touch or overlap."""
    joined: list[Range] = []
    for low, high in sorted((low, high) for low, high in ranges if low < high):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def without(ranges: Iterable[Range], taken: Sequence[Range]) -> list[Range]:
    """Subtract ranges from ranges; both ascending and disjoint."""
    left: list[Range] = []
    at = 0
    for low, high in ranges:
        start = low
        while at < len(taken) and taken[at][0] < high:
            if taken[at][0] > start:
                left.append((start, taken[at][0]))
            start = max(start, taken[at][1])
            if taken[at][1] > high:
                break
            at += 1
        if start < high:
            left.append((start, high))
    return left


def gaps(ranges: Iterable[Range], size: int) -> Ranges:
    """Return the ranges of 0 to ``size`` that none of the given ones covers."""
    return tuple(without([(0, size)], merged(ranges)))


def contains(ranges: Sequence[Range], task: int) -> bool:
    """Return whether a task lies in one of the ranges, which are ascending and disjoint."""
    index = bisect_right(ranges, (task, 2**63)) - 1
    return index >= 0 and ranges[index][0] <= task < ranges[index][1]
