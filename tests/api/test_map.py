from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli import JobPool, udf
from jobpool_cli.errors import ConflictError, InputError, JobPoolError, UsageError
from jobpool_cli.layout import pools_folder
from tests.conftest import ROOT


@udf
def area(width: float, height: float = 2.0) -> float:
    """Be found in this module."""
    return width * height


def test_a_decorated_function_is_still_a_function() -> None:
    assert area(3.0) == 6.0
    assert vars(area)["__name__"] == "area"
    assert area.__doc__ == "Be found in this module."
    assert repr(area) == "<udf area>"
    assert repr(udf()(len)) == "<udf len>"


class Scaled:
    """A class with functions that pools can run."""

    def __init__(self, factor: int) -> None:
        """Keep the factor."""
        self.factor = factor

    @udf
    def times(self, x: int) -> int:
        """Be a method."""
        return self.factor * x

    @udf
    @classmethod
    def named(cls, x: int) -> str:
        """Be a class method."""
        return cls.__name__ * x

    @staticmethod
    @udf
    def plain(x: int) -> int:
        """Be a static method."""
        return x


def test_a_decorated_method_is_still_a_method_and_can_be_mapped() -> None:
    scaled = Scaled(3)
    assert (scaled.times(2), Scaled.times(scaled, 2), Scaled.named(2), scaled.plain(2)) == (6, 6, "ScaledScaled", 2)
    assert scaled.times.map(["2"]).results() == [6]
    assert Scaled.named.map([1]).results() == ["Scaled"]
    assert scaled.plain.map([5]).results() == [5]


@pytest.mark.parametrize("given", [5, "area"])
def test_what_is_no_function_is_refused_where_it_is_decorated(given: Any) -> None:
    with pytest.raises(UsageError, match="takes a function"):
        udf(given)


def test_whole_numbers_and_lengths_of_time_may_be_those_of_other_libraries() -> None:
    np = pytest.importorskip("numpy")
    pool = area.map([1.0], max_workers=np.int64(1), timeout=np.float64(30), wait=True)
    assert (pool.manifest.options.workers, pool.manifest.options.timeout) == (1, 30.0)


def test_options_of_map_reach_the_pool_and_its_description() -> None:
    pool = area.map(
        [1.0],
        name="given",
        max_workers=2,
        n_processes_per_worker=2,
        max_retry=3,
        max_crashes=4,
        timeout=timedelta(minutes=1),
        memory_limit="1G",
        wait=True,
    )
    assert pool.name == "given"
    options = pool.manifest.options
    assert (options.workers, options.processes_per_worker, options.retries, options.max_crashes) == (2, 2, 3, 4)
    assert (options.timeout, options.memory_limit) == (60.0, 2**30)
    assert pool.done()


def test_by_default_there_is_a_worker_for_each_core_and_a_made_up_name() -> None:
    pool = area.map([1.0])
    assert pool.manifest.options.workers == len(os.sched_getaffinity(0))
    assert pool.name == "area-1"
    assert JobPool.list() == ["area-1"]


def test_constants_are_given_by_keyword_and_those_named_like_an_option_by_constants() -> None:
    assert area.map([1.0, 2.0], height=10).results() == [10.0, 20.0]

    def named(x: int, name: str) -> str:
        return name * x

    assert udf(named).map([1, 2], constants={"name": "a"}, name="both").results() == ["a", "aa"]
    assert udf(named).map([{"x": 1, "name": "b"}], name="from-the-table").results() == ["b"]
    with pytest.raises(UsageError, match="option of map") as caught:
        udf(named).map([1], name="c")
    assert "constants={'name'" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_workers": 0}, "max_workers"),
        ({"max_workers": 1.5}, "max_workers"),
        ({"max_workers": 5000}, "at most 1024"),
        ({"n_processes_per_worker": -1}, "n_processes_per_worker"),
        ({"max_retry": -1}, "max_retry"),
        ({"max_crashes": 0}, "max_crashes"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "soon"}, "length of time"),
        ({"timeout": True}, "timeout"),
        ({"memory_limit": "much"}, "size"),
        ({"memory_limit": 0}, "memory_limit"),
        ({"engine": "cloud"}, "engine"),
        ({"name": "../up"}, "name"),
        ({"name": "last"}, "name"),
        ({"height": "wide"}, "height"),
        ({"depth": 3}, "depth"),
        ({"timeout": float("nan")}, "timeout"),
        ({"n_processes_per_worker": None}, "n_processes_per_worker"),
        ({"max_retry": None}, "max_retry"),
        ({"name": 5}, "name"),
        ({"constants": [1]}, "constants"),
        ({"constants": {1: 2}}, "constants"),
        ({"height": 1, "constants": {"height": 2}}, "twice"),
    ],
)
def test_a_mistake_in_an_option_is_told_and_leaves_nothing(
    options: dict[str, object], words: str, own_home: Path
) -> None:
    with pytest.raises(JobPoolError, match=words):
        area.map([1.0], **options)  # type: ignore[arg-type]  # mistakes
    assert not pools_folder(own_home).exists() or not list(pools_folder(own_home).iterdir())


def test_a_value_that_does_not_convert_is_named_by_position_and_nothing_starts(own_home: Path) -> None:
    with pytest.raises(InputError, match="'wide'") as caught:
        area.map([1.0, 2.0, "wide", 4.0])
    assert "2" in str(caught.value)
    assert not pools_folder(own_home).exists() or not list(pools_folder(own_home).iterdir())


def test_a_name_that_is_taken_is_a_conflict() -> None:
    area.map([1.0], name="mine", wait=True)
    with pytest.raises(ConflictError, match="mine"):
        area.map([1.0], name="mine")


def test_the_hint_of_an_error_is_shown_with_it_in_a_python_session() -> None:
    with pytest.raises(UsageError) as caught:
        area.map([1.0], engine="cloud")
    (note,) = caught.value.__notes__
    assert note.startswith("hint: one of local, dask; others are named in ")


def test_no_arguments_make_a_pool_that_is_done_at_once() -> None:
    pool = area.map([])
    assert pool.done()
    assert len(pool) == 0
    assert list(pool) == []
    assert pool.results() == []
    assert pool.all_succeeded()
    assert pool.collect().empty
    assert pool.logs_df().empty
    assert pool.first_error() is None
    assert pool.first_log() is None


def test_an_awaited_map_gives_a_pool(wait_at_gate: Callable[[int], int], gate: Path) -> None:
    import asyncio  # noqa: PLC0415

    gate.touch()
    pool = asyncio.run(udf(wait_at_gate).map_async([1, 2], name="awaited", wait=True))
    assert pool.done()
    assert pool.results() == [1, 2]


def test_a_pool_of_the_command_line_opens_in_python_and_the_other_way_round(
    run: Callable[..., object], udf_file: Callable[..., Path], args_file: Callable[..., Path]
) -> None:
    file = udf_file("def double(x: int) -> int:\n    return 2 * x\n")
    run("map", file, args_file("x\n1\n2\n"), "--name", "by-command", "--wait", code=0)
    assert JobPool.open("by-command").results() == [2, 4]
    area.map([1.0, 2.0], name="by-python", wait=True)
    shown = run("status", "by-python", "--json", code=0)
    assert '"success": 2' in shown.stdout  # type: ignore[attr-defined]
    shown = run("results", "by-python", code=0)
    assert shown.stdout == "0\t2.0\n1\t4.0\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("way", "head"),
    [
        ("a relative PYTHONPATH", ""),
        ("sys.path alone", f"import sys; sys.path.append({str(ROOT)!r})\n"),
        ("the folder that was left", "import sys; sys.path.append('.')\n"),
    ],
)
def test_workers_find_jobpool_however_this_process_came_by_it(way: str, head: str, tmp_path: Path) -> None:
    script = tmp_path / "found.py"
    script.write_text(
        f"{head}import jobpool_cli, os\nos.chdir({str(tmp_path)!r})\n"
        "assert jobpool_cli.udf(lambda x: x + 1).map([1]).results() == [2]\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if way == "a relative PYTHONPATH":
        environment["PYTHONPATH"] = "."
        script.write_text(script.read_text().replace("os.chdir", "(lambda _: None)"))
    subprocess.run([sys.executable, script], cwd=ROOT, env=environment, check=True, timeout=60)


def test_the_traceback_of_a_refusal_or_of_a_task_s_error_shows_little_of_our_own_code() -> None:
    pool = udf(lambda x: 1 / x).map([0])
    for call, kind in ((lambda: area.map("text"), InputError), (pool.results, ZeroDivisionError)):
        with pytest.raises(kind) as caught:
            call()
        ours = [frame for frame in traceback.extract_tb(caught.tb) if "jobpool_cli" in frame.filename]
        assert len(ours) <= 3
