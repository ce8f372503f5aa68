"""Who takes part in a work, by which name, and why some do not."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import contest, environment, peers
from benchmarks.measure import Context
from benchmarks.works import a_trivial, b_millisecond, c_uneven


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("executor:chunksize=100", "ProcessPoolExecutor, chunksize 100"),
        ("joblib_loky", "joblib (loky)"),
        ("dask_local", "Dask distributed, one task each"),
        ("hyperqueue_local", "HyperQueue, shell one-liners"),
        ("gnu_parallel:task=python", "GNU parallel, Python scripts"),
    ],
)
def test_a_contender_s_name_says_what_it_runs(key: str, name: str) -> None:
    assert contest.label(key) == name


@pytest.mark.parametrize("work", [a_trivial, b_millisecond, c_uneven], ids=lambda work: work.KEY)
def test_all_contenders_are_peers_and_goals_name_contenders(work: Any) -> None:
    assert {key.partition(":")[0] for key in work.CONTENDERS} == set(peers.names())
    assert len({contest.label(key) for key in work.CONTENDERS}) == len(work.CONTENDERS)
    ones = dict.fromkeys(["rate", "map_rate", "map_seconds", *work.COLUMNS], 1.0)
    for goal in work.GOALS:
        goal.ratio(dict.fromkeys(work.CONTENDERS, ones))


def test_a_peer_without_its_program_or_package_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _package: None)
    work: Any = SimpleNamespace(CONTENDERS={"gnu_parallel": 5, "ray_local": 7}, QUICK_TASKS=6)
    context = Context(Path("python"), ("jobpool",), tmp_path, rounds=1, quick=True, workers=2)
    rows = contest.compete(context, "none", work, [])
    assert [(row["tasks"], row["rounds"], row["failed"]) for row in rows] == [
        (5, [], "there is no `parallel` on this machine"),
        (6, [], "the Python package `ray` is not installed"),
    ]
    assert environment.lacking("executor") == ""
