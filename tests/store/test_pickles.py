from __future__ import annotations

import dataclasses
import enum
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli.store.values.pickles import own_or_copy, pickled, runs_as_main, unpickled
from tests.helpers import imports_undone


@pytest.fixture(autouse=True)
def _imports_undone() -> Iterator[None]:
    with imports_undone():
        yield


@dataclasses.dataclass
class Point:
    x: int


class Colour(enum.Enum):
    RED = 1


def module_function(x: int) -> int:
    return x


def passed_on(value: object, folder: Path, code: str, path: str = "") -> str:
    """Return what a process prints that has ``value`` and, on its path, one folder besides jobpool's."""
    (folder / "value.pickle").write_bytes(pickled(value))
    script = (
        "import sys; from pathlib import Path\nfrom jobpool_cli.store.values.pickles import unpickled\n"
        f"value = unpickled(Path({str(folder / 'value.pickle')!r}).read_bytes())\n{code}"
    )
    root = str(Path(__file__).parents[2])
    environment = {"PYTHONPATH": f"{path}:{folder}/lib" if path else f"{folder}/lib", "PATH": ""}
    (folder / "lib").mkdir(exist_ok=True)
    (folder / "lib" / "jobpool_cli").symlink_to(f"{root}/jobpool_cli")
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, cwd=folder
    ).stdout


@pytest.mark.parametrize(
    "value", [Point(1), Colour.RED, [Point(2), Point(3)], Point, module_function, {"a": Colour.RED}]
)
def test_what_the_reader_s_modules_define_is_the_reader_s_own(value: Any) -> None:
    again = unpickled(pickled(value))
    assert again == value
    assert type(again) is type(value)


def test_plain_values_and_those_of_libraries_stay_plain_pickles() -> None:
    for value in ([1, "a"], {"a": b"b"}, pickle.PickleBuffer, Path("a"), complex(1, 2)):
        assert pickled(value) == pickle.dumps(value, protocol=5)


@pytest.mark.parametrize(
    ("value", "check"),
    [
        (Point(5), "assert repr(value) == 'Point(x=5)', value"),
        ([Point(5), Point(6)], "assert type(value[0]) is type(value[1])"),
        (Colour.RED, "assert value is type(value).RED"),
        (lambda x: Point(x + 1), "assert value(1).x == 2"),
        (module_function, "assert value(4) == 4"),
        (Point, "assert value(4).x == 4"),
    ],
)
def test_a_reader_without_the_module_gets_a_copy(tmp_path: Path, value: Any, check: str) -> None:
    assert passed_on(value, tmp_path, f"{check}\nassert 'tests' not in sys.modules\nprint('good')") == "good\n"


def module_of(folder: Path, text: str, name: str = "job_of_pickles") -> Any:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    sys.path.insert(0, str(folder))
    return __import__(name)


CLASS = "class C:\n    def __init__(self, x): self.x = x\n    class Inner: ...\ndef f(): return C(1)\n"


def test_a_reader_that_can_import_the_same_file_gets_its_class(tmp_path: Path) -> None:
    module = module_of(tmp_path / "code", CLASS)
    check = "import job_of_pickles\nprint(type(value) is job_of_pickles.C)"
    assert passed_on(module.C(1), tmp_path, check, str(tmp_path / "code")) == "True\n"


def test_a_module_of_the_same_name_from_another_file_is_not_taken_for_it(tmp_path: Path) -> None:
    module = module_of(tmp_path / "code", CLASS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "job_of_pickles.py").write_text("class C: stranger = True\n")
    check = "import job_of_pickles\nprint(value.x, hasattr(value, 'stranger'))"
    assert passed_on(module.C(1), tmp_path, check, str(tmp_path / "other")) == "1 False\n"


def test_a_module_that_does_not_import_any_more_does_not_keep_its_values_from_being_read(tmp_path: Path) -> None:
    module = module_of(tmp_path / "code", CLASS)
    data_is_made_before = module.C.Inner()
    (tmp_path / "code" / "job_of_pickles.py").write_text("raise SystemExit(3)\n")
    check = "print(type(value).__name__)"
    assert passed_on(data_is_made_before, tmp_path, check, str(tmp_path / "code")) == "Inner\n"


def test_a_class_whose_copy_cannot_be_made_goes_by_its_name(tmp_path: Path) -> None:
    text = "import threading\nLOCK = threading.Lock()\nclass C:\n    def m(self):\n        return LOCK\n"
    module = module_of(tmp_path / "code", text)
    data = pickled(module.C())
    assert type(unpickled(data)) is module.C
    del sys.modules["job_of_pickles"]
    sys.path.remove(str(tmp_path / "code"))
    with pytest.raises(ImportError, match=r"C of .*job_of_pickles\.py is not to be had here"):
        unpickled(data)


def test_in_a_worker_main_is_the_script_that_submitted_the_pool(tmp_path: Path) -> None:
    file = str(tmp_path / "script.py")
    before = runs_as_main((file, {"Point": Point}))
    try:
        assert own_or_copy("__main__", "Point", file, b"") is Point
        with pytest.raises(ImportError):
            own_or_copy("__main__", "Point", str(tmp_path / "other.py"), b"")
    finally:
        runs_as_main(before)


def local_class() -> type:
    class Local:
        def __init__(self) -> None:
            self.x = 1

    return Local


@pytest.mark.parametrize("make", [local_class, lambda: lambda: 5])
def test_local_classes_and_functions_travel_by_value(make: Callable[[], Any], tmp_path: Path) -> None:
    assert passed_on([make()], tmp_path, "value[0]()\nprint('good')") == "good\n"


def test_a_module_that_takes_the_place_of_another_is_seen(tmp_path: Path) -> None:
    first = module_of(tmp_path / "first", CLASS, "first_job_of_pickles")
    assert pickled(first.C(1)) != pickle.dumps(first.C(1), protocol=5)
    del sys.modules["first_job_of_pickles"]
    # As many modules as before.
    second = module_of(tmp_path / "second", CLASS, "second_job_of_pickles")
    assert pickled(second.C(1)) != pickle.dumps(second.C(1), protocol=5)
