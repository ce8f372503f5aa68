"""Functions given as objects: from scripts, modules, prompts and cells to workers, and what comes back from them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE_SECONDS = 60.0

Script = Callable[..., str]


@pytest.fixture
def python(command_line: tuple[list[str], dict[str, str]], tmp_path: Path) -> Script:
    """Write files, run Python with some of them, and return what it prints; an exit code but 0 is an error."""

    def run(
        files: dict[str, str], *arguments: str, text: str = "", path: Path | None = None, cwd: Path | None = None
    ) -> str:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(textwrap.dedent(content))
        _, environment = command_line
        if path is not None:
            environment = {**environment, "PYTHONPATH": f"{path}:{environment['PYTHONPATH']}"}
        done = subprocess.run(
            [sys.executable, *arguments],
            input=textwrap.dedent(text),
            capture_output=True,
            text=True,
            cwd=cwd or tmp_path,
            env=environment,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


HELPER = """
import helper_of_helper
def add(x): return x + helper_of_helper.K
class Mine(Exception): ...
"""

SCRIPT = """
import dataclasses, functools, math, operator, sys
import jobpool_cli, helper
from jobpool_cli import JobPool

@dataclasses.dataclass
class Point:
    x: int

@jobpool_cli.udf
def point(x):
    if x == 3:
        raise helper.Mine("three")
    return Point(helper.add(x))

@functools.lru_cache
def cached(x):
    import late
    return late.value

def multiplied(by):
    return lambda x: by * x

class Adder:
    def __init__(self, n): self.n = n
    def __call__(self, x): return x + self.n
    def less(self, x): return x - self.n

def results(function, values):
    return jobpool_cli.udf(function).map(values, wait=True, max_workers=1).results()

def check(pool):
    assert pool.success() == {task: Point(task + 10) for task in range(3)}, pool.success()
    (error,) = pool.errors().values()
    assert isinstance(error, helper.Mine), type(error)

if __name__ == "__main__":
    if sys.argv[1:]:
        check(JobPool.open("first"))
    else:
        check(point.map(range(4), name="first", wait=True))
        assert results(cached, [1]) == ["late"]
        assert results(multiplied(5), [1, 2]) == [5, 10]
        assert results(Adder(1), [1]) == [2]
        assert results(Adder(1).less, [1]) == [0]
        assert results(functools.partial(operator.add, 2), [1]) == [3]
        assert results(math.sqrt, [4]) == [2.0]
    print("all is well")
"""


def test_what_a_script_defines_runs_in_workers_and_its_classes_come_back_also_to_a_later_process(
    python: Script, tmp_path: Path
) -> None:
    files = {
        "script.py": SCRIPT,
        "helper.py": HELPER,
        "helper_of_helper.py": "K = 10\n",
        "late.py": "value = 'late'\n",
    }
    assert python(files, "script.py") == "all is well\n"
    assert python({}, "script.py", "again") == "all is well\n"
    # The script as a module of another: the classes are that module's.
    assert python({}, "-c", "import script; script.check(script.JobPool.open('first')); print(1)") == "1\n"
    # Where none of it can be imported, copies come.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shown = python({}, "-c", "import jobpool_cli; print(jobpool_cli.JobPool.open('first').success()[0])", cwd=elsewhere)
    assert shown == "Point(x=10)\n"


def test_retry_runs_the_modules_as_they_were_submitted(python: Script, tmp_path: Path) -> None:
    script = """
        import sys, os, jobpool_cli, near
        def f(x):
            if not os.path.exists("go"):
                raise ValueError(x)
            import near
            return near.value
        if sys.argv[1:]:
            pool = jobpool_cli.JobPool.open("last")
            pool.retry()
            pool.wait()
            print(pool.results())
        else:
            jobpool_cli.udf(f).map([1], wait=True)
    """
    python({"script.py": script, "near.py": "value = 'submitted'\n"}, "script.py")
    (tmp_path / "go").touch()
    assert python({"near.py": "value = 'edited'\n"}, "script.py", "retry") == "['submitted']\n"


PACKAGE = {
    "lib/pack/__init__.py": "",
    "lib/pack/base.py": "class Value:\n    def __init__(self, x): self.x = x\n",
    "lib/pack/deep/work.py": """
        from .. import base
        import beside
        import jobpool_cli
        @jobpool_cli.udf
        def work(x):
            if x < 0:
                raise ValueError("negative")
            return base.Value(beside.twice(x))
        def plain(x: base.Value):
            return type(x) is base.Value
    """,
    "lib/beside.py": "def twice(x): return 2 * x\n",
}


def test_a_function_of_a_package_is_imported_under_its_name_with_relative_imports(
    python: Script, tmp_path: Path
) -> None:
    script = """
        from pack.deep.work import work, plain
        from pack.base import Value
        import jobpool_cli
        pool = work.map([1, 2, -1], wait=True, name="first")
        assert pool.status()["error"] == 1
        first, second = pool.success().values()
        assert type(first) is Value and (first.x, second.x) == (2, 4)
        assert jobpool_cli.udf(plain).map([Value(1)], wait=True).results() == [True]
        print(pool.first_error().remote_traceback)
    """
    shown = python({**PACKAGE, "main.py": script}, "main.py", path=tmp_path / "lib")
    assert f'File "{tmp_path}/lib/pack/deep/work.py", line 8, in work\n    raise ValueError("negative")' in shown
    shutil.rmtree(tmp_path / "lib")
    again = "import jobpool_cli; p = jobpool_cli.JobPool.open('first'); p.retry(); p.wait(); print(p.success()[0].x)"
    assert python({}, "-c", again) == "2\n"


def test_functions_typed_at_a_prompt_or_run_by_exec_or_as_a_module_travel_too(python: Script) -> None:
    text = """
        import jobpool_cli
        class P:
            def __init__(self, x): self.x = x
        @jobpool_cli.udf
        def f(x): return P(x)
        print([type(each) is P for each in f.map([1], wait=True).results()])
        scope = {}
        exec("def g(x): return x + 1", scope)
        print(jobpool_cli.udf(scope["g"]).map([1], wait=True).results())
    """
    assert python({}, "-", text=text) == "[True]\n[2]\n"
    module = """
        from . import near
        import jobpool_cli
        def f(x):
            from .near import g
            return g(x) + near.g(x)
        if __name__ == "__main__":
            print(jobpool_cli.udf(f).map([1], wait=True).results())
    """
    near = "def g(x): return x\n"
    assert python({"pk/__init__.py": "", "pk/run.py": module, "pk/near.py": near}, "-m", "pk.run") == "[2]\n"


ANNOTATED = """
from __future__ import annotations
import dataclasses, enum, functools, typing
from datetime import date
from pathlib import Path
import jobpool_cli, pydantic

class Colour(enum.Enum):
    RED = "red"

@dataclasses.dataclass
class Order:
    day: date
    colour: Colour = Colour.RED

class Model(pydantic.BaseModel):
    where: Path
    next: Model | None = None

class Pair(typing.NamedTuple):
    left: int
    right: date

@functools.singledispatch
def kind(x): return "other"
@kind.register
def _(x: int): return "int"

def f(path: Path, order: Order, model: Model, pair: Pair, colour: Colour):
    assert isinstance(path, Path) and isinstance(order.day, date) and isinstance(model.next.where, Path)
    return [order, model, pair, colour, kind(1), type(model) is Model, order.colour is Colour.RED]

order = Order(date(2020, 1, 2))
row = {"path": "a", "order": {"day": "2020-01-02"}, "model": {"where": "b", "next": {"where": "c"}},
       "pair": (1, "2020-01-02"), "colour": "red"}
(found,) = jobpool_cli.udf(f).map([row], wait=True).results()
assert found == [order, Model(where="b", next={"where": "c"}), Pair(1, date(2020, 1, 2)), Colour.RED, "int", True, True]
given = {**row, "order": order, "model": Model.model_validate(row["model"]), "colour": Colour.RED}
assert jobpool_cli.udf(f).map([given], wait=True).results() == [found]
print("all is well")
"""


def test_annotations_that_are_texts_name_the_same_types_in_a_worker(python: Script) -> None:
    assert python({"script.py": ANNOTATED}, "script.py") == "all is well\n"


CELLS = """
import linecache, jobpool_cli
cell = "def f(x):\\n    return 1 / x\\n"
name = "/tmp/ipykernel_77/123456.py"
linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
exec(compile(cell, name, "exec"))
pool = jobpool_cli.udf(f).map([0], wait=True)
print(pool.manifest.udf)
print(pool.first_log())
"""


def test_tracebacks_of_a_notebook_s_cells_show_their_lines_in_the_log(python: Script) -> None:
    shown = python({}, "-", text=CELLS)
    assert shown.startswith("notebook:f\n")
    assert 'File "/tmp/ipykernel_77/123456.py", line 2, in f\n    return 1 / x\n' in shown


def test_a_module_that_maps_while_it_is_imported_is_refused_instead_of_starting_pools_without_end(
    python: Script, home: Path
) -> None:
    module = "import jobpool_cli\n@jobpool_cli.udf\ndef f(x): return x\npool = f.map([1])\n"
    script = """
        import jobpool_cli
        try:
            import mapping_module
        except jobpool_cli.JobPoolError as error:
            print(error.message, error.hint)
    """
    shown = python({"mapping_module.py": module, "main.py": script}, "main.py")
    assert "mapping_module.py" in shown
    assert "__main__" in shown
    assert list((home / "pools").iterdir()) == []


def test_an_own_module_s_name_never_meets_the_worker_s_modules(python: Script) -> None:
    script = """
        import jobpool_cli, errors, loading
        print(jobpool_cli.udf(errors.f).map([1], wait=True).results())
    """
    files = {"errors.py": "import loading\ndef f(x): return loading.y\n", "loading.py": "y = 5\n", "main.py": script}
    assert python(files, "main.py") == "[5]\n"
