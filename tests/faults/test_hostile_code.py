"""Code that does not load: `map` says why, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.harness import Faults

F = "def f(x: int) -> int:\n    return x\n"
# Only in a worker: what `map` checks before has no such word in its command line.
IN_WORKER = "if 'jobpool_cli.worker' in sys.orig_argv:\n"
LOOP = "while True: pass"
C_LOOP = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM}); ctypes.CDLL(None).sleep(600)"
SECONDS = "2"

# What the file does while it is imported, and what is said of it.
LOADS: dict[str, tuple[str, str]] = {
    "import-error": ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
    "raises": ("raise ValueError('no such day')", "ValueError: no such day"),
    "exits": ("sys.exit(0)", "ends the process while it is imported"),
    "exits-at-once": ("os._exit(0)", ""),
    "crashes": ("ctypes.string_at(0)", "Segmentation fault"),
    "endless": (LOOP, f"it was not imported within {SECONDS} s"),
    "prints": ("print('hello from the import'); sys.stdout.flush(); 1 / 0", "hello from the import"),
    "endless-in-c": (C_LOOP, f"it was not imported within {SECONDS} s"),
}
# `map` itself can be interrupted by signals only.
IN_MAP = [name for name in LOADS if name != "endless-in-c"]


def left(faults: Faults) -> list[str]:
    """Return the processes of this test's pools, known by their home."""
    mark = f"JOBPOOL_HOME={faults.home}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found


def check_refused(faults: Faults, body: str, said: str) -> str:
    """Check that `map` refuses the code and says this, and that neither pool nor process is left."""
    udf, table = faults.write(body + F), faults.rows(100)
    env = {"JOBPOOL_IMPORT_SECONDS": SECONDS}
    told = faults.jobpool("map", udf, table, "--name", "pool", "-j", "2", code=None, env=env, seconds=40)
    faults.injected()
    assert told.returncode != 0, told
    assert told.stdout == ""
    assert said in told.stderr, told.stderr
    pools = faults.home / "pools"
    assert not pools.exists() or not [each for each in os.listdir(pools) if not each.startswith(".")]
    faults.until(lambda: not left(faults), 10, f"nothing is left running: {left(faults)}")
    return told.stderr


@pytest.mark.scenario(41)
@pytest.mark.parametrize("name", ledger.scaled(["endless", "crashes", "raises"], [*IN_MAP]))
def test_code_that_does_not_load_is_refused_by_map_with_its_traceback(faults: Faults, name: str) -> None:
    """Scenario 41: import error, endless import, a crash, exits, in the check that `map` makes itself."""
    deed, said = LOADS[name]
    told = check_refused(faults, f"{deed}\n", said)
    assert "job.py" in told


@pytest.mark.scenario(41)
def test_a_syntax_error_is_refused_with_its_line(faults: Faults) -> None:
    """Scenario 41: a syntax error."""
    assert "def g(:" in check_refused(faults, "def g(:\n    pass\n", "job.py:")


@pytest.mark.scenario(41)
@pytest.mark.parametrize("name", ledger.scaled(["import-error", "exits-at-once", "endless-in-c"], [*LOADS]))
def test_code_that_does_not_load_in_a_worker_is_refused_with_its_traceback_and_leaves_no_pool(
    faults: Faults, name: str
) -> None:
    """Scenario 41: the same where only a worker meets it; one that never ends is ended, and `map` says what it does."""
    deed, said = LOADS[name]
    told = check_refused(faults, f"{IN_WORKER}    {deed}\n", said or "exited with code 0")
    if "endless" in name:
        assert "the first worker is still importing" in told
        assert "JOBPOOL_IMPORT_SECONDS" in told
    if name != "exits-at-once":
        assert "job.py" in told


@pytest.mark.scenario(41)
def test_a_later_worker_that_cannot_import_does_not_keep_the_pool_waiting(faults: Faults) -> None:
    """Scenario 41: the first worker loads the code, the next ones hang in it: the pool ends all the same."""
    first = "os.path.join(FOLDER, 'loaded')"
    top = f"{IN_WORKER}    while os.path.exists({first}): pass\n    open({first}, 'w').close()\n"
    env = {"JOBPOOL_IMPORT_SECONDS": "1"}
    n = ledger.scaled(40, 400)
    body = f"{top}def f(x: int) -> int:\n    _audit()\n    time.sleep(0.02)\n    return x * x\n"
    pool = faults.map(body, n, env=env)
    faults.injected()
    faults.ended(pool)
    faults.check(pool)
    assert faults.ran().keys() == set(range(n))
