from __future__ import annotations

import json
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobpool_cli.errors import DamagedPoolError, InputError
from jobpool_cli.store.snapshot import read_snapshot, take_snapshot
from jobpool_cli.worker.function import LocatedUdf, locate_udf
from jobpool_cli.worker.loading import load_snapshot


@pytest.fixture(autouse=True)
def _imports_undone() -> Iterator[None]:
    modules, path, finders = dict(sys.modules), list(sys.path), list(sys.meta_path)
    yield
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.path[:], sys.meta_path[:] = path, finders


def located(folder: Path, text: str, name: str = "", file: str = "job.py") -> LocatedUdf:
    (folder / file).write_text(text)
    return locate_udf(f"{folder / file}{name and ':'}{name}")


def refusal(folder: Path, text: str, name: str = "") -> InputError:
    with pytest.raises(InputError) as caught:
        located(folder, text, name)
    return caught.value


DECORATED = """
class Udf:
    __jobpool_udf__ = True
    def __init__(self, function):
        self.__wrapped__ = function
def udf(function):
    return Udf(function)
def helper(x):
    return x
@udf
def work(x):
    return 2 * x
"""


def test_the_only_public_function_is_taken(tmp_path: Path) -> None:
    found = located(
        tmp_path, "from os.path import join\nimport json\ndef _private(): ...\ndef f(x): return x + 1\ng = f\n"
    )
    assert (found.path, found.name, found.function(1)) == (tmp_path / "job.py", "f", 2)


def test_the_decorated_function_comes_before_others_and_is_unwrapped(tmp_path: Path) -> None:
    found = located(tmp_path, DECORATED)
    assert (found.name, found.function(4)) == ("work", 8)
    assert located(tmp_path, DECORATED, "helper").function(4) == 4


def test_a_function_that_a_decorator_wrapped_is_a_function(tmp_path: Path) -> None:
    found = located(tmp_path, "import functools\n@functools.lru_cache\ndef f(x): return x\n")
    assert found.function(3) == 3


def test_several_candidates_are_listed_as_they_can_be_typed(tmp_path: Path) -> None:
    error = refusal(tmp_path, "def f(x): ...\ndef g(x): ...\n")
    assert "2 public functions: f, g" in error.message
    assert "job.py:f, job.py:g" in error.hint
    assert "2 functions decorated with @udf" in refusal(tmp_path, DECORATED + "other = udf(helper)\n").message
    assert "defines no public function" in refusal(tmp_path, "x = 1\n").message


@pytest.mark.parametrize(
    ("text", "name", "message", "hint"),
    [
        ("def f(x): ...\n", "ff", "has no function ff", "job.py:f"),
        ("class C: ...\n", "C", "is a class", "calls C"),
        ("x = 1\n", "x", "is a int", ""),
        ("async def f(x): ...\n", "", "is an async function", "asyncio.run"),
        ("def f(x): yield x\n", "", "is a generator", "list"),
        ("def f(x)\n    pass\n", "", "job.py:1: expected ':'\n    def f(x)", "syntax"),
        ("import sys\nsys.exit(3)\n", "", "exit code 3", "__main__"),
        ("import not_there\n", "", "No module named 'not_there'", "install not_there"),
        ("def f(): ...\n", "a-b", "'a-b' is not a Python name", "FILE.py:NAME"),
        ("def f(): ...\n\0", "", "is not Python source|null byte", ""),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_way_on(
    tmp_path: Path, text: str, name: str, message: str, hint: str
) -> None:
    error = refusal(tmp_path, text, name)
    assert any(each in error.message for each in message.split("|"))
    assert hint in error.hint


def test_an_error_while_importing_shows_the_users_lines_only(tmp_path: Path) -> None:
    message = refusal(tmp_path, "def g():\n    return 1 / 0\n\ng()\n").message
    assert "ZeroDivisionError: division by zero" in message
    assert "line 2, in g" in message
    assert "function.py" not in message
    assert "job" not in sys.modules


def test_a_file_that_maps_while_it_is_imported_is_refused_in_few_words(tmp_path: Path) -> None:
    error = refusal(tmp_path, "import jobpool_cli\n@jobpool_cli.udf\ndef f(x): return x\nf.map([1])\n")
    assert "job.py calls map() while" in error.message
    assert "Traceback" not in error.message
    assert "__main__" in error.hint


def test_files_that_are_not_there_are_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "flights.py").write_text("")
    with pytest.raises(InputError, match="there is no file") as caught:
        locate_udf(str(tmp_path / "fligths.py:f"))
    assert "flights.py" in caught.value.hint
    with pytest.raises(InputError, match="is a folder"):
        locate_udf(str(tmp_path))
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(InputError, match=r"does not end in \.py"):
        locate_udf(str(tmp_path / "x.txt"))


def test_a_script_sees_its_siblings_and_does_not_run_its_main_part(tmp_path: Path) -> None:
    (tmp_path / "sibling_of_job.py").write_text("y = 5\n")
    text = "from sibling_of_job import y\ndef f(x): return x + y\nif __name__ == '__main__': raise SystemExit\n"
    path = list(sys.path)
    assert located(tmp_path, text).function(1) == 6
    assert sys.path == path


def test_what_a_file_prints_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    located(tmp_path, "print('hello')\ndef f(): ...\n")
    assert capsys.readouterr() == ("", "hello\n")


def test_dataclasses_and_odd_file_names_work(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass C:\n    x: int\ndef f(x): return C(x)\n"
    )
    for file in ("my-job.py", "json.py", "2024.py", "job.py"):
        assert located(tmp_path, text, file=file).function(1).x == 1
    assert json.loads("1") == 1


def test_two_files_of_one_name_may_follow_each_other(tmp_path: Path) -> None:
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        assert located(tmp_path / folder, f"def f(): return {value}\n").function() == value


def snapshot(tmp_path: Path, files: dict[str, str]) -> tuple[Path, Path]:
    code = tmp_path / "code"
    for name, text in files.items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text(text)
    take_snapshot(code / "job.py", "f", tmp_path / "v1", 1)
    return code, tmp_path / "v1"


SIBLINGS = {
    "job.py": "import os\nimport near_job\nfrom pack_job import part\n"
    "def f(x):\n    import late_job as late\n"
    "    return near_job.g(x), part.__file__, near_job.__file__, __file__, late.z\n",
    "near_job.py": "def g(x):\n    if x < 0:\n        raise ValueError(x)\n    return x\n",
    "pack_job/__init__.py": "",
    "pack_job/part.py": "from . import more\n",
    "pack_job/more.py": "",
    "late_job.py": "z = 'as submitted'\n",
}


def test_a_snapshot_runs_as_submitted_under_the_paths_that_the_user_knows(tmp_path: Path) -> None:
    code, folder = snapshot(tmp_path, SIBLINGS)
    for name in SIBLINGS:
        (code / name).write_text("raise RuntimeError('edited since')\n")
    (code / "data_job.py").write_text("v = 1\n")
    function = load_snapshot(folder, read_snapshot(folder))
    paths = [str(code / name) for name in ("pack_job/part.py", "near_job.py", "job.py")]
    assert function(1) == (1, *paths, "as submitted")
    try:
        function(-1)
    except ValueError as error:
        text = "".join(traceback.format_exception(error))
    assert f'File "{code / "near_job.py"}", line 3, in g\n    raise ValueError(x)' in text
    assert f'File "{code / "job.py"}", line 6, in f\n    return near_job.g(x)' in text
    assert "edited since" not in text
    # What the snapshot does not hold is found in the original folder.
    assert __import__("data_job").v == 1


def test_a_snapshot_runs_when_the_original_is_gone(tmp_path: Path) -> None:
    code, folder = snapshot(tmp_path, SIBLINGS)
    for name in SIBLINGS:
        (code / name).unlink()
    assert load_snapshot(folder, read_snapshot(folder))(1)[0] == 1


def test_another_version_of_the_code_brings_its_own_siblings(tmp_path: Path) -> None:
    files = {"job.py": "import near_job\ndef f(): return near_job.v\n", "near_job.py": "v = 1\n"}
    code, first = snapshot(tmp_path, files)
    old = load_snapshot(first, read_snapshot(first))
    path = list(sys.path)
    (code / "near_job.py").write_text("v = 2\n")
    take_snapshot(code / "job.py", "f", tmp_path / "v2", 2)
    new = load_snapshot(tmp_path / "v2", read_snapshot(tmp_path / "v2"))
    assert (old(), new()) == (1, 2)
    assert len(sys.path) == len(path)


def test_a_snapshot_that_lost_its_file_is_damaged(tmp_path: Path) -> None:
    _, folder = snapshot(tmp_path, {"job.py": "def f(): ...\n"})
    (folder / "job.py").unlink()
    with pytest.raises(DamagedPoolError, match=r"job\.py"):
        load_snapshot(folder, read_snapshot(folder))


def test_what_a_worker_pickles_is_found_where_the_file_was_located(tmp_path: Path) -> None:
    code, folder = snapshot(tmp_path, {"job.py": "class Mine(Exception): ...\ndef f(): return Mine('x')\n"})
    script = (
        "import pickle, sys; from pathlib import Path\n"
        "from jobpool_cli.store.snapshot import read_snapshot\nfrom jobpool_cli.worker.loading import load_snapshot\n"
        f"folder = Path({str(folder)!r})\n"
        "sys.stdout.buffer.write(pickle.dumps(load_snapshot(folder, read_snapshot(folder))()))"
    )
    data = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    located_udf = locate_udf(str(code / "job.py"))
    assert type(pickle.loads(data)) is type(located_udf.function())
