"""Loss of power: what was shown before is on the disk, at whatever moment it happens."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli.layout import TEMPORARY_PREFIX, pools_folder
from jobpool_cli.model import PoolState
from jobpool_cli.pool import JobPool
from tests.faults import ledger
from tests.faults.harness import SQUARE, Faults, slow_square
from tests.faults.injection import strace_on
from tests.faults.power import Disk, after_the_loss, disk
from tests.helpers import square, succeeded, supervisors

# Beyond what is sealed at once, and one that its worker writes as a segment, so that cuts fall into sealing.
LARGE = """
import random
def f(x: int) -> bytes:
    _audit()
    time.sleep(0.03)
    if x % 5 == 4:
        raise ValueError(f"no {x}")
    return random.Random(x).randbytes((9 << 20) if x % 50 == 5 else 700_000)
"""


def large(x: int) -> bytes:
    """Return what LARGE does."""
    return random.Random(x).randbytes((9 << 20) if x % 50 == 5 else 700_000)  # noqa: S311 - it only has to be long


@dataclass(frozen=True)
class Cut:
    """One loss of power: the image, and what was shown before it."""

    copy: Path
    shown: frozenset[int]
    """Tasks that were shown as succeeded."""
    must_be_there: bool = True
    """Whether somebody was told that there is a pool."""


def _cut(faults: Faults, machine: Disk, pool: JobPool[Any]) -> Cut:
    shown = faults.look(pool)
    with machine.standing_still():
        # The processes stand still, and nothing more is synced: what they show now is held against them, too.
        shown |= faults.look(pool)
        faults.injected()
        return Cut(machine.cut(), frozenset(shown))


def _check(faults: Faults, cut: Cut, oracle: Callable[[int], object], name: str = "pool") -> None:
    """See what the machine finds when it has its power back."""
    with after_the_loss(cut.copy) as home:
        root = pools_folder(home) / name
        if not root.exists() and not cut.must_be_there:
            faults.jobpool("map", faults.write(SQUARE, "other.py"), faults.rows(3), "--name", "another", home=home)
            pool, oracle = faults.open("another", home=home), square
        else:
            pool = faults.open(name, home=home)
        lost = cut.shown - succeeded(pool)
        ledger.write(faults.scenario, lost=len(lost))
        assert not lost, f"shown as succeeded before the loss of power, and not any more: {sorted(lost)}"
        ran = faults.ran()
        faults.finish(pool)
        again = set(faults.ran() - ran) & cut.shown
        assert not again, f"shown as succeeded before the loss of power, and ran again: {sorted(again)}"
        faults.check(pool, oracle, shown=cut.shown)
        left = [each.name for each in pools_folder(home).iterdir() if each.name.startswith(TEMPORARY_PREFIX)]
        assert not left or pool.name == name, left


@pytest.mark.scenario(6)
def test_the_copy_of_a_disk_has_what_was_synced_and_nothing_else(faults: Faults) -> None:
    """Scenario 6: first the simulation itself: what nobody synced is not in the copy."""
    with disk(faults.folder, megabytes=16) as machine:
        for name in ("synced", "forgotten"):
            with (machine.place / name).open("wb") as file:
                file.write(b"here\n")
                file.flush()
                if name == "synced":
                    os.fsync(file.fileno())
        with (machine.place / "synced").open("ab") as file:
            file.write(b"later\n")
        copy = machine.cut()
    with after_the_loss(copy) as home:
        assert (home.parent / "synced").read_bytes() == b"here\n"
        assert not (home.parent / "forgotten").exists()


@pytest.mark.scenario(6)
def test_what_was_shown_before_a_loss_of_power_is_on_the_disk(faults: Faults) -> None:
    """Scenario 6: cuts at random moments of a pool of many small commits; each copy resumes, with nothing lost."""
    chance = random.Random(6)  # noqa: S311 - chance is no secret
    n, count = ledger.scaled((300, 2), (3000, 25))
    cuts: list[Cut] = []
    with disk(faults.folder) as machine:
        pool = faults.map(slow_square(0.004), n, home=machine.home)
        while len(cuts) < count and pool.snapshot().state is PoolState.RUNNING:
            time.sleep(chance.uniform(0.05, 0.25))
            cuts.append(_cut(faults, machine, pool))
        faults.finish(pool)
        faults.check(pool)
    for cut in cuts:
        _check(faults, cut, square)


@pytest.mark.scenario(6)
def test_results_that_were_being_sealed_when_the_power_went_are_there(faults: Faults) -> None:
    """Scenario 6: the same for large results, which move from the inbox to segments all the time."""
    chance = random.Random(66)  # noqa: S311 - chance is no secret
    n, count = ledger.scaled((60, 2), (300, 20))
    cuts: list[Cut] = []
    with disk(faults.folder, megabytes=ledger.scaled(192, 768)) as machine:
        pool = faults.map(LARGE, n, home=machine.home)
        while len(cuts) < count and pool.is_live():
            # Soon after a segment was given its name: it is recorded within a tenth of a second, or another is begun.
            before = _segments(pool)
            faults.until(lambda before=before: _segments(pool) != before or not pool.is_live())  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.2))
            cuts.append(_cut(faults, machine, pool))
        faults.finish(pool)
        faults.check(pool, large)
    for cut in cuts:
        _check(faults, cut, large)


def _segments(pool: JobPool[Any]) -> int:
    return sum(1 for _ in pool.paths.results.glob("segment-*"))


@pytest.mark.scenario(6)
def test_a_map_that_the_power_left_in_the_middle_leaves_no_pool_or_a_whole_one(faults: Faults) -> None:
    """Scenario 6: cuts while `map` makes its pool and starts it; a name that was printed is a pool on the disk."""
    chance = random.Random(666)  # noqa: S311 - chance is no secret
    cuts: list[tuple[str, Cut]] = []
    with disk(faults.folder) as machine:
        machine.home.mkdir()
        words = faults.command("map", faults.write(SQUARE), faults.rows(20), "-j", "1", "--name")
        for number in range(ledger.scaled(1, 8)):
            mapping = subprocess.Popen(
                [*words, f"p{number}"], env=faults.env | {"JOBPOOL_HOME": str(machine.home)},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while mapping.poll() is None:
                time.sleep(chance.uniform(0.05, ledger.scaled(0.3, 0.15)))
                with machine.standing_still():
                    faults.injected()
                    cuts.append((f"p{number}", Cut(machine.cut(), frozenset(), mapping.poll() == 0)))
            assert mapping.returncode == 0
            faults.finish(faults.open(f"p{number}", home=machine.home))
    for name, cut in cuts:
        _check(faults, cut, square, name)


def _stays(log: Path) -> bool:
    size = log.stat().st_size
    time.sleep(0.1)
    return log.stat().st_size == size


@pytest.mark.scenario(6)
def test_what_is_shown_after_a_supervisor_was_killed_inside_a_commit_outlives_a_loss_of_power(faults: Faults) -> None:
    """Scenario 6: killed after it wrote a commit and before that was synced: what readers then see is on the disk."""
    with disk(faults.folder) as machine:
        pool = faults.map(slow_square(0.02), 60, home=machine.home)
        faults.until(lambda: faults.look(pool), what="outcomes are committed")
        (supervisor,) = supervisors(pool.paths.root)
        before = faults.look(pool)
        log = pool.paths.state_db.with_name("state.db-wal")
        rule = "fdatasync:delay_enter=1000000:when=1+"
        with strace_on(supervisor, rule, output=faults.folder / "strace"):
            synced = log.stat().st_size
            faults.until(lambda: log.stat().st_size > synced)
            # All of the commit, which then waits for its sync.
            faults.until(lambda: _stays(log), what="the commit is written")
            os.kill(supervisor, signal.SIGKILL)
            faults.until(lambda: not pool.is_live())
        assert "interrupted" in faults.jobpool("status", "pool", home=machine.home).stdout
        cut = _cut(faults, machine, pool)
        assert cut.shown > before, "the commit that was not synced is shown"
        faults.finish(pool)
        faults.check(pool)
    _check(faults, cut, square)
