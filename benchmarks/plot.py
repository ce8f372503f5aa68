"""The plot of a run: a panel for each work, a bar for each contender, jobpool's in a colour of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.measure import spread
from benchmarks.report import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_PIXELS = 1600
DOTS_PER_INCH = 100
COLUMNS = 2
# Blue and grey differ in lightness as well as in hue: they stay apart for every eye, and in print.
OURS = "#0b559f"
THEIRS = "#b9bfc6"
INK = "#1f2328"
# Beyond this ratio of the longest to the shortest bar, a linear axis shows the short ones as nothing.
LINEAR_UP_TO = 12
BAR_INCHES = 0.3
PANEL_INCHES = 1.1


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Draw all works that have figures."""
    works = {key: work for key, work in results["works"].items() if _bars(work)}
    if not works:
        return
    columns = min(COLUMNS, len(works))
    keys = list(works)
    rows = [keys[start : start + columns] for start in range(0, len(keys), columns)]
    heights = [PANEL_INCHES + BAR_INCHES * max(len(_bars(works[key])) for key in row) for row in rows]
    mpl.rcParams.update({"font.size": 10.5, "text.color": INK, "axes.labelcolor": INK, "ytick.color": INK})
    figure = Figure(figsize=(WIDTH_PIXELS / DOTS_PER_INCH, sum(heights)), dpi=DOTS_PER_INCH, layout="constrained")
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
    for down, row in enumerate(rows):
        for across, key in enumerate(row):
            _panel(figure.add_subplot(grid[down, across]), key, works[key])
    figure.savefig(file, facecolor="white")


def _bars(work: Mapping[str, Any]) -> list[tuple[str, bool, list[float]]]:
    """Return name, whether it is ours, and the measured values of each contender that has any."""
    found = []
    for row in work["rows"]:
        values = [figures[work["plot"]] for figures in row["rounds"] if work["plot"] in figures]
        if values and min(values) > 0:
            found.append((row["name"], row["contender"].partition(":")[0] == "jobpool", values))
    return found


def _panel(axes: Axes, key: str, work: Mapping[str, Any]) -> None:
    bars = _bars(work)
    spreads = [spread(values) for _, _, values in bars]
    lengths = [each.median for each in spreads]
    places = range(len(bars))
    logarithmic = max(lengths) > LINEAR_UP_TO * min(lengths)
    start = min(lengths) / 3 if logarithmic else 0.0
    axes.barh(
        places,
        [length - start for length in lengths],
        left=start,
        height=0.72,
        color=[OURS if ours else THEIRS for _, ours, _ in bars],
        xerr=[[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]],
        error_kw={"ecolor": INK, "elinewidth": 1},
    )
    for place, each in zip(places, spreads, strict=True):
        axes.annotate(
            number(each.median), (each.high, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=10
        )
    axes.set_yticks(places, [name for name, _, _ in bars])
    axes.invert_yaxis()
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(start, max(each.high for each in spreads) * (max(lengths) / start) ** 0.18)
    else:
        axes.set_xlim(0, max(each.high for each in spreads) * 1.18)
    scale = " (logarithmic)" if logarithmic else ""
    axes.set_xlabel(work["columns"].get(work["plot"], work["plot"]) + scale)
    axes.set_title(f"{key}: {work['title']}", loc="left", fontweight="bold", fontsize=11.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x", color="#e6e8eb")
    axes.set_axisbelow(True)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
