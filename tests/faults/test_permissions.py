"""A pool that others were let into, code that was altered, and the rights with which files come into the world."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli.errors import DamagedPoolError, MachineError, PoolWarning
from jobpool_cli.pool import JobPool
from jobpool_cli.store.ownership import check_alone
from jobpool_cli.store.snapshot import MANIFEST, read_snapshot, snapshot_files
from jobpool_cli.store.state.reader import StateReader
from jobpool_cli.store.state.writer import StateWriter
from tests.faults.harness import SQUARE, Faults
from tests.faults.injection import need
from tests.faults.ledger import scaled

FAILING = "def f(x: int):\n    _audit()\n    if x == 1: raise ValueError(x)\n    return {x}\n"
WAITING = "def f(x: int) -> int:\n    _audit()\n    _wait_for('go')\n    return x * x\n"

# Where others are let in, relative to the pool.
OPENED: dict[str, Callable[[Path], Path]] = {
    "the pool's folder": lambda root: root,
    "pool.json": lambda root: root / "pool.json",
    "the home": lambda root: root.parent.parent,
    "the folder of all pools": lambda root: root.parent,
    "the code": lambda root: next((root / "udf" / "v1").glob("*.py")),
    "the state": lambda root: root / "state.db",
    "the results": lambda root: next((root / "results").iterdir()),
    "a log": lambda root: next((root / "logs").iterdir()),
    "the requests": lambda root: root / "requests",
}


@pytest.mark.scenario(54)
def test_a_pool_that_others_may_write_to_is_read_with_a_warning_and_not_run(faults: Faults) -> None:
    """Scenario 54: chmod 777 on its folder, on a file, on the home: running refused with exit 6, reads warn once."""
    pool = faults.map(FAILING, 3)
    faults.ended(pool)
    for number, (what, where) in enumerate(OPENED.items()):
        path = where(pool.paths.root)
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(0o777)
        faults.injected()
        with pytest.raises(MachineError, match="may be written to by others"):
            check_alone(pool.paths.root)
        for act in (pool.retry, pool.results, pool.errors, lambda: pool.debug(0), lambda: pool[0].result):
            with pytest.raises(MachineError, match="chmod"):
                act()
        if number < scaled(1, 100):
            for words in (["retry", "pool"], ["debug", "pool", "0"], ["results", "pool"]):
                said = faults.jobpool(*words, code=6).stderr
                assert "may be written to by others" in said, what
            shown = faults.jobpool("status", "pool")
            assert "pool is done" in shown.stdout
            if number < 4:
                assert shown.stderr.count("jobpool: warning:") == 1, what
        path.chmod(before)
    faults.jobpool("retry", "pool", "--wait", code=1)
    faults.check(pool, oracle=lambda x: {x})


@pytest.mark.scenario(54)
def test_an_interrupted_pool_that_others_may_write_to_does_not_go_on(faults: Faults) -> None:
    """Scenario 54: resume is refused with exit 6, by the supervisor, too; without that right it goes on."""
    pool = faults.map(WAITING, 3)
    faults.kill_supervisor(pool)
    (pool.paths.udf / "v1").chmod(0o770)
    faults.injected()
    assert "may be written to by others" in faults.jobpool("resume", "pool", code=6).stderr
    # `cancel` starts a supervisor where none lives, which looks for itself.
    assert "may be written to by others" in faults.jobpool("cancel", "pool", code=6).stderr
    assert not pool.is_live()
    (pool.paths.udf / "v1").chmod(0o700)
    for left in pool.paths.requests.iterdir():
        left.unlink()
    faults.release("go")
    faults.finish(pool)
    faults.check(pool)


@pytest.mark.scenario(54)
def test_a_pool_that_others_were_let_into_can_still_be_stopped(faults: Faults) -> None:
    """Scenario 54: cancel and shutdown of a pool that runs are no reason to refuse."""
    pool = faults.map(WAITING, 30)
    pool.paths.root.chmod(0o777)
    faults.injected()
    faults.jobpool("cancel", "pool")
    faults.release("go")
    faults.ended(pool)
    pool.paths.root.chmod(0o700)
    faults.check(pool)


@pytest.mark.scenario(54)
def test_a_reader_is_warned_in_python_too(faults: Faults) -> None:
    """Scenario 54: a PoolWarning; none where nobody else may write."""
    pool = faults.map(SQUARE, 1)
    faults.ended(pool)
    pool.paths.args.chmod(0o620)
    faults.injected()
    with pytest.warns(PoolWarning, match=r"args\.parquet may be written to by others"):
        JobPool(pool.paths.root)
    pool.paths.args.chmod(0o644)  # read by others: their own affair
    JobPool(pool.paths.root)
    faults.check(pool)


# --- the code


@pytest.mark.scenario(54)
def test_code_that_was_altered_is_not_run(faults: Faults) -> None:
    """Scenario 54: a snapshot altered or shortened: exit 5 for retry, debug and resume; restored, it runs again."""
    pool = faults.map(FAILING.replace("return {x}", "return x * x"), 3)
    faults.ended(pool)
    (code,) = (pool.paths.udf / "v1").glob("*.py")
    original = code.read_bytes()
    for number, content in enumerate([original + b"#", original[:-5], b"", None]):
        code.unlink()
        if content is not None:
            code.write_bytes(content)
            code.chmod(0o600)
        faults.injected()
        for act in (pool.retry, lambda: pool.debug(0)):
            with pytest.raises(DamagedPoolError, match="snapshot of the code"):
                act()
        if number < scaled(1, 4):
            faults.jobpool("retry", "pool", code=5)
            faults.jobpool("debug", "pool", "0", code=5)
        assert not pool.is_live()
    code.unlink(missing_ok=True)
    code.write_bytes(original)
    faults.jobpool("retry", "pool", "--wait", code=1)
    faults.check(pool)


@pytest.mark.scenario(54)
def test_an_interrupted_pool_whose_code_was_altered_does_not_go_on(faults: Faults) -> None:
    """Scenario 54: resume exits 5."""
    pool = faults.map(WAITING, 2)
    faults.kill_supervisor(pool)
    (code,) = (pool.paths.udf / "v1").glob("*.py")
    original = code.read_bytes()
    code.write_bytes(original.replace(b"x * x", b"x + x"))
    faults.injected()
    assert "altered" in faults.jobpool("resume", "pool", code=5).stderr
    code.write_bytes(original)
    faults.release("go")
    faults.finish(pool)
    faults.check(pool)


@pytest.mark.scenario(54)
@pytest.mark.parametrize("name", ["../evil", "/etc", "a/../../b", "..", "a//b", "./a", "a\0b"])
def test_a_snapshot_that_leads_out_of_its_folder_is_damaged(tmp_path: Path, name: str) -> None:
    """Scenario 54: folders and files named with ``..`` or from the root."""
    content: dict[str, Any] = {
        "version": 1, "kind": "file", "path": "/x/job.py", "function": "f", "module": "", "sha256": "0",
        "created": "2026-01-01T00:00:00+00:00", "roots": {name: "/x"}, "sys_path": [], "lines": {}, "main": "",
        "python": "", "cloudpickle": "", "files": {name: "0" * 64},
    }  # fmt: skip
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    for read in (read_snapshot, snapshot_files):
        with pytest.raises(DamagedPoolError):
            read(tmp_path)


# --- rights from the first moment

# strace's lines: 12 openat(AT_FDCWD, "/x/y", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 5
MADE = re.compile(
    r'(?:openat|open|creat|mkdir|mkdirat)\((?:AT_FDCWD, |\d+, )?"([^"]*)"(?:, [A-Z_|]*O_CREAT[A-Z_|]*)?, '
    r"(0\d*)(?:\)| <unfinished)"
)
CHANGED = re.compile(r'f?chmod(?:at)?\((?:AT_FDCWD, )?(?:"[^"]*"|\d+), (0\d*)')


@pytest.mark.scenario(54)
def test_files_are_private_from_their_first_moment(faults: Faults) -> None:
    """Scenario 54: under umask 000 no call makes anything under the home that others may read, not for a moment."""
    need("strace")
    log = faults.folder / "trace"
    calls = "trace=open,openat,creat,mkdir,mkdirat,chmod,fchmod,fchmodat"
    words = ["sh", "-c", 'umask 000; exec strace -f -qq -s 500 -e signal=none -e "$0" -o "$@"', calls, str(log)]
    faults.jobpool("map", faults.write(FAILING), faults.rows(3), "--name", "pool", "--wait", code=1, prefix=words)
    faults.injected()
    pool = faults.open()
    faults.ended(pool)
    made = [(path, int(mode, 8)) for path, mode in MADE.findall(log.read_text())]
    ours = [(path, mode) for path, mode in made if path.startswith(str(faults.home))]
    assert len(ours) > 12, "strace saw nothing"
    # What is opened once more by its name (SQLite always says how it would make a file) was made before.
    first = {os.path.basename(path): mode for path, mode in reversed(ours)}
    assert not {name: oct(mode) for name, mode in first.items() if mode & 0o077}
    assert not [mode for mode in CHANGED.findall(log.read_text()) if int(mode, 8) & 0o077]
    _check_modes(faults.home)
    faults.check(pool, oracle=lambda x: {x})


@pytest.mark.scenario(54)
@pytest.mark.parametrize("umask", [0o000, 0o777, 0o277])
def test_rights_do_not_depend_on_the_umask(faults: Faults, umask: int) -> None:
    """Scenario 54: 0600 and 0700 under a umask that gives everything and one that takes everything."""
    before = os.umask(umask)
    try:
        udf, table = faults.folder / "job.py", faults.folder / "a.csv"
        os.umask(0o022)
        faults.write(SQUARE), faults.rows(2, "a.csv")
        os.umask(umask)
        faults.jobpool("map", udf, table, "--name", "pool")
    finally:
        os.umask(before)
    faults.injected()
    faults.ended(faults.open())
    _check_modes(faults.home)
    faults.check(faults.open(), audit=None)


def _check_modes(home: Path) -> None:
    for path in (home, *home.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), (path, oct(mode))


@pytest.mark.scenario(54)
def test_the_state_database_is_opened_without_trust_in_its_schema(faults: Faults) -> None:
    """Scenario 54: no function in a view or trigger of a foreign database runs."""
    pool = faults.map(SQUARE, 1)
    faults.ended(pool)
    faults.injected()
    for opened in (StateReader(pool.paths.state_db), StateWriter(pool.paths.state_db)):
        assert opened._connection.execute("PRAGMA trusted_schema").fetchone() == (0,)
        opened.close()
    faults.check(pool)
