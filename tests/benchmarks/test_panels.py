"""What the plot shows."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from benchmarks.__main__ import DEFAULT_COLUMNS, modules
from benchmarks.measure import Row
from benchmarks.panels import VIEWS, panels


def _row(contender: str, *walls: float) -> Row:
    name = contender.upper() if contender != "jobpool" else "jobpool map --wait"
    return Row(contender=contender, name=name, tasks=1, rounds=[{"wall": wall} for wall in walls], failed="")


def _work(*rows: Row) -> dict[str, Any]:
    return {"title": "Some work", "columns": {"wall": "seconds"}, "plot": "wall", "rows": rows}


def test_the_best_stands_first_and_jobpool_is_told_apart() -> None:
    rows = [_row("slow", 3, 4, 5), _row("gone"), _row("jobpool", 1, 2, 3)]
    (more,) = panels({"x": _work(*rows)})
    assert [(bar.name, bar.ours, bar.length.median) for bar in more.bars] == [
        ("SLOW", False, 4),
        ("jobpool map --wait", True, 2),
    ]
    assert (more.title, more.label) == ("x: Some work", "seconds")
    (less,) = panels({"g": _work(*rows)})
    assert [bar.ours for bar in less.bars] == [True, False]


def test_a_panel_of_ratios_takes_them_within_a_round() -> None:
    # The machine was three times as fast in the second round.
    (panel,) = panels({"h": _work(_row("python", 3, 1), _row("jobpool:list", 12, 4))})
    assert [bar.length.median for bar in panel.bars] == [1, 4]
    assert panel.bars[1].length.low == panel.bars[1].length.high
    assert panel.bars[1].ours


def test_a_work_without_figures_has_no_panel() -> None:
    assert panels({"x": _work(_row("gone"))}) == []


@pytest.mark.parametrize("module", modules().values())
def test_every_view_is_of_figures_that_its_work_shows(module: str) -> None:
    work = importlib.import_module(f"benchmarks.works.{module}")
    columns = getattr(work, "COLUMNS", DEFAULT_COLUMNS)
    assert {view.figure for view in VIEWS.get(work.KEY, []) if view.figure} <= columns.keys()
    assert getattr(work, "PLOT", next(iter(columns))) in columns
