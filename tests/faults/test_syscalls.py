"""Kill -9 at a system call that was chosen beforehand: of the supervisor, and of `map`."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import uuid
from typing import Any

import pytest

from jobpool_cli import submit as submitting
from jobpool_cli.errors import JobPoolError
from jobpool_cli.layout import TEMPORARY_PREFIX, pools_folder
from jobpool_cli.model import PoolOptions, PoolState, TaskState
from jobpool_cli.pool import JobPool
from tests.faults import ledger
from tests.faults.harness import SQUARE, Faults, slow_square
from tests.faults.injection import need, processes_of, strace_on, straced
from tests.faults.tracing import counts_of, without_children
from tests.faults.witness import Witness
from tests.helpers import imports_undone, supervisors

# What makes a change last, or visible; the rest of a process's life is sampled by the files that it opens.
LASTING = ("pwrite64", "fdatasync", "fsync", "rename", "unlink", "ftruncate", "mkdir", "flock")
SAMPLED = {"openat": 25, "write": 4}
CALLS = (*LASTING, *SAMPLED)
TASKS = 30
LARGE, LARGE_BYTES = 17, 9 << 20

# Plays the supervisor of a pool with so few results that it would seal once, at its end.
SEALS_OFTEN = """
import sys
from jobpool_cli.supervisor import __main__, sealing
sealing.SEAL_AT_LAST_BYTES = 30_000
sys.exit(__main__.main())
"""
# Results that wait in the inbox, one that its worker writes as a segment, failures that run again and fail again.
MIXED = f"""
import random
def f(x: int) -> bytes:
    _audit(jobpool_cli.current_task().pool)
    if x % 9 == 4:
        raise ValueError(f"no {{x}}")
    return random.Random(x).randbytes({LARGE_BYTES} if x == {LARGE} else 3000)
"""


def mixed(x: int) -> bytes:
    """Return what MIXED does."""
    return random.Random(x).randbytes(LARGE_BYTES if x == LARGE else 3000)  # noqa: S311 - it only has to be long


class Sweep:
    """Supervisors of copies of one pool, each killed at a call of its own."""

    def __init__(self, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the pool, and start nothing."""
        need("strace")
        self._faults = faults
        self._names = (f"p{number:04d}" for number in itertools.count())
        with imports_undone(), monkeypatch.context() as patched:
            patched.setattr(submitting, "launch", lambda *_: None)
            options = PoolOptions(workers=1, retries=1)
            udf, table = str(faults.write(MIXED)), str(faults.rows(TASKS))
            checked = submitting.check(udf, table, constants={}, options=options)
            self._template = submitting.submit(checked, faults.folder / "template", "unstarted").root
        pools_folder(faults.home).mkdir(parents=True)

    def fresh(self) -> JobPool[Any]:
        """Return a copy of the pool that was never started; it is another pool, with an id of its own."""
        root = pools_folder(self._faults.home) / next(self._names)
        shutil.copytree(self._template, root)
        identity = str(uuid.uuid4())
        described = json.loads((root / "pool.json").read_text())
        (root / "pool.json").write_text(json.dumps({**described, "id": identity}))
        (root / "lock").write_text(identity)
        return JobPool(root)

    def supervise(self, pool: JobPool[Any], *prefix: str) -> int:
        """Run a supervisor to its end, as `resume` starts it; return its exit code."""
        report, its_end = os.pipe()
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, report)
            log = opened.enter_context(pool.paths.supervisor_log.open("ab"))
            opened.callback(os.close, its_end)
            words = [*prefix, sys.executable, "-P", "-c", SEALS_OFTEN]
            try:
                return subprocess.run(
                    [*words, f"--report={its_end}", f"--root={pool.paths.root}"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(its_end,), cwd="/",
                    env=self._faults.env, start_new_session=True, check=False, timeout=60,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise self._faults.hang(f"a supervisor under {' '.join(prefix)} does not end") from error

    def kill_at(self, pool: JobPool[Any], call: str, number: int) -> bool:
        """Run a supervisor until one of its threads makes that call for the n-th time; False if none did."""
        rule = f"{call}:signal=KILL:when={number}"
        code = self.supervise(pool, *without_children(straced(rule, output=self._faults.folder / "strace")))
        assert code in {0, -9}, f"{rule}: exit {code}: {pool.paths.supervisor_log.read_text()}"
        self._faults.injected(int(code != 0))
        self._faults.until(lambda: not pool.is_live())
        return code != 0

    def counted(self) -> dict[str, int]:
        """Return how often the busiest thread of an undisturbed supervisor makes each call."""
        output = self._faults.folder / "counted"
        pool = self.fresh()
        trace = ["strace", "--quiet=all", "-f", "-e", f"trace={','.join(CALLS)}", "-e", "signal=none"]
        assert self.supervise(pool, *without_children([*trace, "--output", str(output)])) == 0
        self._faults.check(pool, mixed, audit=pool.name)
        return counts_of(output)

    def finish(self, pool: JobPool[Any]) -> None:
        """Resume a pool until it is done; what was shown must not run again; INV."""
        witness = Witness(self._faults, pool, pool.name)
        witness.look()
        resume(self._faults, pool)
        witness.check()
        self._faults.check(pool, mixed, audit=pool.name)
        # A sweep makes hundreds of them.
        shutil.rmtree(pool.paths.root)


def positions(counts: dict[str, int], quick: int) -> list[tuple[str, int]]:
    """Return (call, n): every n of the lasting calls, some of the sampled ones; in a quick run a few of all these."""
    found = [(call, n) for call in CALLS for n in range(1, counts.get(call, 0) + 1, SAMPLED.get(call, 1))]
    if ledger.is_long():
        return found
    few = random.Random(4).sample(found, min(quick, len(found)))  # noqa: S311 - chance is no secret
    return sorted(few, key=lambda each: CALLS.index(each[0]))


def resume(faults: Faults, pool: JobPool[Any]) -> None:
    """Go on with the pool until it is done."""

    def is_done() -> bool:
        if not pool.is_live() and pool.snapshot().state is PoolState.INTERRUPTED:
            with contextlib.suppress(JobPoolError):
                pool.resume()
        return not pool.is_live() and pool.snapshot().state is PoolState.DONE

    faults.until(is_done, what=f"{pool.name} is done: {pool.paths.root}")


@pytest.mark.scenario(4)
def test_a_supervisor_killed_at_any_call_that_writes_leaves_a_pool_that_resumes(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenario 4: kill -9 at the n-th call, from a supervisor's start to its end, sealing included; resume; INV."""
    sweep = Sweep(faults, monkeypatch)
    chosen = positions(sweep.counted(), quick=3)
    struck = set()
    for call, number in chosen:
        pool = sweep.fresh()
        # No two runs make quite as many calls: one may end before its n-th.
        if sweep.kill_at(pool, call, number):
            struck.add(call)
        sweep.finish(pool)
    for call in {call for call, _ in chosen} - struck:
        # The first one every run makes: if that does not kill either, nothing was tested.
        pool = sweep.fresh()
        assert sweep.kill_at(pool, call, 1), f"strace does not kill at {call}"
        sweep.finish(pool)


@pytest.mark.scenario(4)
def test_supervisors_killed_one_after_another_at_random_calls_bring_a_pool_to_its_end(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenario 4: the same for supervisors that go on with what a killed one left: recovery is cut short, too."""
    sweep = Sweep(faults, monkeypatch)
    most = {"pwrite64": 60, "fdatasync": 8, "rename": 3, "unlink": 3, "ftruncate": 3, "openat": 600}
    chance = random.Random(40)  # noqa: S311 - chance is no secret
    killed = 0
    for _ in range(ledger.scaled(1, 15)):
        pool = sweep.fresh()
        for _ in range(4):
            call = chance.choice(list(most))
            killed += sweep.kill_at(pool, call, chance.randint(1, most[call]))
        sweep.finish(pool)
    assert killed, "strace has killed nobody"


@pytest.mark.scenario(4)
def test_a_running_supervisor_killed_at_a_later_call_leaves_a_pool_that_resumes(faults: Faults) -> None:
    """Scenario 4: strace comes upon a supervisor at work, which has the speed of one that nobody watches until then."""
    need("strace")
    pool = faults.map(slow_square(0.005), ledger.scaled(200, 1500))
    witness = Witness(faults, pool)
    calls = ledger.scaled(("fdatasync",), ("pwrite64", "fdatasync", "write", "openat") * 4)
    for number, call in enumerate(calls, start=2):
        (supervisor,) = supervisors(pool.paths.root)
        with strace_on(supervisor, f"{call}:signal=KILL:when={number}", output=faults.folder / "strace"):
            faults.until(lambda: not pool.is_live())
        faults.injected()
        witness.look()
        if pool.snapshot().state is PoolState.DONE:
            break
        pool.resume()
    resume(faults, pool)
    witness.check()
    faults.check(pool)


@pytest.mark.scenario(5)
def test_a_map_killed_at_any_call_that_writes_leaves_no_pool_or_a_whole_one(faults: Faults) -> None:
    """Scenario 5: kill -9 of `map` at the n-th call: no pool, or one that works; the next `map` sweeps up."""
    need("strace")
    udf, table = faults.write(SQUARE), faults.rows(20)
    output = faults.folder / "strace"
    # Only its first thread: that one does all of this, and what `map` starts has scenarios of its own.
    trace = ["strace", "--quiet=all", "-e", f"trace={','.join(CALLS)}", "-e", "signal=none", "--output", str(output)]
    words = ("map", str(udf), str(table), "-j", "1", "--name")
    faults.jobpool(*words, "whole", prefix=trace)
    counts = counts_of(output)
    killed = 0
    for number, (call, when) in enumerate(positions(counts, quick=5)):
        name = f"p{number}"
        rule = f"{call}:signal=KILL:when={when}"
        done = faults.jobpool(*words, name, prefix=straced(rule, output=output, follow=False), code=None)
        faults.injected(int(done.returncode == -9))
        killed += done.returncode == -9
        if (pools_folder(faults.home) / name).exists():
            _must_work(faults, faults.open(name), f"{rule}: {name}")
    assert killed, "strace has killed nobody"
    faults.jobpool(*words, "end")
    for name in ("whole", "end"):
        faults.finish(faults.open(name))
    faults.until(lambda: not processes_of(faults.home), 5.0, "what `map` started has ended")
    left = [each.name for each in pools_folder(faults.home).iterdir() if each.name.startswith(TEMPORARY_PREFIX)]
    assert not left, left


def _must_work(faults: Faults, pool: JobPool[Any], what: str) -> None:
    resume(faults, pool)
    assert pool.snapshot().counts[TaskState.SUCCESS] == 20, what
    faults.check(pool)
