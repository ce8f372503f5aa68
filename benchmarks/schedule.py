"""The best possible schedule of tasks whose lengths are known: what no scheduler can beat."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Best:
    """The shortest time in which so many cores can do all tasks lies between these two; equal ones are a proof."""

    at_least: int
    at_most: int


def best_makespan(lengths: Sequence[int], cores: int) -> Best:
    """Return the shortest makespan of tasks of whole lengths.

    On two cores it is exact: the best split is the subset whose sum comes nearest to the half. For more cores that
    would be too much to compute; longest-task-first and the obvious bounds lie close together for many tasks.
    """
    if cores == 2:  # noqa: PLR2004 - the case that has an exact answer
        exact = _best_of_two(lengths)
        return Best(exact, exact)
    descending = sorted(lengths, reverse=True)
    bounds = [-(-sum(lengths) // cores), descending[0] if descending else 0]
    if len(descending) > cores:
        # Of the first cores + 1 tasks, two must share a core.
        bounds.append(descending[cores - 1] + descending[cores])
    return Best(max(bounds), in_order(descending, cores))


def in_order(lengths: Sequence[int], cores: int) -> int:
    """Return the makespan if each core takes the next task as soon as it is free, at no cost.

    That is the ideal of a scheduler that does not know the lengths; with the longest first it is close to the best.
    """
    free = [0] * cores
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def _best_of_two(lengths: Sequence[int]) -> int:
    # Bit s is set if some subset has the sum s: a shift and an or for each task. No more than half the total is kept.
    total = sum(lengths)
    half = total // 2
    kept = (1 << (half + 1)) - 1
    reachable = 1
    for length in lengths:
        reachable |= (reachable << length) & kept
    return total - (reachable.bit_length() - 1)
