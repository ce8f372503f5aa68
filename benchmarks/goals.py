"""Goals as data: a ratio within one round, its threshold, and whether the median of the rounds meets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.measure import Figures, Row, Spread, spread

# The figures of one round, by contender.
Round = Mapping[str, Figures]


@dataclass(frozen=True)
class Goal:
    """What a work is to show: ``Goal("at least 2 x joblib", ratio_of(...), at_least=2)``.

    The ratio is computed from the figures of one round. A contender or figure that it names and that was not measured
    (KeyError) leaves the goal open.
    """

    text: str
    ratio: Callable[[Round], float]
    at_least: float | None = None
    at_most: float | None = None
    within_spread: bool = False
    """The goal is "no worse than": it is met if the best round meets it, since equals differ by noise alone."""
    unit: str = ""
    """What the measured figure is shown with, such as ``s`` or ``times``."""


@dataclass(frozen=True)
class Verdict:
    """A goal and what became of it; ``met`` is None where there was nothing to judge by."""

    goal: Goal
    ratio: Spread | None
    met: bool | None


def judge(goal: Goal, rows: Sequence[Row]) -> Verdict:
    """Judge a goal by the rows of its work."""
    measured = [row for row in rows if row["rounds"]]
    count = min((len(row["rounds"]) for row in measured), default=0)
    try:
        ratios = [goal.ratio({row["contender"]: row["rounds"][number] for row in measured}) for number in range(count)]
    except (KeyError, ZeroDivisionError):
        ratios = []
    if not ratios:
        return Verdict(goal, None, None)
    found = spread(ratios)
    enough = goal.at_least is None or (found.high if goal.within_spread else found.median) >= goal.at_least
    little = goal.at_most is None or (found.low if goal.within_spread else found.median) <= goal.at_most
    return Verdict(goal, found, enough and little)


def times_the_rate(other: str, *, figure: str = "rate", of: str = "jobpool") -> Callable[[Round], float]:
    """Return the ratio "how many times the other's rate"."""
    return lambda figures: figures[of][figure] / figures[other][figure]


def times_the_best_rate(other: str, *, of: str = "jobpool") -> Callable[[Round], float]:
    """Return the ratio of jobpool's whole command to the other's best light: its workers' start counted or not."""
    return lambda figures: figures[of]["rate"] / max(figures[other]["rate"], figures[other].get("map_rate", 0.0))
