"""Disks that fail, and limits on the size of files: the supervisor stops, says why, and `resume` goes on."""

from __future__ import annotations

import pytest

from jobpool_cli.model import PoolState, TaskState
from tests.faults.harness import Faults, slow_square
from tests.faults.injection import need, strace_on
from tests.faults.ledger import scaled
from tests.helpers import supervisors

ENDING_SECONDS = 30.0
LIMITED = ["bash", "-c", 'ulimit -f 100; exec "$@"', "limited"]
TALKING = "def f(x: int) -> int:\n    _audit()\n    print('x' * 20_000)\n    return x * x\n"
FAILING = "def f(x: int) -> int:\n    _audit()\n    raise ValueError(str(x) + 'x' * 1000)\n"


@pytest.mark.scenario(7)
@pytest.mark.parametrize(("call", "moment"), scaled(
    [("fdatasync", 5), ("pwrite64", 3)],
    [(call, moment) for call in ("fdatasync", "fsync", "pwrite64") for moment in (*range(1, 16), 20, 30, 40)],
))  # fmt: skip
def test_after_an_io_error_the_supervisor_stops_and_says_so_and_resume_goes_on(
    faults: Faults, call: str, moment: int
) -> None:
    """Scenario 7: EIO from fdatasync (and others): no further write; interrupted by an I/O error; resume, INV."""
    need("strace")
    pool = faults.map(slow_square(0.005), 400)
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] > 5)
    trace = faults.folder / "trace"
    with strace_on(supervisors(pool.paths.root)[0], f"{call}:error=EIO:when={moment}", output=trace):
        faults.ended(pool, ENDING_SECONDS)
    calls = [line for line in trace.read_text().splitlines() if f" {call}(" in line]
    shown = faults.look(pool)
    if any("(INJECTED)" in line for line in calls):
        faults.injected()
        if pool.snapshot().state is PoolState.INTERRUPTED:
            assert "(INJECTED)" in calls[-1], "what failed, or anything like it, was tried again"
            assert "reason     I/O error" in faults.jobpool("status", "pool").stdout
    else:
        assert call == "fsync" or moment > 5, "so many calls are made"
    assert call == "fsync" or moment > 5 or pool.snapshot().state is PoolState.INTERRUPTED
    faults.finish(pool)
    faults.check(pool, shown=shown)


@pytest.mark.scenario(10)
def test_map_names_the_limit_on_the_size_of_files_and_leaves_no_pool(faults: Faults) -> None:
    """Scenario 10: `ulimit -f 100` and map: 'file size limit', exit 6."""
    refused = faults.jobpool("map", faults.write(TALKING), faults.rows(10), prefix=LIMITED, code=6)
    faults.injected()
    assert "file size limit" in refused.stderr
    assert "hint: raise the limit of the shell: ulimit -f unlimited" in refused.stderr
    assert faults.jobpool("list", "--json").stdout == ""


@pytest.mark.scenario(10)
@pytest.mark.parametrize("body", [TALKING, FAILING], ids=["the log of a worker", "the state database"])
def test_a_pool_that_meets_the_limit_on_files_is_interrupted_and_goes_on_without_it(faults: Faults, body: str) -> None:
    """Scenario 10: a supervisor and workers under `ulimit -f 100`: interrupted by it, no task blamed; resume, INV."""
    pool = faults.map("def f(x: int) -> int:\n    _wait_for('begin')\n" + body.partition("\n")[2], 300)
    faults.kill_supervisor(pool)
    faults.release("begin")
    resumed = faults.jobpool("resume", "pool", prefix=LIMITED, code=None)
    assert "disk full" not in resumed.stderr
    assert "damaged" not in resumed.stderr
    faults.ended(pool, ENDING_SECONDS)
    faults.injected()
    status = faults.jobpool("status", "pool").stdout
    assert "interrupted" in status
    assert "file size limit" in status
    assert "file size limit" in pool.paths.supervisor_log.read_text()
    shown = faults.look(pool)
    faults.finish(pool)
    failed = 300 if body is FAILING else 0
    assert pool.snapshot().counts[TaskState.ERROR] == failed
    assert {failure.type for failure in pool.failures()} <= {"ValueError"}
    faults.check(pool, shown=shown)


@pytest.mark.scenario(10)
def test_an_output_that_meets_the_limit_on_files_is_said_to_and_the_old_file_stays(faults: Faults) -> None:
    """Scenario 10: collect and stdout under `ulimit -f 100`: 'file size limit', exit 6."""
    pool = faults.map("def f(x: int) -> int:\n    return x * x\n", 20_000)
    faults.ended(pool)
    target = faults.folder / "table.csv"
    target.write_bytes(b"old")
    refused = faults.jobpool("collect", "pool", "-o", target, prefix=LIMITED, code=6)
    assert "file size limit" in refused.stderr
    assert target.read_bytes() == b"old"
    to_file = ["bash", "-c", f'ulimit -f 100; exec "$@" > {faults.folder / "out"}', "limited"]
    assert "file size limit" in faults.jobpool("tasks", "pool", prefix=to_file, code=6).stderr
    faults.injected(2)
    faults.check(pool, audit=None)
