"""What travels to the function: values as they were given, each its own task's affair."""

from __future__ import annotations

import dataclasses
import decimal
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from jobpool_cli import JobPool, udf
from jobpool_cli.errors import InputError
from tests.conftest import ROOT


@dataclasses.dataclass(frozen=True)
class Point:
    """A class that this module has."""

    x: int
    y: int


def same(x: Any) -> Any:
    """Return what it is given."""
    return x


VALUES = [
    1, -(2**70), True, None, 0.1, float("inf"), -0.0, "text", "\ud800", b"bytes", (1, [2, {"a": 3}]),
    frozenset({1}), decimal.Decimal("1.10"), Path("a/b"), Point(1, 2), np.float32(0.5),
    pd.Timestamp("2026-01-01", tz="UTC"),
]  # fmt: skip


def test_values_of_any_kind_come_to_the_function_and_back_as_they_were() -> None:
    found = udf(same).map(VALUES).results()
    assert [(type(each), each) for each in found] == [(type(each), each) for each in VALUES]


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=[7, 8]),
        pa.table({"a": [1, 2], "b": ["x", "y"]}),
        pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
        [{"a": 1, "b": "x"}, {"b": "y", "a": 2}],
    ],
    ids=["pandas", "arrow", "polars", "dicts"],
)
def test_a_row_of_a_table_is_a_call(table: Any) -> None:
    assert udf(lambda a, b: (a, b)).map(table).results() == [(1, "x"), (2, "y")]


@pytest.mark.parametrize(
    "values",
    [(1, 2), range(1, 3), np.array([1, 2]), pd.Series([1, 2], index=["p", "q"]), iter([1, 2]), {1: 0, 2: 0}.keys()],
    ids=["tuple", "range", "array", "series", "generator", "keys"],
)  # fmt: skip
def test_each_value_of_an_iterable_is_a_call(values: Any) -> None:
    assert udf(lambda x: x).map(values).results() == [1, 2]


@pytest.mark.parametrize(
    ("values", "instead"),
    [
        ("text", r"\[.*text|list"),
        ({"x": 1}, r"\[|list"),
        ({1, 2}, "sorted"),
        ([{"x": 1}, 2], "dict"),
        (5, r"\["),
        (None, "list"),
        (b"x", r"list|\["),
    ],
    ids=["text", "dict", "set", "mixed", "scalar", "none", "bytes"],
)
def test_what_is_no_collection_of_arguments_is_refused_and_the_hint_says_what_to_write(
    values: Any, instead: str
) -> None:
    with pytest.raises(InputError) as caught:
        udf(same).map(values)
    assert caught.value.hint
    assert re.search(instead, f"{caught.value.message} {caught.value.hint}")


class Explosive:
    """Loads once, where it is checked, and not where it is used."""

    def __init__(self, path: str) -> None:
        """Leave a mark when it is loaded."""
        self.path = path

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Refuse in any process but the one that made it."""
        import os  # noqa: PLC0415

        if state["path"] != str(os.getpid()):
            raise RuntimeError("this value does not load here")
        self.__dict__.update(state)


def test_a_value_that_does_not_load_in_a_worker_costs_its_own_task_alone() -> None:
    values: list[Any] = [Path("a")] * 3000
    values[1500] = Explosive(str(os.getpid()))
    pool = udf(lambda x: x is not None).map(values)
    pool.wait()
    assert pool.success() == {task: True for task in range(3000) if task != 1500}
    (error,) = pool.errors().values()
    assert "this value does not load here" in str(error)


def test_a_large_constant_is_stored_once_and_is_the_same_object_for_all_tasks_of_a_worker() -> None:
    table = np.arange(1_000_000)
    pool = udf(lambda x, table: (int(table[x]), id(table))).map(range(20), table=table, max_workers=1)
    found = pool.results()
    assert [value for value, _ in found] == list(range(20))
    assert len({identity for _, identity in found}) == 1
    size = sum(path.stat().st_size for path in pool.paths.root.rglob("*") if path.is_file())
    assert size < 2 * len(pickle.dumps(table))


def test_objects_index_what_is_collected_as_themselves() -> None:
    pool: JobPool[int] = udf(lambda p: p.x).map([Point(1, 2), Point(3, 4)])
    frame = pool.collect()
    assert frame.index.tolist() == [Point(1, 2), Point(3, 4)]
    assert frame["result"].tolist() == [1, 3]


def test_classes_with_slots_of_a_script_come_back_as_the_script_s_own(tmp_path: Path) -> None:
    script = tmp_path / "slots.py"
    script.write_text(
        "import dataclasses\n"
        "from jobpool_cli import udf\n"
        "@dataclasses.dataclass(slots=True)\n"
        "class Plain:\n    a: int\n"
        "@dataclasses.dataclass(slots=True, frozen=True)\n"
        "class Frozen:\n    a: int\n"
        "class Derived(Plain):\n    __slots__ = ('b',)\n"
        "def both(x):\n    return [x, Plain(7)]\n"
        "given = [Plain(1), Frozen(2), Derived(3)]\n"
        "found = udf(both).map(given, name='slots').results()\n"
        "assert [(type(own), own) for own, _ in found] == [(type(each), each) for each in given], found\n"
        "assert [made for _, made in found] == [Plain(7)] * 3\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, script], check=True, env=environment, timeout=60)
    # Where there is no such script, there are copies, with slots of their own.
    ((own, _), *_) = JobPool.open("slots").results()
    assert own.a == 1
    assert not hasattr(own, "__dict__")
