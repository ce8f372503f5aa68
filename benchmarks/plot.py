"""The plot of a run: a panel for each work, a bar for each contender, jobpool's in a colour of its own."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.panels import Panel, panels
from benchmarks.report import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

WIDTH_PIXELS = 1600
# Many, and so large letters: pages show the plot at little more than half its width.
DOTS_PER_INCH = 125
COLUMNS = 2
TITLE_LETTERS = 66
# Blue, grey and red differ in lightness as well as in hue: they stay apart for every eye, and in print.
OURS = "#0b559f"
THEIRS = "#b9bfc6"
GOAL = "#c8441b"
INK = "#1f2328"
# Beyond this ratio of the longest to the shortest bar, a linear axis shows the short ones as nothing.
LINEAR_UP_TO = 20
BAR_INCHES = 0.27
AXIS_INCHES = 0.75
TITLE_LINE_INCHES = 0.24
HEAD_INCHES, FOOT_INCHES = 0.75, 0.1


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Draw all works that have figures."""
    columns = _in_columns(panels(results["works"]))
    if not columns:
        return
    mpl.rcParams.update({"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "ytick.color": INK})
    heights = [sum(map(_inches, column)) for column in columns]
    below = max(heights) + FOOT_INCHES
    width, height = WIDTH_PIXELS / DOTS_PER_INCH, HEAD_INCHES + below
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    head, body = figure.subfigures(2, 1, height_ratios=[HEAD_INCHES, below])
    _head(head, results)
    for part, column, used in zip(body.subfigures(1, len(columns), squeeze=False)[0], columns, heights, strict=True):
        # What is left of a column stays empty: all bars are of the same height.
        ratios = [*map(_inches, column), below - used]
        places = part.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)
        for place, panel in zip(places[:-1, 0], column, strict=True):
            _panel(place, panel)
    figure.savefig(file, facecolor="white")


def _in_columns(every: Sequence[Panel]) -> list[list[Panel]]:
    """Put each panel in the column that ends highest, in order."""
    columns: list[list[Panel]] = [[] for _ in range(min(COLUMNS, len(every)))]
    for panel in every:
        min(columns, key=lambda column: sum(map(_inches, column))).append(panel)
    return columns


def _lines(panel: Panel) -> list[str]:
    return textwrap.wrap(panel.title, TITLE_LETTERS)


def _title_inches(panel: Panel) -> float:
    # A goal's text stands between the title and the bars.
    return TITLE_LINE_INCHES * (len(_lines(panel)) + (0.5 if panel.goal is None else 1.2))


def _inches(panel: Panel) -> float:
    return _title_inches(panel) + BAR_INCHES * len(panel.bars) + AXIS_INCHES


def _head(place: SubFigure, results: Mapping[str, Any]) -> None:
    machine = results["machine"]
    quick = any(work["quick"] for work in results["works"].values())
    place.text(0.012, 0.62, "jobpool and its peers on the same work", fontsize=15, fontweight="bold", va="center")
    said = f"{machine.get('processor', '')}, cores: {machine.get('cores', '')}; Python {machine.get('Python', '')}"
    text = "Bars: medians of rounds in turn; thin lines: lowest to highest. " + said
    place.text(0.012, 0.2, "QUICK RUN: THE FIGURES MEAN NOTHING" if quick else text, fontsize=10, va="center")


def _panel(place: SubFigure, panel: Panel) -> None:
    inches = _inches(panel)
    title = "\n".join(_lines(panel))
    place.text(0.025, 1 - 0.08 / inches, title, fontsize=11.5, fontweight="bold", va="top", linespacing=1.15)
    top = 1 - _title_inches(panel) / inches
    bottom = (AXIS_INCHES - 0.05) / inches
    axes = place.add_axes((0.44, bottom, 0.53, top - bottom))
    _draw_bars(axes, panel)
    better = "less is better" if panel.less_is_better else "more is better"
    scale = ", logarithmic" if axes.get_xscale() == "log" else ""
    axes.set_xlabel(f"{panel.label} ({better}{scale})", x=1, ha="right")


def _draw_bars(axes: Axes, panel: Panel) -> None:
    spreads = [bar.length for bar in panel.bars]
    lengths = [each.median for each in spreads]
    places = range(len(spreads))
    logarithmic = not panel.linear and max(lengths) > LINEAR_UP_TO * min(lengths)
    start = min(lengths) / 3 if logarithmic else 0.0
    axes.barh(
        places,
        [length - start for length in lengths],
        left=start,
        height=0.74,
        color=[OURS if bar.ours else THEIRS for bar in panel.bars],
        xerr=[[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]],
        error_kw={"ecolor": INK, "elinewidth": 1},
    )
    for place, each in zip(places, spreads, strict=True):
        axes.annotate(
            number(each.median),
            (each.high, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    end = max(each.high for each in spreads)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(start, end * (end / start) ** 0.22)
        axes.xaxis.set_major_locator(LogLocator(numticks=9))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, max(end * 1.2, (panel.goal or 0) * 1.05))
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    if panel.goal is not None:
        axes.axvline(panel.goal, color=GOAL, linestyle=(0, (4, 2)), linewidth=1.5)
        axes.annotate(
            f"goal: {panel.goal:g}",
            (panel.goal, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            color=GOAL,
            fontsize=9,
        )
    axes.set_yticks(places, [bar.name for bar in panel.bars])
    for label, bar in zip(axes.get_yticklabels(), panel.bars, strict=True):
        label.set_fontweight("bold" if bar.ours else "normal")
    axes.set_ylim(len(spreads) - 0.5, -0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x", color="#e6e8eb")
    axes.set_axisbelow(True)


def _short(value: float, _place: int | None = None) -> str:
    """Return an axis's number with few letters: 1M, 10k, 0.25."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.12g}{letter}"
    return f"{value:.12g}"


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
