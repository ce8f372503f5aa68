"""Pools for the fault suite: started by the real command line, audited from outside, held to INV of the suite."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobpool_cli.engines.processes import kill_marked
from jobpool_cli.errors import JobPoolError
from jobpool_cli.layout import pools_folder
from jobpool_cli.model import PoolState
from jobpool_cli.pool import JobPool
from tests.faults import ledger
from tests.helpers import PRELUDE, check_invariants, marked, square, succeeded, supervisors

ROOT = Path(__file__).parent.parent.parent
PATIENCE_SECONDS = 60.0

SQUARE = "def f(x: int) -> int:\n    _audit()\n    return x * x\n"


def slow_square(seconds: float, held_from: int | None = None) -> str:
    """Return a UDF that takes its time; tasks from ``held_from`` on wait for ``release("rest")``."""
    hold = "" if held_from is None else f"    if x >= {held_from}:\n        _wait_for('rest')\n"
    return f"def f(x: int) -> int:\n    _audit()\n{hold}    time.sleep({seconds})\n    return x * x\n"


class HangError(AssertionError):
    """Something did not end in time."""


class Faults:
    """What a test of the suite works with; counts what it does in the ledger of the run."""

    def __init__(self, folder: Path, scenario: int) -> None:
        """Keep all that the test makes in a folder, its pools in ``folder/home`` if not told otherwise."""
        self.folder = folder
        self.home = folder / "home"
        self.scenario = scenario
        self._homes = {self.home}
        self._shown: dict[Path, set[int]] = {}
        self.env = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        self.env |= {"PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}

    # --- the command line

    def command(self, *words: str | Path) -> list[str]:
        """Return a jobpool command's words."""
        return [sys.executable, "-m", "jobpool_cli", *map(str, words)]

    def jobpool(
        self,
        *words: str | Path,
        code: int | None = 0,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        home: Path | None = None,
        seconds: float = PATIENCE_SECONDS,
        stdin: bytes = b"",
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; it must exit with ``code`` (None: any), and never with a traceback of ours.

        Args:
            words: the verb and what follows.
            code: the exit code that it must have.
            prefix: words ahead of the command, such as ``straced(...)``.
            env: more environment.
            home: the home for pools, if not the test's own.
            seconds: when it counts as a hang.
            stdin: what it reads.
            cwd: the working folder, if not the test's own.
        """
        if home is not None:
            self._homes.add(home)
        environment = self.env | {"JOBPOOL_HOME": str(home or self.home)} | dict(env or {})
        try:
            done = subprocess.run(
                [*prefix, *self.command(*words)],
                input=stdin,
                capture_output=True,
                env=environment,
                cwd=cwd or self.folder,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self.hang(f"jobpool {' '.join(map(str, words))} took more than {seconds:g} s") from error
        text = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        told = f"exit {text.returncode}\nstdout: {text.stdout}\nstderr: {text.stderr}"
        assert code is None or text.returncode == code, told
        assert "jobpool_cli/" not in text.stderr or "Traceback" not in text.stderr, told
        return text

    def write(self, body: str, file: str = "job.py") -> Path:
        """Write a UDF's file; its code can call ``_audit()`` and ``_wait_for(name)``, released by ``release(name)``."""
        path = self.folder / file
        path.write_text(PRELUDE.format(folder=str(self.folder)) + body)
        return path

    def rows(self, n: int, file: str = "args.csv") -> Path:
        """Write a table with ``x`` from 0 to n - 1."""
        path = self.folder / file
        path.write_text("x\n" + "".join(f"{x}\n" for x in range(n)))
        return path

    def map(
        self, body: str, n: int, *options: str, name: str = "pool", home: Path | None = None, **how: Any
    ) -> JobPool[Any]:
        """Start a pool over ``x`` from 0 to n - 1 with `jobpool map`; ``how`` goes to ``jobpool``."""
        udf, table = self.write(body, f"{name}_job.py"), self.rows(n, f"{name}.csv")
        if "-j" not in options:
            options = ("-j", "2", *options)
        self.jobpool("map", udf, table, "--name", name, *options, home=home, **how)
        return self.open(name, home=home)

    def open(self, name: str = "pool", home: Path | None = None) -> JobPool[Any]:
        """Return a pool of this test."""
        return JobPool(pools_folder(home or self.home) / name)

    # --- the outside witness

    def release(self, name: str) -> None:
        """Let the tasks go on that wait for it."""
        (self.folder / name).touch()

    def audit(self, what: str = "audit") -> Counter[tuple[int, int]]:
        """Return how often each (task, attempt) began."""
        return Counter((task, attempt) for task, attempt, _ in self._audited(what))

    def ran(self, what: str = "audit") -> Counter[int]:
        """Return how often each task began."""
        return Counter(task for task, _, _ in self._audited(what))

    def pids(self, what: str = "audit") -> list[int]:
        """Return the processes that ran the tasks, a line each."""
        return [pid for _, _, pid in self._audited(what)]

    def _audited(self, what: str) -> list[tuple[int, int, int]]:
        with contextlib.suppress(FileNotFoundError):
            return [
                (int(task), int(attempt), int(pid))
                for task, attempt, pid in map(str.split, (self.folder / what).read_text().splitlines())
            ]
        return []

    # --- waiting, with hangs counted

    def hang(self, what: str) -> HangError:
        """Count a hang; return what to raise."""
        ledger.write(self.scenario, hangs=1)
        return HangError(what)

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS, what: str = "") -> None:
        """Look again and again until it holds; that it never does is a hang."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= deadline:
                raise self.hang(f"it did not happen within {seconds:g} s: {what or condition}")
            time.sleep(0.01)

    def ended(self, pool: JobPool[Any], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until nobody works on the pool any more."""
        self.until(lambda: not pool.is_live(), seconds, "the supervisor has ended")

    def finish(self, pool: JobPool[Any], seconds: float = PATIENCE_SECONDS) -> None:
        """Resume the pool as often as it takes until all its tasks are finished."""
        deadline = time.monotonic() + seconds
        while pool.snapshot().state is not PoolState.DONE or pool.is_live():
            if time.monotonic() >= deadline:
                raise self.hang(f"the pool is not done after {seconds:g} s: {pool.snapshot()}")
            if not pool.is_live():
                self.jobpool("resume", pool.name, code=None, home=pool.paths.root.parent.parent)
            time.sleep(0.02)

    # --- faults and what must hold after them

    def injected(self, count: int = 1) -> None:
        """Count faults as injected."""
        ledger.write(self.scenario, injected=count)

    def kill_supervisor(self, pool: JobPool[Any]) -> None:
        """Kill -9 the supervisor, counted; return when the kernel has given its lock back."""
        for pid in supervisors(pool.paths.root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.injected()
        self.until(lambda: not pool.is_live(), what="the dead supervisor's lock is free")

    def look(self, pool: JobPool[Any]) -> set[int]:
        """Return the tasks that the pool shows as succeeded; ``check`` will hold it to every one of them."""
        shown = succeeded(pool)
        self._shown.setdefault(pool.paths.root, set()).update(shown)
        return shown

    def check(
        self,
        pool: JobPool[Any],
        oracle: Callable[[int], object] | None = square,
        *,
        shown: Iterable[int] = (),
        audit: str | None = "audit",
    ) -> None:
        """Check INV: see ``helpers.check_invariants``; and that what is shown as succeeded has run.

        Args:
            pool: the pool; if its supervisor still works, it is waited for.
            oracle: what each successful task must have returned; None to check only that there is one result each.
            shown: tasks that were once shown as succeeded, beyond those that ``look`` saw.
            audit: the file in which this pool's tasks left their lines; None if they leave none.
        """
        self.ended(pool)
        shown = self._shown.get(pool.paths.root, set()) | set(shown)
        now = succeeded(pool)
        ledger.write(self.scenario, checked=1, tasks=pool.n_jobs, lost=len(shown - now))
        try:
            check_invariants(pool, oracle, shown=shown)
        except AssertionError as error:
            ledger.write(self.scenario, twice=int("two results" in str(error) or "two states" in str(error)))
            raise
        if audit is not None:
            assert now <= set(self.ran(audit)), "a task is shown as succeeded that never ran"

    def close(self) -> None:
        """End whatever a failed test left running."""
        for home in self._homes:
            with contextlib.suppress(OSError):
                for root in pools_folder(home).iterdir():
                    for pid in supervisors(root):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    with contextlib.suppress(JobPoolError, OSError):
                        pool: JobPool[Any] = JobPool(root)
                        kill_marked(pool.manifest.id)
                        _gone(pool)


def _gone(pool: JobPool[Any]) -> None:
    deadline = time.monotonic() + 5
    while marked(pool) and time.monotonic() < deadline:
        time.sleep(0.01)
