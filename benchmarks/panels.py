"""What the plot shows of each work: which figure of which contenders, against what, and which way is better. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import Figures, Row, Spread, spread


@dataclass(frozen=True)
class View:
    """One panel of a work's; all is as the work says if nothing else is said."""

    figure: str = ""
    label: str = ""
    """The axis's text; the heading of the figure's column by default."""
    over: str = ""
    """The contender whose figure of the same round each is divided by."""
    goal: float | None = None
    """Where a line is drawn that says what was to be reached."""
    less_is_better: bool = False
    linear: bool = False
    """The axis begins at zero and is even, however short the shortest bar becomes."""
    title: str = ""
    """Follows the work's title, where it has more than one panel."""


@dataclass(frozen=True)
class Bar:
    """A contender in a panel."""

    name: str
    ours: bool
    length: Spread


@dataclass(frozen=True)
class Panel:
    """What is drawn, best first."""

    title: str
    label: str
    less_is_better: bool
    linear: bool
    goal: float | None
    bars: Sequence[Bar]


# By the key of the work; any other has one panel of the figure that it names.
VIEWS: Mapping[str, Sequence[View]] = {
    "b": [View(goal=97, linear=True)],
    "c": [View(less_is_better=True, goal=5, linear=True)],
    "d": [View(title=": all of it"), View("collect_rate", title=": making the table")],
    "f": [View(less_is_better=True)],
    "g": [View(less_is_better=True)],
    "h": [
        View(
            over="python",
            label='times "python -c pass"; for --help, the goal is 12',
            less_is_better=True,
            goal=8,
            linear=True,
        )
    ],
    "i": [View(over="jobpool:million", label="rate of the whole command, times that of 1,000,000 tasks", goal=0.9)],
    "j": [View(less_is_better=True)],
}


def panels(works: Mapping[str, Any]) -> list[Panel]:
    """Return the panels of all works that have figures."""
    found = []
    for key, work in works.items():
        for view in VIEWS.get(key, [View()]):
            figure = view.figure or work["plot"]
            bars = _bars(work["rows"], figure, view.over)
            if bars:
                bars.sort(key=lambda bar: bar.length.median, reverse=not view.less_is_better)
                label = view.label or work["columns"].get(figure, figure)
                title = f"{key}: {work['title']}{view.title}"
                found.append(Panel(title, label, view.less_is_better, view.linear, view.goal, bars))
    return found


def _bars(rows: Sequence[Row], figure: str, over: str) -> list[Bar]:
    base = next((row["rounds"] for row in rows if row["contender"] == over), [])
    found = []
    for row in rows:
        values = _ratios(row["rounds"], base, figure) if over else _values(row["rounds"], figure)
        if values and min(values) > 0:
            found.append(Bar(row["name"], _is_ours(row), spread(values)))
    return found


def _is_ours(row: Row) -> bool:
    return "jobpool" in (row["contender"].partition(":")[0], row["name"].partition(",")[0].partition(" ")[0])


def _values(rounds: Sequence[Figures], figure: str) -> list[float]:
    return [figures[figure] for figures in rounds if figure in figures]


def _ratios(rounds: Sequence[Figures], base: Sequence[Figures], figure: str) -> list[float]:
    pairs = zip(rounds, base, strict=False)
    return [own[figure] / other[figure] for own, other in pairs if figure in own and figure in other]
