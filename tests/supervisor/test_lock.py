from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobpool_cli.errors import ConflictError
from jobpool_cli.supervisor.lock import PoolLock, is_held
from tests.helpers import until

HOLDER = """
import sys
from pathlib import Path
from jobpool_cli.supervisor.lock import PoolLock
lock = PoolLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_is_held_once_and_free_after_release(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    lock = PoolLock(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_held(path)
    with pytest.raises(ConflictError, match="worked on already"):
        PoolLock(path)
    # Asking, and being refused, took nothing from the holder.
    assert is_held(path)
    lock.release()
    assert not is_held(path)
    PoolLock(path).release()


def test_the_kernel_frees_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_held(path)
        with pytest.raises(ConflictError):
            PoolLock(path)
        holder.kill()
        holder.wait(10)
        assert not is_held(path)


def test_closing_other_descriptors_of_the_file_does_not_lose_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = PoolLock(path)
    os.close(os.open(path, os.O_RDWR))
    path.read_bytes()
    assert is_held(path)
    lock.release()


def test_a_program_that_is_started_does_not_inherit_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = PoolLock(path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as child:
        lock.release()
        # The kernel closes the child's copy within its exec, a moment after we hear that it began.
        until(lambda: not is_held(path), 5.0)
        child.kill()


def test_a_symlink_planted_as_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        PoolLock(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()
