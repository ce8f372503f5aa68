"""Ranges, held against plain sets of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from jobpool_cli.store.ranges import Range, contains, gaps, merged, without

RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (min(pair), max(pair))))


def tasks(ranges: list[Range] | tuple[Range, ...]) -> set[int]:
    return {task for low, high in ranges for task in range(low, high)}


@given(RANGES)
def test_merged_ranges_cover_the_same_and_neither_touch_nor_overlap(ranges: list[Range]) -> None:
    found = merged(ranges)
    assert tasks(found) == tasks(ranges)
    assert all(low < high for low, high in found)
    assert all(first[1] < second[0] for first, second in pairwise(found))


@given(RANGES, RANGES)
def test_without_leaves_what_only_the_first_covers(ranges: list[Range], taken: list[Range]) -> None:
    left = without(merged(ranges), merged(taken))
    assert tasks(left) == tasks(ranges) - tasks(taken)
    assert sum(high - low for low, high in left) == len(tasks(left))


@given(RANGES, st.integers(0, 40))
def test_gaps_and_ranges_make_up_the_whole(ranges: list[Range], size: int) -> None:
    assert tasks(gaps(ranges, size)) == set(range(size)) - tasks(ranges)


@given(RANGES, st.integers(-1, 41))
def test_contains_says_whether_a_range_covers_a_task(ranges: list[Range], task: int) -> None:
    assert contains(merged(ranges), task) == (task in tasks(ranges))
