"""Commands that race each other, and a removal that is cut short."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from jobpool_cli.layout import pools_folder
from jobpool_cli.model import PoolState
from tests.faults import ledger
from tests.faults.harness import SQUARE, Faults, slow_square
from tests.faults.injection import need, processes_of, straced
from tests.faults.tracing import counts_of
from tests.helpers import supervisors

WAITS = "def f(x: int) -> int:\n    _audit()\n    _wait_for('go')\n    return x * x\n"
REMOVING = ("rename", "unlink", "unlinkat", "rmdir", "fsync", "openat", "pidfd_send_signal")


@pytest.mark.scenario(20)
def test_of_two_resumes_at_once_one_starts_a_supervisor_and_the_other_is_a_conflict(faults: Faults) -> None:
    """Scenario 20: two `resume` at once, again and again: one supervisor each time; the other command exits 4."""
    pool = faults.map(WAITS, 6, "-j", "1")
    chance = random.Random(20)  # noqa: S311 - chance is no secret
    for _ in range(ledger.scaled(5, 100)):
        faults.kill_supervisor(pool)
        assert pool.snapshot().state is PoolState.INTERRUPTED
        env = faults.env | {"JOBPOOL_HOME": str(faults.home)}
        racers = []
        for _ in range(2):
            racers.append(
                subprocess.Popen(
                    faults.command("resume", pool.name), env=env, stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
            time.sleep(chance.choice((0.0, 0.0, 0.02, 0.1)))
        said = [racer.communicate(timeout=60)[1] for racer in racers]
        assert sorted(racer.returncode for racer in racers) == [0, 4], said
        assert len(supervisors(pool.paths.root)) == 1
        loser = said[[racer.returncode for racer in racers].index(4)]
        assert "already" in loser, loser
        assert "jobpool tail pool" in loser or "jobpool status pool" in loser, loser
    faults.release("go")
    faults.finish(pool)
    # A supervisor that lost the race has run nothing.
    assert max(faults.audit().values()) == 1
    faults.check(pool)


@pytest.mark.scenario(30)
def test_a_removal_killed_at_any_call_is_completed_by_running_it_again(faults: Faults) -> None:
    """Scenario 30: kill -9 of `rm` at the n-th call; the pool is whole or out of sight; `rm` again leaves nothing."""
    need("strace")
    faults.finish(faults.map(SQUARE, 20))
    pools, output = pools_folder(faults.home), faults.folder / "strace"
    template = pools.rename(faults.folder / "template")
    pools.mkdir()
    _put(template, pools)
    trace = ["strace", "--quiet=all", "-e", f"trace={','.join(REMOVING)}", "-e", "signal=none", "-o", str(output)]
    faults.jobpool("rm", "--yes", "pool", prefix=trace)
    killed = 0
    for call, when in _positions(counts_of(output)):
        _put(template, pools)
        rule = f"{call}:signal=KILL:when={when}"
        done = faults.jobpool("rm", "--yes", "pool", prefix=straced(rule, output=output, follow=False), code=None)
        if done.returncode != -9:
            assert done.returncode == 0, done.stderr
            shutil.rmtree(pools / "pool", ignore_errors=True)
            continue
        faults.injected()
        killed += 1
        left = sorted(each.name for each in pools.iterdir())
        if left == ["pool"]:
            # It had not begun: whoever looks finds the pool as it was.
            faults.check(faults.open())
        else:
            faults.jobpool("status", "pool", code=3)
        faults.jobpool("rm", "--yes", "pool", code=0 if left else 3)
        assert not list(pools.iterdir()), rule
    assert killed, "strace has killed nobody"


@pytest.mark.scenario(30)
def test_a_removal_by_force_killed_midway_is_completed_by_running_it_again(faults: Faults) -> None:
    """Scenario 30: the same for `rm --force` of a pool at work: its processes go, too."""
    need("strace")
    calls = ledger.scaled(
        (("rename", 2), ("unlinkat", 3)),
        tuple(
            (call, when)
            for call, most in (("rename", 3), ("fsync", 4), ("unlinkat", 16), ("rmdir", 6), ("pidfd_send_signal", 3))
            for when in range(1, most + 1)
        ),
    )
    pools, output = pools_folder(faults.home), faults.folder / "strace"
    for call, when in calls:
        faults.map(slow_square(0.02), 2000)
        rule = f"{call}:signal=KILL:when={when}"
        force = ("rm", "--force", "pool")
        done = faults.jobpool(*force, prefix=straced(rule, output=output, follow=False), code=None)
        faults.injected(int(done.returncode == -9))
        assert done.returncode in {0, -9}, done.stderr
        left = [each.name for each in pools.iterdir()]
        if done.returncode != 0:
            faults.jobpool(*force, code=0 if left else 3)
        assert not list(pools.iterdir()), rule
        faults.until(lambda: not processes_of(faults.home), 5.0, "the pool's processes are gone")


def _put(template: Path, pools: Path) -> None:
    shutil.copytree(template / "pool", pools / "pool")


def _positions(counts: dict[str, int]) -> list[tuple[str, int]]:
    # Most files are opened by imports, before anything is done.
    first = {"openat": max(1, counts.get("openat", 0) - 40)}
    found = [(call, n) for call in REMOVING for n in range(first.get(call, 1), counts.get(call, 0) + 1)]
    if ledger.is_long():
        return found
    few = [each for each in found if each[0] != "openat"]
    return few[:: max(1, len(few) // 6)]
