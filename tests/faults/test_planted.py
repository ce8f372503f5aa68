"""Symbolic links where jobpool is about to write: none is followed, and nothing behind it changes."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobpool_cli.errors import MachineError
from jobpool_cli.pool import JobPool
from jobpool_cli.store.ownership import follow
from tests.faults.harness import SQUARE, Faults
from tests.faults.injection import need
from tests.faults.ledger import scaled

INSIDE = (
    "lock", "slots", "state.db", "state.db-wal", "pool.json", "args.parquet", "supervisor.log", "constants",
    "logs", "requests", "results", "udf", "udf/v1", "logs/worker-0001.log", "logs/worker-0002.log",
    "results/segment-000001.parquet", "udf/v1/pool_job.py",
)  # fmt: skip
# Verbs that write, or run code.
VERBS = (
    ("resume",),
    ("retry",),
    ("cancel",),
    ("debug",),
    ("status",),
    ("collect", "--ignore-exceptions"),
    ("rm", "--yes"),
)


class Victim:
    """A file and a folder that nothing may change."""

    def __init__(self, folder: Path) -> None:
        """Make both."""
        self.file = folder / "victim"
        self.folder = folder / "victims"
        self.missing = folder / "not there"
        self.file.write_text("precious")
        self.file.chmod(0o640)
        self.folder.mkdir()
        (self.folder / "file").write_text("precious")
        self._before = self._look()

    def _look(self) -> list[object]:
        stats = [path.lstat() for path in (self.file, self.folder, *sorted(self.folder.iterdir()))]
        contents = [self.file.read_bytes(), (self.folder / "file").read_bytes()]
        return [*((each.st_ino, each.st_mode, each.st_uid, each.st_mtime_ns) for each in stats), *contents]

    def check(self) -> None:
        """Make sure that nothing has changed, and nothing been made."""
        assert self._look() == self._before
        assert not os.path.lexists(self.missing)

    def targets(self) -> list[Path]:
        """What a link may lead to."""
        return [self.file, self.folder, self.missing]


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    """Something precious; checked at the end once more."""
    folder = tmp_path / "precious"
    folder.mkdir()
    made = Victim(folder)
    yield made
    made.check()


@pytest.mark.scenario(52)
def test_a_link_in_the_place_of_a_pool_is_no_pool(faults: Faults, victim: Victim) -> None:
    """Scenario 52: the pool's folder planted as a link, also a dangling one: exit 6, target unchanged."""
    udf, table = faults.write(SQUARE), faults.rows(1)
    pools = faults.home / "pools"
    pools.mkdir(parents=True, mode=0o700)
    faults.home.chmod(0o700)
    for target in scaled(victim.targets()[1:], victim.targets()):
        (pools / "pool").symlink_to(target)
        faults.injected()
        said = faults.jobpool("map", udf, table, "--name", "pool", code=6).stderr
        assert "is a symbolic link" in said
        with pytest.raises(MachineError, match="is a symbolic link"):
            JobPool.open("pool", home=str(faults.home))
        with contextlib.suppress(MachineError):
            JobPool.remove_remains("pool", home=str(faults.home), force=True)
        victim.check()
        assert [each.name for each in pools.iterdir()] == ["pool"]
        (pools / "pool").unlink()


@pytest.mark.scenario(52)
def test_a_pool_with_a_link_in_it_is_not_used(faults: Faults, victim: Victim) -> None:
    """Scenario 52: lock, log, slots, requests, results, code and all else as a link: exit 6, target unchanged."""
    body = "def f(x: int) -> int:\n    _audit()\n    if x == 1: raise ValueError\n    return x * x\n"
    pool = faults.map(body, 3)
    faults.ended(pool)
    aside = faults.folder / "aside"
    for number, inside in enumerate(INSIDE):
        # What has nothing to do is said before the whole of the pool is looked at.
        verbs = [verb for verb in VERBS if verb[0] in {"retry", "debug", "collect"} or not inside.count("/")]
        path = pool.paths.root / inside
        there = path.exists()
        if there:
            path.rename(aside)
        for target in scaled([victim.targets()[number % 3]], victim.targets()):
            path.symlink_to(target)
            faults.injected()
            with pytest.raises(MachineError, match=r"is a symbolic link|is not used"):
                JobPool(pool.paths.root).gather(ignore_exceptions=True)
            for verb, *more in scaled(verbs[:1] if number % 6 == 0 else [], verbs if target == victim.file else []):
                words = [verb, "pool", *more, *(["0"] if verb == "debug" else [])]
                assert "is a symbolic link" in faults.jobpool(*words, code=6).stderr
            victim.check()
            path.unlink()
        if there:
            aside.rename(path)
    faults.jobpool("retry", "pool", "--wait", code=1)
    faults.check(pool)


@pytest.mark.scenario(52)
def test_a_link_among_the_requests_is_removed_and_not_followed(faults: Faults, victim: Victim) -> None:
    """Scenario 52: a request planted as a link while the supervisor works: ignored, the target unchanged."""
    pool = faults.map("def f(x: int) -> int:\n    _audit()\n    _wait_for('go')\n    return x * x\n", 2)
    for number, target in enumerate(victim.targets()):
        (pool.paths.requests / f"{number}.json").symlink_to(target)
    faults.injected(3)
    faults.until(lambda: not list(pool.paths.requests.iterdir()), what="the links are gone")
    victim.check()
    faults.release("go")
    faults.check(pool)


# --- links of the user's own, and of others


@pytest.fixture
def sticky(tmp_path: Path) -> Path:
    """A folder like /tmp, in which everybody may put something."""
    need(root=True)
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def _planted(link: Path, target: Path) -> Path:
    """Let another user put a link there."""
    link.symlink_to(target)
    someone = pwd.getpwnam("nobody")
    os.lchown(link, someone.pw_uid, someone.pw_gid)
    return link


@pytest.mark.scenario(52)
def test_a_home_that_is_a_link_of_ones_own_works_and_one_of_somebody_else_does_not(
    faults: Faults, victim: Victim, sticky: Path
) -> None:
    """Scenario 52: JOBPOOL_HOME on a larger disk by a link is normal; planted by another user it is refused."""
    udf, table = faults.write(SQUARE), faults.rows(2)
    disk = faults.folder / "disk"
    disk.mkdir(mode=0o700)
    own = faults.folder / "own"
    own.symlink_to(disk)
    faults.jobpool("map", udf, table, "--name", "pool", "--wait", home=own)
    assert faults.jobpool("results", "pool", home=own).stdout == "0\t0\n1\t1\n"
    faults.check(faults.open("pool", home=own))
    for number, target in enumerate([disk, victim.folder, victim.missing]):
        home = _planted(sticky / f"home-{number}", target)
        faults.injected()
        assert "symbolic link" in faults.jobpool("map", udf, table, "--name", "other", code=6, home=home).stderr
        with pytest.raises(MachineError, match="user nobody has put there"):
            JobPool.open("pool", home=str(home))
    assert [each.name for each in (disk / "pools").iterdir()] == ["pool"]
    (sticky / "home").mkdir(mode=0o700)
    _planted(sticky / "home" / "pools", victim.folder)
    faults.injected()
    faults.jobpool("map", udf, table, code=6, home=sticky / "home")


@pytest.mark.scenario(52)
def test_output_goes_through_a_link_of_ones_own_and_through_no_other(
    faults: Faults, victim: Victim, sticky: Path
) -> None:
    """Scenario 52: ``collect -o`` onto a link that somebody else planted: exit 6, target unchanged."""
    pool = faults.map(SQUARE, 2)
    faults.ended(pool)
    real = faults.folder / "real.csv"
    real.write_text("old")
    own = faults.folder / "latest.csv"
    own.symlink_to("real.csv")
    faults.jobpool("collect", "pool", "-o", own)
    assert own.is_symlink()
    assert real.read_text() == "x,result\n0,0\n1,1\n"
    for number, target in enumerate(scaled([victim.file], [victim.file, victim.missing])):
        planted = _planted(sticky / f"out-{number}.csv", target)
        faults.injected()
        said = faults.jobpool("collect", "pool", "-o", planted, code=6).stderr
        assert "a symbolic link that user nobody has put there" in said
        victim.check()
    through = faults.folder / "through.csv"
    through.symlink_to(_planted(sticky / "second.csv", victim.file))
    faults.injected()
    faults.jobpool("collect", "pool", "-o", through, code=6)
    faults.check(pool)


@pytest.mark.scenario(52)
@pytest.mark.parametrize("prepare", [lambda path: path.symlink_to(path.name), lambda path: path.symlink_to("a")])
def test_links_in_a_circle_are_told_from_links_that_lead_somewhere(
    tmp_path: Path, prepare: Callable[[Path], None]
) -> None:
    """Scenario 52: a link to itself is an error, a dangling one leads to what is not there yet."""
    link = tmp_path / "link"
    prepare(link)
    if os.readlink(link) == "link":
        with pytest.raises(MachineError, match="circle"):
            follow(link)
    else:
        assert follow(link) == tmp_path / "a"
