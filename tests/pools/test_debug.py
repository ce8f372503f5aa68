"""One task in the foreground: the pool's own code and arguments, and neither the pool nor the process is changed."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import linecache
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import jobpool_cli
from jobpool_cli import JobPool
from jobpool_cli.errors import InputError, MachineError
from tests.conftest import Run
from tests.helpers import Bench, imports_undone, until


@pytest.fixture(autouse=True)
def _imports_undone() -> Iterator[None]:
    with imports_undone():
        yield


def tree_hash(root: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        # SQLite's files of a reader come and go.
        if path.is_file() and not path.name.startswith("state.db-"):
            found.update(str(path).encode() + path.read_bytes())
    return found.hexdigest()


def state_of_process() -> tuple[object, ...]:
    """What a user of this process would miss; libraries that were imported meanwhile may stay."""
    modules = {name: module for name, module in sys.modules.items() if name.endswith("_job")}
    lines = {name for name in linecache.cache if name.endswith("_job.py")}
    return (os.getcwd(), list(sys.path), list(sys.meta_path), modules, lines, jobpool_cli.current_task())


BODY = """
import near_job
class Mine(Exception): ...
def f(x):
    if x == 2:
        raise Mine(near_job.value)
    task = jobpool_cli.current_task()
    return [x, near_job.value, task.pool, task.task, task.attempt, os.getcwd()]
"""


@pytest.fixture
def pool(bench: Bench) -> JobPool[object]:
    (bench.folder / "near_job.py").write_text("value = 'submitted'\n")
    pool = bench.map(BODY, 3)
    pool.wait()
    until(lambda: not pool.is_live())
    (bench.folder / "near_job.py").write_text("value = 'edited'\n")
    return pool


def test_a_task_runs_here_with_the_pool_s_code_arguments_and_folder_and_changes_nothing(pool: JobPool[object]) -> None:
    before, process = tree_hash(pool.paths.root), state_of_process()
    assert pool.debug(1) == [1, "submitted", "pool", 1, 1, pool.manifest.folder]
    with pytest.raises(Exception, match="submitted") as caught:
        pool.debug(2)
    assert type(caught.value).__name__ == "Mine"
    frames = caught.traceback
    assert [frame.name for frame in frames][-1] == "f"
    assert (tree_hash(pool.paths.root), state_of_process()) == (before, process)


def test_the_code_is_what_a_retry_would_run(pool: JobPool[object], bench: Bench) -> None:
    pool.retry(udf=bench.write("def f(x): return -x\n", "mended_job.py"))
    pool.wait()
    assert pool.debug(2) == -2


def test_a_working_folder_that_is_gone_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.folder / "away").mkdir()
    monkeypatch.chdir(bench.folder / "away")
    pool = bench.map("def f(x): return x\n", 1)
    pool.wait()
    monkeypatch.chdir(bench.folder)
    (bench.folder / "away").rmdir()
    with pytest.raises(MachineError, match="working folder cannot be entered"):
        pool.debug(0)


def module_of(folder: Path, text: str) -> ModuleType:
    folder.mkdir(exist_ok=True)
    (folder / "debugged_job.py").write_text(text)
    sys.path.insert(0, str(folder))
    return importlib.import_module("debugged_job")


MODULE = """
import jobpool_cli
COUNT = []
class Value:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return type(other) is Value and other.x == self.x
class Mine(Exception): ...
@jobpool_cli.udf
def f(x):
    COUNT.append(x)
    if x == 1:
        raise Mine("one")
    return [Value(x)]
"""


def test_results_and_exceptions_are_of_the_caller_s_classes_and_its_modules_keep_their_state(
    bench: Bench, home: Path, tmp_path: Path
) -> None:
    del bench
    module = module_of(tmp_path / "code", MODULE)
    pool = module.f.map([0, 1], home=str(home), wait=True)
    assert pool.debug(0) == [module.Value(0)]
    with pytest.raises(module.Mine, match="one"):
        pool.debug(1)
    assert module.COUNT == []
    assert sys.modules["debugged_job"] is module


def test_a_pickled_function_does_not_change_the_caller_s_classes(home: Path) -> None:
    @dataclasses.dataclass
    class Inner:
        x: int

        def doubled(self) -> int:
            return 2 * self.x

    method = Inner.doubled
    pool = jobpool_cli.udf(lambda x: Inner(x).doubled()).map([4], home=str(home), wait=True)
    assert pool.debug(0) == 8
    assert Inner.doubled is method


def test_code_that_does_not_load_any_more_is_an_input_error(pool: JobPool[object], bench: Bench) -> None:
    pool.retry(
        udf=bench.write("import os\nif os.path.exists('gone'): raise ValueError\ndef f(x): return 1\n", "a_job.py")
    )
    pool.wait()
    (bench.folder / "gone").touch()
    pool.manifest = pool.manifest._replace(folder=str(bench.folder))
    with pytest.raises(InputError, match="cannot be imported: ValueError"):
        pool.debug(0)


def test_the_command_shows_the_call_the_result_and_the_users_traceback(
    run: Run, udf_file: Callable[..., Path], args_file: Callable[..., Path]
) -> None:
    text = """
        def f(x, y):
            print("printed", flush=True)
            if x == 1:
                raise ValueError(y)
            return {"x": x}
    """
    run("map", udf_file(text), args_file("x,y\n0,a\n1,b\n"), "--name", "p", "--wait", code=1)
    done = run("debug", "p", "0", code=0)
    assert done.stdout == "printed\n{'x': 0}\n"
    assert done.stderr.startswith("f(x=0, y='a')\nreturned after ")
    failed = run("debug", "p", "1", code=1)
    assert failed.stdout == "printed\n"
    head, trace = failed.stderr.split("Traceback (most recent call last):\n")
    assert "raised ValueError after" in head
    assert trace.startswith('  File "')
    assert "udf.py" in trace.splitlines()[0]
    assert trace.endswith("ValueError: b\n")
    debugger = run("debug", "p", "1", "--pdb", input="p y\nq\n", code=1)
    assert "'b'" in debugger.stdout
    assert run("debug", "p", "2").returncode == 2
