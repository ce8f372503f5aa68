from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from jobpool_cli.layout import TEMPORARY_PREFIX
from jobpool_cli.store import durable


def test_files_and_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        durable.make_folder(tmp_path / "folder")
        durable.write_new(tmp_path / "file", b"x")
        durable.write_whole(tmp_path / "whole", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "whole")} == {0o600}


def test_nothing_is_written_over_or_through_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "link").symlink_to("target")
    for name in ("target", "link"):
        with pytest.raises(FileExistsError):
            durable.write_new(tmp_path / name, b"x")
        with pytest.raises(FileExistsError):
            durable.make_folder(tmp_path / name)
    assert (tmp_path / "target").read_text() == "precious"


def test_replacing_a_link_leaves_its_target_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "link").symlink_to("target")
    durable.write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_text() == "precious"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "file").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        durable.write_whole(tmp_path / "file", b"new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "old"}


def test_data_is_on_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(fd: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def note_replace(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    durable.write_whole(tmp_path / "file", b"data")
    assert steps == ["file", "rename", "folder"]


def test_all_temporaries_are_swept_and_nothing_else(tmp_path: Path) -> None:
    temporary = durable.temporary_beside(tmp_path / "kept")
    assert temporary.name.startswith(TEMPORARY_PREFIX)
    durable.write_new(temporary, b"")
    durable.write_new(tmp_path / "kept", b"")
    (tmp_path / f"{TEMPORARY_PREFIX}folder" / "below").mkdir(parents=True)
    (tmp_path / "folder").mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}link").symlink_to(tmp_path / "folder")
    durable.remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "kept"]
