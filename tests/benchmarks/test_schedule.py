"""The best schedule, against every schedule there is."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.schedule import best_makespan, in_order
from benchmarks.works import c_uneven

# Every choice of at most five lengths, among them equal ones and ones that outweigh all others.
LENGTHS = [
    list(chosen) for count in range(1, 6) for chosen in itertools.combinations_with_replacement([1, 2, 5, 6, 30], count)
]


def _by_trying_all(lengths: list[int], cores: int) -> int:
    def busy(core: int, places: tuple[int, ...]) -> int:
        return sum(length for length, place in zip(lengths, places, strict=True) if place == core)

    every_way = itertools.product(range(cores), repeat=len(lengths))
    return min(max(busy(core, places) for core in range(cores)) for places in every_way)


def test_on_two_cores_the_best_schedule_is_exact() -> None:
    for lengths in LENGTHS:
        best = best_makespan(lengths, 2)
        assert best.at_least == best.at_most == _by_trying_all(lengths, 2), lengths


@pytest.mark.parametrize("cores", [1, 3])
def test_the_best_schedule_lies_between_its_bounds(cores: int) -> None:
    for lengths in LENGTHS:
        best = best_makespan(lengths, cores)
        assert best.at_least <= _by_trying_all(lengths, cores) <= best.at_most, lengths


@pytest.mark.parametrize(("lengths", "makespan"), [([3, 1, 2], 3), ([1, 2, 3], 4), ([], 0)])
def test_in_order_each_core_takes_the_next_task_when_it_is_free(lengths: list[int], makespan: int) -> None:
    assert in_order(lengths, 2) == makespan


def test_the_uneven_work_leaves_room_for_a_scheduler_that_knows_no_lengths() -> None:
    lengths = c_uneven.arguments(c_uneven.TASKS)
    assert min(lengths) >= 1_000
    assert max(lengths) <= 2_000_000
    assert in_order(lengths, 2) < 1.02 * best_makespan(lengths, 2).at_least


def test_the_uneven_work_counts_what_a_run_took_beyond_the_best_schedule() -> None:
    best = best_makespan(c_uneven.arguments(50), 2).at_least / 1e6
    figures = c_uneven.derive({"map_seconds": best * 1.25}, 50, 2)
    assert figures["excess"] == pytest.approx(25)
    assert 0 <= figures["in_order_excess"] < 25
    assert "excess" not in c_uneven.derive({}, 50, 2)
