"""The best schedule, against every schedule there is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.schedule import best_makespan, in_order
from benchmarks.works import c_uneven

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=6)


def _by_trying_all(lengths: list[int], cores: int) -> int:
    def busy(core: int, places: tuple[int, ...]) -> int:
        return sum(length for length, place in zip(lengths, places, strict=True) if place == core)

    every_way = itertools.product(range(cores), repeat=len(lengths))
    return min(max(busy(core, places) for core in range(cores)) for places in every_way)


@settings(deadline=None, max_examples=50)
@given(LENGTHS)
def test_on_two_cores_the_best_schedule_is_exact(lengths: list[int]) -> None:
    best = best_makespan(lengths, 2)
    assert best.at_least == best.at_most == _by_trying_all(lengths, 2)


@settings(deadline=None, max_examples=50)
@given(LENGTHS, st.integers(1, 3))
def test_the_best_schedule_lies_between_its_bounds(lengths: list[int], cores: int) -> None:
    best = best_makespan(lengths, cores)
    assert best.at_least <= _by_trying_all(lengths, cores) <= best.at_most


@pytest.mark.parametrize(("lengths", "makespan"), [([3, 1, 2], 3), ([1, 2, 3], 4), ([], 0)])
def test_in_order_each_core_takes_the_next_task_when_it_is_free(lengths: list[int], makespan: int) -> None:
    assert in_order(lengths, 2) == makespan


def test_the_uneven_work_leaves_room_for_a_scheduler_that_knows_no_lengths() -> None:
    lengths = c_uneven.arguments(c_uneven.TASKS)
    assert min(lengths) >= 1_000
    assert max(lengths) <= 2_000_000
    assert in_order(lengths, 2) < 1.02 * best_makespan(lengths, 2).at_least
