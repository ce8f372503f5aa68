"""Disks without room: under a running pool, under a worker's segment, under ``map`` and ``collect``."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobpool_cli.layout import TEMPORARY_PREFIX
from jobpool_cli.model import PoolState, TaskState
from tests.faults.harness import Faults
from tests.faults.injection import filled, need, strace_on, straced, tmpfs
from tests.faults.ledger import scaled
from tests.helpers import marked

FULL_SECONDS = 30.0
# Prints now and then, so that logs grow as well, and fails now and then; held from its twentieth task on.
CHATTY = (
    "def f(x: int) -> int:\n    _audit()\n    if x >= 20:\n        _wait_for('go')\n        time.sleep(0.005)\n"
    "    if x % 50 == 0:\n        print('task', x, '.' * 5000)\n"
    "    if x % 5 == 2:\n        raise ValueError(x)\n    return x * x\n"
)
LARGE_BYTES = 10 << 20
LARGE = (
    "import random\ndef f(x: int) -> bytes:\n    _audit()\n    if x >= 2:\n        _wait_for('go')\n"
    f"    return random.Random(x).randbytes({LARGE_BYTES})\n"
)


def large(x: int) -> bytes:
    """Say what LARGE returns."""
    return random.Random(x).randbytes(LARGE_BYTES)  # noqa: S311 - the same bytes as in the worker


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    with tmpfs(tmp_path / "small", "8m") as place:
        yield place


@pytest.mark.scenario(8)
def test_a_full_disk_pauses_the_pool_and_it_goes_on_by_itself_when_there_is_room(faults: Faults, small: Path) -> None:
    """Scenario 8: an 8 MB tmpfs, filled: paused, 'disk full'; reads work, map exits 6; room lets it go on by itself."""
    many = scaled(400, 4000)
    pool = faults.map(CHATTY, many, "--timeout", "2", home=small)
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] >= 10)
    for _ in range(scaled(1, 3)):
        with filled(small):
            faults.injected()
            faults.release("go")
            faults.until(lambda: pool.snapshot().state is PoolState.PAUSED, FULL_SECONDS, "the pool is paused")
            shown, begun = len(faults.look(pool)), len(faults.ran())
            status = faults.jobpool("status", "pool", home=small).stdout
            assert "paused" in status
            assert "disk full" in status
            assert "jobpool resume" not in status, "it goes on by itself"
            for verb in ("results", "errors", "logs", "tasks", "list"):
                faults.jobpool(*((verb,) if verb == "list" else (verb, "pool")), home=small)
            refused = faults.jobpool("map", faults.write(CHATTY), faults.rows(10), home=small, code=6)
            assert "disk full" in refused.stderr
            assert "hint: free some space" in refused.stderr
            assert pool.is_live()
            assert len(faults.ran()) <= begun + 4, "nothing more is handed out"
        faults.until(lambda least=shown: len(faults.look(pool)) > least or not pool.is_live(), FULL_SECONDS)  # type: ignore[misc]
        if not pool.is_live():
            break
        faults.until(lambda: pool.snapshot().state is not PoolState.PAUSED, FULL_SECONDS, "it goes on")
    faults.ended(pool)
    assert pool.snapshot().counts[TaskState.SUCCESS] == many * 4 // 5
    assert {failure.type for failure in pool.failures(history=True)} == {"ValueError"}
    assert set(faults.audit().values()) == {1}
    assert {attempt for _, attempt in faults.audit()} == {1}, "nobody was blamed, and nothing ran again"
    faults.check(pool)


@pytest.mark.scenario(8)
def test_on_a_full_disk_a_pool_is_still_cancelled_and_shut_down(faults: Faults, small: Path) -> None:
    """Scenario 8: what people ask of a pool without room is done, if it cannot be written down."""
    pool = faults.map(CHATTY, 200, home=small)
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] >= 10)
    with filled(small):
        faults.injected()
        faults.until(lambda: pool.snapshot().state is PoolState.PAUSED, FULL_SECONDS, "the pool is paused")
        refused = faults.jobpool("cancel", "pool", home=small, code=6)
        assert "disk full" in refused.stderr
        assert "the request is kept" in refused.stderr
        faults.jobpool("shutdown", "pool", "--no-wait", home=small)
        faults.ended(pool)
        faults.until(lambda: not marked(pool), 2.0, "its workers are gone")
        status = faults.jobpool("status", "pool", home=small).stdout
        assert "interrupted" in status
        assert "disk full" in status
        assert "disk full" in faults.jobpool("resume", "pool", home=small, code=6).stderr
    faults.release("go")
    shown = faults.look(pool)
    faults.finish(pool)
    faults.check(pool, shown=shown)


@pytest.mark.scenario(8)
def test_a_pool_that_nobody_works_on_is_read_on_a_full_disk(faults: Faults, small: Path) -> None:
    """Scenario 8: reads of a pool that is done work on a full disk, and leave nothing behind."""
    pool = faults.map("def f(x: int) -> int:\n    print(x)\n    return x * x\n", 100, home=small)
    faults.ended(pool)
    with filled(small):
        faults.injected()
        assert "is done" in faults.jobpool("status", "pool", home=small).stdout
        assert len(faults.jobpool("results", "pool", "--json", home=small).stdout.splitlines()) == 100
        assert "done" in faults.jobpool("list", home=small).stdout
        for verb in ("errors", "logs", "tasks", "collect"):
            faults.jobpool(verb, "pool", home=small)
        refused = faults.jobpool("retry", "pool", "--cancelled", home=small)
        assert "Traceback" not in refused.stderr
        # The pool is whole: it is the machine that needs something.
        assert "the disk of" in faults.jobpool("doctor", "pool", home=small, code=6).stdout
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    try:
        assert "is mounted read-only" in faults.jobpool("doctor", "pool", home=small, code=6).stdout
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
    faults.check(pool, audit=None)


@pytest.mark.scenario(9)
def test_a_worker_without_room_for_its_segment_waits_and_its_task_is_not_to_blame(
    faults: Faults, tmp_path: Path
) -> None:
    """Scenario 9: a tmpfs is full when workers write Parquet: they wait; nothing without a footer is adopted."""
    with tmpfs(tmp_path / "disk", "100m") as disk:
        pool = faults.map(LARGE, 6, "--timeout", "3", home=disk)
        faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] == 2)
        with filled(disk, but=3 << 20):
            # There is room for the books, and not for a result: the workers find out first.
            faults.injected()
            faults.release("go")
            faults.until(lambda: len(faults.audit()) >= 4)
            faults.until(lambda: pool.snapshot().state is PoolState.PAUSED, FULL_SECONDS, "the pool is paused")
            assert faults.look(pool) == {0, 1}
            for path in pool.paths.results.glob("segment-*.parquet"):
                assert pq.ParquetFile(path).metadata.num_rows
        faults.ended(pool)
        assert {attempt for _, attempt in faults.audit()} == {1}, "nobody was blamed"
        assert pool.snapshot().counts[TaskState.SUCCESS] == 6
        faults.check(pool, large)


@pytest.mark.scenario(9)
def test_a_segment_that_cannot_be_written_the_first_time_is_written_anew(faults: Faults) -> None:
    """Scenario 9: ENOSPC injected into a worker's Parquet write: a new file takes the place of the refused one."""
    need("strace")
    pool = faults.map(LARGE, 3, "-j", "1")
    faults.until(lambda: len(faults.audit()) == 3)
    trace = faults.folder / "trace"
    with strace_on(faults.pids()[-1], "fsync:error=ENOSPC:when=1", output=trace):
        faults.release("go")
        faults.ended(pool)
    assert "(INJECTED)" in trace.read_text()
    faults.injected()
    assert {attempt for _, attempt in faults.audit()} == {1}
    assert pool.snapshot().counts[TaskState.SUCCESS] == 3
    faults.check(pool, large)


def collect_killed(faults: Faults, target: Path, rule: str) -> bool:
    """Kill -9 a collect at a system call; return whether it came that far."""
    trace = faults.folder / "trace"
    done = faults.jobpool("collect", "pool", "-o", target, code=None, prefix=straced(rule, output=trace))
    assert done.returncode in {0, -9, 137}, done.stderr
    faults.injected(int(done.returncode != 0))
    return done.returncode != 0


@pytest.mark.scenario(49)
def test_a_collect_that_is_killed_leaves_the_old_file_or_the_new_one_and_the_next_cleans_up(faults: Faults) -> None:
    """Scenario 49: kill -9 at the calls that write: the old output or the whole new one; no temporaries in the end."""
    need("strace")
    pool = faults.map("def f(x: int) -> int:\n    return x * x\n", 100_000)
    faults.ended(pool)
    folder = faults.folder / "out"
    folder.mkdir()
    endings = scaled([".csv"], [".csv", ".parquet", ".jsonl"])
    left_over = 0
    for ending in endings:
        target = folder / f"table{ending}"
        faults.jobpool("collect", "pool", "-o", target)
        whole = target.read_bytes()
        rules = [("write", scaled((2,), range(1, 8))), ("fsync", (1, 2)), ("rename", (1,)), ("fchmod", (1,))]
        for call, moments in rules:
            for moment in moments:
                target.write_bytes(b"old")
                killed = collect_killed(faults, target, f"{call}:signal=KILL:when={moment}")
                assert killed or call == "write", f"{call} {moment} was never reached"
                assert target.read_bytes() in (b"old", whole)
                left_over += len(list(folder.glob(f"{TEMPORARY_PREFIX}*")))
    assert left_over, "some of the killed left what they had begun"
    for ending in endings:
        faults.jobpool("collect", "pool", "-o", folder / f"table{ending}")
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"table{ending}" for ending in endings)
    faults.check(pool, audit=None)


@pytest.mark.scenario(49)
def test_a_collect_onto_a_full_disk_says_so_and_the_old_file_stays(faults: Faults, small: Path) -> None:
    """Scenario 49: collect onto a full disk: exit 6, the old output intact, nothing beside it."""
    pool = faults.map("def f(x: int) -> int:\n    return x * x\n", 1000)
    faults.ended(pool)
    for ending in ("csv", "parquet", "jsonl"):
        target = small / f"table.{ending}"
        target.write_bytes(b"old")
        with filled(small) as filler:
            faults.injected()
            refused = faults.jobpool("collect", "pool", "-o", target, code=6)
            assert "No space left on device" in refused.stderr
            assert "hint: free some space" in refused.stderr
            assert target.read_bytes() == b"old"
            assert {path.name for path in small.iterdir()} == {target.name, filler.name}
        target.unlink()
    faults.check(pool, audit=None)
