from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.store.snapshot import MANIFEST, read_snapshot, snapshot_files, take_snapshot, verify_snapshot


def project(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "udf.py"


def files_taken(tmp_path: Path, files: dict[str, str]) -> set[str]:
    take_snapshot(project(tmp_path / "code", files), "f", tmp_path / "pool" / "v1", 1)
    return set(snapshot_files(tmp_path / "pool" / "v1")) - {"udf.py"}


def test_what_is_written_down_is_read_again(tmp_path: Path) -> None:
    path = project(tmp_path / "code", {"udf.py": "def f(x): return x\n"})
    source = take_snapshot(path, "f", tmp_path / "udf" / "v3", 3)
    assert (source.version, source.path, source.function) == (3, str(path), "f")
    assert read_snapshot(tmp_path / "udf" / "v3") == source
    assert (tmp_path / "udf" / "v3" / "udf.py").read_text() == "def f(x): return x\n"
    assert (tmp_path / "udf" / "v3").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "udf" / "v3" / "udf.py").stat().st_mode & 0o777 == 0o600


def test_siblings_are_taken_however_they_are_imported(tmp_path: Path) -> None:
    assert files_taken(
        tmp_path,
        {
            "udf.py": "import os, a\nfrom b import x\ndef f():\n    import c.d.e\n    from g import h\n",
            "a.py": "import indirect\n",
            "b.py": "",
            "c/d/e.py": "",
            "g/h.py": "import udf\n",
            "indirect.py": "from b import *\n",
            "unrelated.py": "",
            "data.txt": "",
        },
    ) == {"a.py", "b.py", "c/d/e.py", "g/h.py", "indirect.py"}


def test_a_package_is_taken_whole_with_what_its_modules_import(tmp_path: Path) -> None:
    assert files_taken(
        tmp_path,
        {
            "udf.py": "from package import thing\n",
            "package/__init__.py": "",
            "package/deep/__init__.py": "from .. import other\nfrom . import x\nfrom ...... import nothing\n",
            "package/other.py": "import helper\n",
            "package/__pycache__/other.py": "",
            "package/.hidden/x.py": "",
            "helper.py": "",
        },
    ) == {"package/__init__.py", "package/deep/__init__.py", "package/other.py", "helper.py"}


def test_a_sibling_that_does_not_parse_is_taken_as_it_is(tmp_path: Path) -> None:
    assert files_taken(tmp_path, {"udf.py": "def f():\n    import broken\n", "broken.py": "def ("}) == {"broken.py"}


def test_altered_or_lost_code_is_noticed(tmp_path: Path) -> None:
    path = project(tmp_path / "code", {"udf.py": "import a\n", "a.py": ""})
    folder = tmp_path / "v1"
    take_snapshot(path, "f", folder, 1)
    verify_snapshot(folder)
    (folder / "a.py").write_text("x = 1\n")
    with pytest.raises(DamagedPoolError, match=r"altered.*a\.py"):
        verify_snapshot(folder)
    (folder / "a.py").unlink()
    with pytest.raises(DamagedPoolError, match=r"lost a file.*a\.py"):
        verify_snapshot(folder)


def test_a_manifest_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedPoolError, match="cannot be read"):
        read_snapshot(tmp_path)
    for text in ("no json", "[]", "{}", json.dumps({"files": {"../x.py": ""}})):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(DamagedPoolError):
            read_snapshot(tmp_path)
        with pytest.raises(DamagedPoolError):
            verify_snapshot(tmp_path)
