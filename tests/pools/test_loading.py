"""Starting: code that does not load, machines that refuse, originals that go away."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from jobpool_cli.errors import MachineError
from jobpool_cli.model import PoolOptions, PoolState, TaskState
from jobpool_cli.pool import JobPool
from tests.helpers import (
    Bench,
    check_invariants,
    square,
)

pytestmark = pytest.mark.timeout(100)


IN_WORKER = "if 'jobpool_cli.worker' in sys.orig_argv:\n"


def test_a_supervisor_that_does_not_start_is_told_of_with_the_end_of_its_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(MachineError, match=r"(?s)ended before it was ready:.*init_fs_encoding"):
        bench.map("def f(x: int):\n    return x\n", 1)


def test_more_workers_than_files_may_be_open_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobpool_cli.submit.descriptor_limit", lambda: 100)
    with pytest.raises(MachineError, match="10 worker processes need 104 open files, and the limit is 100"):
        bench.map("def f(x: int):\n    return x\n", 1, options=PoolOptions(workers=10))


def test_workers_have_the_limit_of_open_files_that_map_had(bench: Bench) -> None:
    pool = bench.map("import resource\ndef f(x: int):\n    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]\n", 1)
    pool.follow(30)
    check_invariants(pool, lambda _: resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def test_a_worker_that_gets_sigterm_while_it_loads_the_code_is_replaced(bench: Bench) -> None:
    body = (
        IN_WORKER
        + """
    if not os.path.exists(os.path.join(FOLDER, "killed")):
        open(os.path.join(FOLDER, "killed"), "w").close()
        os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)
def f(x: int):
    return x * x
"""
    )
    pool = bench.map(body, 4, options=PoolOptions(workers=1))
    assert pool.follow(30).counts[TaskState.SUCCESS] == 4
    check_invariants(pool, square)


def test_an_empty_table_is_a_pool_that_is_done(bench: Bench) -> None:
    pool = bench.map("def f(x: int):\n    return x\n", 0)
    assert pool.snapshot().state is PoolState.DONE
    assert not pool.is_live()
    check_invariants(pool)


def test_a_pool_outlives_the_process_that_made_it(bench: Bench) -> None:
    udf = bench.write("def f(x: int):\n    _wait_for('go')\n    return x * x\n")
    (bench.folder / "in.csv").write_text("x\n0\n1\n2\n")
    code = (
        "import sys; from pathlib import Path; from jobpool_cli.model import PoolOptions;"
        "from jobpool_cli.submit import check, submit;"
        "checked = check(sys.argv[1], sys.argv[2], constants={}, options=PoolOptions());"
        "print(submit(checked, Path(sys.argv[3]), 'p').root)"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, udf, str(bench.folder / "in.csv"), str(bench.home)],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    pool: JobPool[object] = JobPool(Path(made.stdout.strip()))
    assert pool.snapshot().state is PoolState.RUNNING
    bench.release("go")
    pool.follow(30)
    check_invariants(pool, square)
