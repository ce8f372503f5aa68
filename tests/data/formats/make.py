"""Make a small pool with the release at hand, for its successors to read: ``python tests/data/formats/make.py``.

Each release runs this once, and commits the two files that it leaves here: ``VERSION.tar.gz`` with the pools, and
``VERSION.json`` with what is in them. They are made in a folder that says nothing of the machine.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from jobpool_cli.layout import PoolPaths
from jobpool_cli.supervisor.lock import holders
from jobpool_cli.version import __version__

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PLACE = Path(f"/tmp/jobpool-format-{__version__}")  # noqa: S108 - a place that is the same on every machine
MOST_BYTES = 100_000

# Every kind of outcome: a column's value, text, None, a pickle, a failure, one that a retry mends, one that never ends.
MIXED = """
import os, time
from decimal import Decimal

def f(x: int, name: str, unit: str = "m"):
    print(f"task {x} of {name}")
    if x == 3 and not os.path.exists("mended"):
        raise ValueError("not yet")
    if x == 5:
        raise KeyError(name)
    if x == 11:
        while True:
            time.sleep(0.01)
    return [x * x, f"{x} {unit}", None, Decimal(x) / 7][x % 4]
"""
INTERRUPTED = """
import os, time

def f(x: int) -> float:
    print("task", x)
    if x == 2:
        raise RuntimeError("two")
    while x >= 6 and not os.path.exists("go"):
        time.sleep(0.01)
    return x / 2
"""


def jobpool(*words: str, code: int | None = 0) -> str:
    """Run a command in the neutral folder."""
    env = {"PATH": os.environ["PATH"], "HOME": str(PLACE), "LANG": "C.UTF-8", "TZ": "UTC"}
    env |= {"JOBPOOL_HOME": str(PLACE / "home"), "PYTHONPATH": str(PLACE), "PYTHONDONTWRITEBYTECODE": "1"}
    words = (sys.executable, "-m", "jobpool_cli", *words)
    done = subprocess.run(words, cwd=PLACE, env=env, capture_output=True, text=True, check=False)
    if code is not None and done.returncode != code:
        raise SystemExit(f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def counts(pool: str) -> dict[str, int]:
    """Return how many tasks of a pool stand where."""
    found: dict[str, int] = json.loads(jobpool("status", pool, "--json"))["counts"]
    return found


def wait_until(pool: str, **wanted: int) -> None:
    """Wait until so many tasks stand there."""
    while any(counts(pool)[state] != many for state, many in wanted.items()):
        time.sleep(0.05)


def make_mixed() -> None:
    """A pool that is done: successes, failures, a retry, a cancelled task, a constant."""
    (PLACE / "mixed.py").write_text(MIXED)
    (PLACE / "mixed.csv").write_text("x,name\n" + "".join(f"{x},n{x}\n" for x in range(12)))
    jobpool("map", "mixed.py:f", "mixed.csv", "--name", "mixed", "-j", "1", "--set", "unit=km")
    wait_until("mixed", success=9, error=2, running=1)
    (PLACE / "mended").touch()
    jobpool("retry", "mixed", "--task", "3")
    jobpool("cancel", "mixed", "--running")
    while counts("mixed")["cancelled"] == 0:
        time.sleep(0.05)
    # The retried task may have been cancelled with the running one: then it is taken up again.
    if counts("mixed")["success"] < 10:
        jobpool("retry", "mixed", "--task", "3", "--wait", code=None)
    jobpool("wait", "mixed", code=1)


def make_interrupted() -> None:
    """A pool whose supervisor was killed: results that are not sealed, a write-ahead log."""
    (PLACE / "interrupted.py").write_text(INTERRUPTED)
    (PLACE / "interrupted.csv").write_text("x\n" + "".join(f"{x}\n" for x in range(10)))
    jobpool("map", "interrupted.py:f", "interrupted.csv", "--name", "interrupted", "-j", "1")
    wait_until("interrupted", success=5, error=1, running=1)
    paths = PoolPaths(PLACE / "home" / "pools" / "interrupted")
    for pid, _ in holders(paths.lock):
        os.kill(pid, signal.SIGKILL)
    while any(True for _ in holders(paths.lock)):
        time.sleep(0.01)
    wait_until("interrupted", success=5, error=1, running=0)


def lines(text: str) -> list[Any]:
    """Read JSON Lines."""
    return [json.loads(line) for line in text.splitlines()]


def contents(pool: str) -> dict[str, Any]:
    """Return what a pool holds, as its commands tell it."""
    status = json.loads(jobpool("status", pool, "--json"))
    return {
        "state": status["state"],
        "n_jobs": status["n_jobs"],
        "counts": status["counts"],
        "results": {str(each["task"]): each["result"] for each in lines(jobpool("results", pool, "--json"))},
        "tasks": [[each["task"], each["state"], each["attempt"]] for each in lines(jobpool("tasks", pool, "--json"))],
        "errors": [[each["type"], each["count"]] for each in json.loads(jobpool("errors", pool, "--json"))["groups"]],
        "args": jobpool("args", pool),
        "logs": {str(task): jobpool("logs", pool, str(task)) for task in range(status["n_jobs"])},
        "collected": jobpool("collect", pool, "--partial", "--format", "csv").count("\n") - 1,
    }


def packed() -> bytes:
    """Return the pools as an archive that says nothing of who made it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=9) as archive:
        for path in sorted((PLACE / "home").rglob("*")):
            member = archive.gettarinfo(path, str(path.relative_to(PLACE / "home")))
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            with contextlib.ExitStack() as stack:
                archive.addfile(member, stack.enter_context(path.open("rb")) if path.is_file() else None)
    return buffer.getvalue()


def main() -> None:
    """Make the pools, and leave them here."""
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(mode=0o700)
    try:
        # A stack in a log names the program's files, too.
        shutil.copytree(ROOT / "jobpool_cli", PLACE / "jobpool_cli", ignore=shutil.ignore_patterns("__pycache__"))
        make_mixed()
        make_interrupted()
        # Packed first: reading leaves files of its own beside the database.
        data = packed()
        if len(data) > MOST_BYTES:
            raise SystemExit(f"the archive is too large: {len(data)} bytes")
        expected = {pool: contents(pool) for pool in ("mixed", "interrupted")}
        (HERE / f"{__version__}.tar.gz").write_bytes(data)
        (HERE / f"{__version__}.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    finally:
        shutil.rmtree(PLACE, ignore_errors=True)


if __name__ == "__main__":
    main()
