"""What tests with real pools share: making one, waiting without sleeping, and what must hold after anything."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobpool_cli.engines.processes import MARK, kill_marked
from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.layout import TEMPORARY_PREFIX, PoolPaths, pools_folder
from jobpool_cli.model import PoolOptions, PoolState, TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.outcomes.segments import read_outcomes
from jobpool_cli.store.state.reader import StateReader, parse_ranges
from jobpool_cli.store.values.codec import decode
from jobpool_cli.submit import check, submit
from jobpool_cli.supervisor.lock import holders

LONG_SECONDS = 40.0

# What really ran is known from outside the program: every attempt leaves a line in a file of the test's own.
PRELUDE = """
import ctypes, os, signal, subprocess, sys, time
import jobpool_cli
FOLDER = {folder!r}
def _audit(what="audit"):
    task = jobpool_cli.current_task()
    fd = os.open(os.path.join(FOLDER, what), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{{task.task}} {{task.attempt}} {{os.getpid()}}\\n".encode())
    os.close(fd)
def _wait_for(name):
    while not os.path.exists(os.path.join(FOLDER, name)):
        time.sleep(0.005)
"""


def until(condition: Callable[[], object], seconds: float = LONG_SECONDS, what: str = "") -> None:
    """Look again and again until it holds; fail when it does not come to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s: {what or condition}"
        time.sleep(0.01)


@contextlib.contextmanager
def imports_undone() -> Iterator[None]:
    """Forget what is imported inside, so that a UDF of one test is not found by the next."""
    modules, path, finders = set(sys.modules), list(sys.path), list(sys.meta_path)
    try:
        yield
    finally:
        for name in set(sys.modules) - modules:
            if getattr(sys.modules[name], "__file__", None) and "job" in name:
                del sys.modules[name]
        sys.path[:], sys.meta_path[:] = path, finders


class Bench:
    """A home for pools in a test's folder, and the file in which the tasks' attempts leave a line."""

    def __init__(self, folder: Path) -> None:
        """Keep everything in one folder."""
        self.folder = folder
        self.home = folder / "home"

    def write(self, body: str, file: str = "job.py") -> str:
        """Write a UDF; its code can call ``_audit()`` and ``_wait_for(name)``, released by ``release(name)``."""
        path = self.folder / file
        path.write_text(PRELUDE.format(folder=str(self.folder)) + body)
        return str(path)

    def map(self, body: str, n: int, *, name: str = "pool", options: PoolOptions | None = None) -> JobPool[Any]:
        """Start a pool over ``x`` from 0 to n - 1."""
        source = self.folder / f"{name}.csv"
        source.write_text("x\n" + "".join(f"{x}\n" for x in range(n)))
        with imports_undone():
            udf = self.write(body, f"{name.replace('-', '_')}_job.py")
            checked = check(udf, str(source), constants={}, options=options or PoolOptions(workers=2))
        return JobPool(submit(checked, self.home, name).root)

    def release(self, name: str) -> None:
        """Let the tasks go on that wait for it."""
        (self.folder / name).touch()

    def audit(self, what: str = "audit") -> Counter[tuple[int, int]]:
        """Return how often each (task, attempt) ran."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / what).read_text().splitlines()
            return Counter((int(task), int(attempt)) for task, attempt, _ in map(str.split, lines))
        return Counter()

    def pids(self, what: str = "audit") -> list[int]:
        """Return the processes that ran the tasks, in the order of the lines."""
        path = self.folder / what
        return [int(line.split()[2]) for line in path.read_text().splitlines()] if path.exists() else []

    def close(self) -> None:
        """End whatever a failed test left running."""
        with contextlib.suppress(FileNotFoundError):
            for root in pools_folder(self.home).iterdir():
                for pid in supervisors(root):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                # A test may have damaged it.
                with contextlib.suppress(FileNotFoundError, DamagedPoolError):
                    kill_marked(Manifest.read(root / "pool.json").id)


def supervisors(root: Path) -> list[int]:
    """Return the process of a pool's supervisor."""
    return [pid for pid, _ in holders(root / "lock")]


def marked(pool: JobPool[Any]) -> list[int]:
    """Return the processes that carry the pool's mark."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARK}={pool.manifest.id}".encode() in Path(entry.path, "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def kill_supervisor(pool: JobPool[Any]) -> None:
    """Kill -9 the supervisor, and return when the kernel has given its lock back."""
    (pid,) = supervisors(pool.paths.root)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not pool.is_live(), what="the dead supervisor's lock is free")


def succeeded(pool: JobPool[Any]) -> set[int]:
    """Return the tasks that the pool shows as succeeded."""
    with StateReader(pool.paths.state_db) as reader:
        return {task for low, high in reader.success_ranges() for task in range(low, high)}


def results_of(pool: JobPool[Any]) -> dict[int, object]:
    """Return every stored result by task; a task that is stored twice is an error."""
    found: dict[int, object] = {}
    with StateReader(pool.paths.state_db) as reader:
        for table in read_outcomes(pool.paths, reader, ["task", "result", "result_pickle"]):
            pickles = table.schema.field("result_pickle")
            values = decode(table["result"], table.schema.field("result"), table["result_pickle"], pickle_field=pickles)
            for task, value in zip(table["task"].to_pylist(), values, strict=True):
                assert task not in found, f"task {task} has two results"
                found[task] = value
    return found


def recount(paths: PoolPaths) -> dict[str, list[int]]:
    """Return the tasks of each finished state as the tables have them, by way of SQLite alone."""
    connection = sqlite3.connect(f"{paths.state_db.as_uri()}?mode=ro", uri=True)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        states: dict[str, list[int]] = {"success": [], "error": [], "timeout": [], "cancelled": []}
        for rows, text in connection.execute(
            "SELECT rows, ranges FROM inbox UNION ALL SELECT rows, ranges FROM segments"
        ):
            tasks = [task for low, high in parse_ranges(text) for task in range(low, high)]
            assert len(tasks) == rows
            states["success"] += tasks
        for task, state in connection.execute("SELECT task, state FROM failures WHERE current = 1"):
            states[state].append(task)
        for low, high in connection.execute("SELECT low, high FROM cancelled"):
            states["cancelled"] += range(low, high)
        counters = connection.execute("SELECT success, error, timeout, cancelled FROM counters").fetchone()
        unsealed = connection.execute(
            "SELECT unsealed, (SELECT coalesce(sum(rows), 0) FROM inbox) FROM counters"
        ).fetchone()
        by_udf = connection.execute("SELECT coalesce(sum(rows), 0) FROM successes_by_udf").fetchone()
    finally:
        connection.close()
    assert counters == tuple(len(states[state]) for state in ("success", "error", "timeout", "cancelled"))
    assert unsealed[0] == unsealed[1]
    assert by_udf == (len(states["success"]),)
    return states


def check_invariants(
    pool: JobPool[Any], oracle: Callable[[int], object] | None = None, *, shown: Iterable[int] = ()
) -> None:
    """Check what must hold after whatever happened to a pool that is not being worked on any more.

    Args:
        pool: the pool.
        oracle: what each successful task must have returned.
        shown: tasks that were once shown as succeeded.
    """
    until(lambda: not pool.is_live(), what="the supervisor has ended")
    states = recount(pool.paths)
    every = [task for tasks in states.values() for task in tasks]
    assert len(every) == len(set(every)), "a task is in two states"
    assert set(every) <= set(range(pool.n_jobs))
    status = pool.snapshot()
    assert sum(status.counts.values()) == pool.n_jobs
    assert status.counts[TaskState.RUNNING] == 0
    assert status.state is (PoolState.DONE if len(every) == pool.n_jobs else PoolState.INTERRUPTED)
    assert set(shown) <= set(states["success"]), "a success that was shown is lost"

    results = results_of(pool)
    assert sorted(results) == sorted(states["success"])
    if oracle is not None:
        assert results == {task: oracle(task) for task in results}
    if status.state is PoolState.DONE:
        sealed = pa.Table.from_pylist([{"n": path.name} for path in pool.paths.results.iterdir()])
        with StateReader(pool.paths.state_db) as reader:
            assert reader.inbox_rows() == 0
            assert sorted(row["n"] for row in sealed.to_pylist()) == sorted(each.file for each in reader.segments())
        collected = pool.gather(ignore_exceptions=True, drop_index=True).to_pandas()
        assert sorted(collected.index) == sorted(states["success"])

    temporaries = [path for path in pool.paths.root.rglob(f"{TEMPORARY_PREFIX}*") if "udf" not in path.parts]
    assert not temporaries
    until(lambda: not marked(pool), 2.0, "no process carries the pool's mark")


def square(x: int) -> int:
    """Say what most of the tests' functions return."""
    return x * x
