from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from jobpool_cli.layout import TEMPORARY_PREFIX
from jobpool_cli.store import durable, requests


def test_requests_are_found_in_the_order_in_which_they_were_posted(tmp_path: Path) -> None:
    posted = [requests.post(tmp_path, action, {"n": n}) for n, action in enumerate(("pause", "retry", "cancel") * 5)]
    assert [requests.read(path) for path in requests.waiting(tmp_path)] == posted


def test_a_request_is_private_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    requests.post(tmp_path, "cancel", {})
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_half_written_requests_and_other_files_are_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY_PREFIX}x.json").write_text("{")
    (tmp_path / "note.txt").write_text("hello")
    assert requests.waiting(tmp_path) == []
    assert requests.waiting(tmp_path / "none") == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"action": 3}', b"\xff\xfe", b"null"])
def test_what_is_no_request_is_refused_with_a_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"\w"):
        requests.read(tmp_path / "1.json")


def test_a_link_a_folder_and_a_giant_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text('{"action": "cancel"}')
    (tmp_path / "link.json").symlink_to("real.json")
    (tmp_path / "folder.json").mkdir()
    with (tmp_path / "giant.json").open("wb") as file:
        os.truncate(file.fileno(), requests.LARGEST_BYTES + 1)
    for name in ("link", "folder", "giant"):
        with pytest.raises(ValueError, match=r"not a plain file|too large"):
            requests.read(tmp_path / f"{name}.json")


def test_a_withdrawn_request_is_gone_and_may_have_been_gone_before(tmp_path: Path) -> None:
    request = requests.post(tmp_path, "cancel", {})
    requests.withdraw(tmp_path, request)
    requests.withdraw(tmp_path, request)
    assert requests.waiting(tmp_path) == []


def test_a_supervisor_that_sweeps_the_folder_does_not_make_a_post_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = durable.publish
    swept = threading.Event()

    def sweep_first(temporary: Path, path: Path) -> None:
        if not swept.is_set():
            swept.set()
            durable.remove_temporaries(tmp_path)
        publish(temporary, path)

    monkeypatch.setattr(durable, "publish", sweep_first)
    request = requests.post(tmp_path, "cancel", {})
    assert [requests.read(path) for path in requests.waiting(tmp_path)] == [request]


def test_posting_into_a_pool_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        requests.post(tmp_path / "gone", "cancel", {})
