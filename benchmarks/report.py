"""What is left of a run: results.json, from which everything else follows, table.md and plot.png."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import Verdict
from benchmarks.measure import ROOT, Figures, Row, spread

RESULTS = "results.json"
TABLE = "table.md"
PLOT = "plot.png"
SCHEMA = 1
# Whole numbers below the one are counts; below the other, three decimals hold too few digits that mean something.
COUNTED = 1_000
SMALL = 0.1


def keep(output: Path, key: str, work: Mapping[str, Any], machine: Mapping[str, str]) -> None:
    """Put what a work gave in the place of what it gave before; write all files anew."""
    file = output / RESULTS
    former: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    works = dict(sorted((former.get("works", {}) | {key: dict(work)}).items()))
    # The versions of contenders that are not here, whose figures stay, stay with them.
    results = {"schema": SCHEMA, "machine": former.get("machine", {}) | dict(machine), "works": works}
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (output / TABLE).write_text(table(results), encoding="utf-8")
    # In a process of its own: this one must stay small, for the memory of those that it starts is measured. Without the
    # plot's library there is no plot, and the figures are kept all the same.
    if importlib.util.find_spec("matplotlib"):
        subprocess.run([sys.executable, "-m", "benchmarks.plot", file, output / PLOT], check=True, cwd=ROOT)


def goal_entry(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as results.json keeps it."""
    goal, ratio = verdict.goal, verdict.ratio
    return {
        "text": goal.text,
        "at_least": goal.at_least,
        "at_most": goal.at_most,
        "unit": goal.unit,
        "ratio": None if ratio is None else [ratio.median, ratio.low, ratio.high],
        "met": verdict.met,
    }


def table(results: Mapping[str, Any]) -> str:
    """Return the whole report in Markdown: the goals, then every work."""
    parts = [machine_line(results["machine"]), goals_table(results["works"])]
    parts += [work_table(key, work) for key, work in results["works"].items()]
    return "\n\n".join(parts) + "\n"


def machine_line(machine: Mapping[str, str]) -> str:
    """Return what the figures were taken on and with, and how to read them."""
    known = "; ".join(f"{name} {value}" for name, value in machine.items())
    return f"Medians (lowest to highest) of the rounds, all contenders in turn. {known}."


def goals_table(works: Mapping[str, Any]) -> str:
    """Return what was to be shown, and whether it was."""
    lines = ["| work | goal | measured: median (lowest to highest) | met |", "|---|---|---:|---|"]
    for key, work in works.items():
        for number_of_goal, goal in enumerate(work["goals"]):
            shown = "not measured"
            if goal["ratio"] is not None:
                median, low, high = goal["ratio"]
                shown = spread_text(median, low, high, goal["unit"])
            met = {True: "yes", False: "**NO**", None: "open"}[goal["met"]]
            title = f"{key}: {work['title']}" if not number_of_goal else ""
            lines.append(f"| {title} | {goal['text']} | {shown} | {met if not work['quick'] else 'quick run'} |")
    return "\n".join(lines)


def work_table(key: str, work: Mapping[str, Any]) -> str:
    """Return the contenders of one work; below them, why some have no figure."""
    rows: Sequence[Row] = work["rows"]
    columns = {
        name: heading
        for name, heading in work["columns"].items()
        if any(name in figures for row in rows for figures in row["rounds"])
    }
    with_tasks = any(row["tasks"] for row in rows)
    headings = ["", *(["tasks"] if with_tasks else []), *columns.values()]
    lines = [f"### {key}: {work['title']}" + (" (quick run: the figures mean nothing)" if work["quick"] else ""), ""]
    lines += [f"| {' | '.join(headings)} |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    for row in rows:
        tasks = [f"{row['tasks']:,}" if row["tasks"] else ""] if with_tasks else []
        figures = [_cell(row["rounds"], name) for name in columns]
        if columns and not row["rounds"]:
            figures[0] = "not measured"
        lines.append(f"| {' | '.join([row['name'], *tasks, *figures])} |")
    reasons = [f"- Not measured: {row['name']}: {' '.join(row['failed'].split())}" for row in rows if row["failed"]]
    return "\n".join([*lines, *(["", *reasons] if reasons else [])])


def _cell(rounds: Sequence[Figures], name: str) -> str:
    values = [figures[name] for figures in rounds if name in figures]
    if not values:
        return ""
    found = spread(values)
    return spread_text(found.median, found.low, found.high)


def spread_text(median: float, low: float, high: float, unit: str = "") -> str:
    """Return a median with its spread, if there is any: "1.23 s (1.20 to 1.31)"."""
    shown = number(median)
    ends = number(low), number(high)
    middle = f"{shown} {unit}" if unit else shown
    return middle if ends == (shown, shown) else f"{middle} ({ends[0]} to {ends[1]})"


def number(value: float) -> str:
    """Return a figure with three digits that mean something, two of a small one; counts of a few as they are."""
    size = abs(value)
    if size < COUNTED and value == int(value):
        return str(int(value))
    if size < SMALL:
        return f"{value:.2g}"
    if size >= 1_000:  # noqa: PLR2004 - the third digit is before the point
        digits = len(str(int(size))) - 3
        return f"{round(value, -digits):,.0f}"
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3  # noqa: PLR2004 - three digits
    return f"{value:.{decimals}f}"
