"""Pools of another user: theirs are not read or steered, and root runs nothing of theirs."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobpool_cli.errors import MachineError
from jobpool_cli.pool import JobPool
from tests.faults.harness import ROOT, SQUARE, Faults
from tests.faults.injection import as_user, need
from tests.faults.ledger import scaled

SOMEONE = "nobody"
# A result that is a pickle, and that shows when it is loaded.
TELLING = """
class Telling:
    def __reduce__(self):
        return (os.system, (f"touch {{FOLDER}}/unpickled-by-$(id -un)",))

def f(x: int):
    _audit()
    if x == 1:
        raise ValueError(x)
    return Telling()
""".replace("{{", "{").replace("}}", "}")


@pytest.fixture
def shared() -> Iterator[Faults]:
    """Faults in a folder that every user may enter."""
    need(root=True)
    need("setpriv")
    folder = Path(tempfile.mkdtemp(prefix="jobpool-faults-"))
    folder.chmod(0o755)
    made = Faults(folder, 53)
    if not os.access(ROOT, os.R_OK) or not all(each.stat().st_mode & 0o001 for each in (ROOT, *ROOT.parents)):
        pytest.skip("other users cannot read jobpool itself here")
    yield made
    made.close()
    shutil.rmtree(folder)


def _tree(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((os.fspath(each), each.lstat().st_mode, each.lstat().st_mtime_ns) for each in folder.rglob("*"))


@pytest.mark.scenario(53)
def test_another_user_can_neither_read_nor_steer_a_pool(shared: Faults) -> None:
    """Scenario 53: another user: every verb exits 6 and says whose the pool is; nothing changes."""
    pool = shared.map(SQUARE, 2)
    shared.ended(pool)
    prefix = as_user(SOMEONE, [])
    # As jobpool makes them; then with a home that others may look into, as it is where many share one.
    for opened in ((), (shared.home, shared.home / "pools")):
        for folder in opened:
            folder.chmod(0o755)
        before = _tree(shared.home)
        verbs = [
            ["status", "pool"], ["rm", "--force", "pool"], ["cancel", "pool"], ["results", "pool"], ["list"],
            ["logs", "pool"], ["collect", "pool"], ["resume", "pool"], ["retry", "pool"], ["debug", "pool", "0"],
        ]  # fmt: skip
        for words in scaled(verbs[:2], verbs):
            if words == ["list"] and opened:
                continue  # it lists what it sees, and that this one cannot be read
            said = shared.jobpool(*words, code=6, prefix=prefix).stderr
            shared.injected()
            assert "may not be read: it belongs to user root" in said
        assert _tree(shared.home) == before
    shared.check(pool)


@pytest.mark.scenario(53)
def test_root_reads_what_another_user_has_and_runs_nothing_of_it(shared: Faults) -> None:
    """Scenario 53: root: state can be read; no code runs, no pickle is loaded, nothing is steered: exit 6."""
    someone = pwd.getpwnam(SOMEONE)
    pool = shared.map(TELLING, 3)
    shared.ended(pool)
    for path in (shared.home, *shared.home.rglob("*")):
        os.chown(path, someone.pw_uid, someone.pw_gid)
    shared.injected()
    for words in scaled([["status"]], [["status"], ["list"], ["tasks"], ["errors"], ["args"], ["logs"]]):
        shared.jobpool(*words, *([] if words == ["list"] else ["pool"]))
    verbs = (
        ["results", "pool"], ["debug", "pool", "0"], ["rm", "--force", "pool"], ["retry", "pool"],
        ["collect", "pool", "--ignore-exceptions"],
    )  # fmt: skip
    for words in scaled(verbs[:1], verbs):
        said = shared.jobpool(*words, code=6).stderr
        assert f"belongs to user {SOMEONE}" in said
    for act in (
        pool.results, pool.errors, pool.success, pool.arg_df, pool.logs_df, pool.retry, pool.remove,
        lambda: pool[0].result, lambda: pool.debug(0), lambda: pool.gather(ignore_exceptions=True),
        lambda: [each.result for each in pool],
    ):  # fmt: skip
        with pytest.raises(MachineError, match=f"belongs to user {SOMEONE}"):
            act()
        shared.injected()
    assert pool.paths.root.exists()
    assert not list(shared.folder.glob("unpickled-by-root*"))
    assert {each.stat().st_uid for each in pool.paths.root.rglob("*")} == {someone.pw_uid}, "root left files there"


@pytest.mark.scenario(53)
def test_a_pool_in_a_home_of_somebody_else_is_not_made(shared: Faults) -> None:
    """Scenario 53: whoever owns the home could exchange the pool; so none is made there, also not by root."""
    someone = pwd.getpwnam(SOMEONE)
    home = shared.folder / "theirs"
    home.mkdir(mode=0o700)
    os.chown(home, someone.pw_uid, someone.pw_gid)
    shared.injected()
    said = shared.jobpool("map", shared.write(SQUARE), shared.rows(1), code=6, home=home).stderr
    assert f"belongs to user {SOMEONE}" in said
    assert not list(home.glob("pools/*"))


@pytest.mark.scenario(53)
def test_ones_own_pickles_are_loaded(shared: Faults) -> None:
    """Scenario 53: the sample does what it says: without this test the others could pass for nothing."""
    pool = shared.map(TELLING, 1)
    shared.ended(pool)
    JobPool(pool.paths.root).results()
    assert list(shared.folder.glob("unpickled-by-*"))
