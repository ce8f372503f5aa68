"""What a real pool may look like after whatever was done to it: the model of scenario 17.

Tasks run while the test thinks, so that the model does not know where each one is. It knows what can never be:

- what was once shown as ended is as it was, and no line of it was added to the audit file, until a retry takes it up;
- a task ends only as its code lets it end, or as a fault that was injected explains;
- a result is that of a code version that ran the task; after `retry --udf` was answered no old code begins;
- attempts rise, and none is begun twice unless the supervisor was killed;
- a task each, a state each, and the counts add up.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from jobpool_cli.cli.main import main
from jobpool_cli.pool import JobPool
from tests.faults.harness import Faults
from tests.helpers import imports_undone, marked

FINISHED = {"success", "error", "timeout", "cancelled"}
FAILED = {"error", "timeout"}

BODY = """
VERSION, PACE, KINDS = {version}, {pace}, {kinds}
def f(x: int) -> int:
    _audit("{audit}")
    kind = KINDS.get(x % 60, "good")
    if kind == "fails" or (kind == "flaky" and jobpool_cli.current_task().attempt % 2):
        raise ValueError(f"{{x}} is bad")
    if kind == "crashes":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hangs":
        time.sleep(60)
    # Nobody need wait for the rest of the pool when the example is over.
    end = time.monotonic() + PACE
    while time.monotonic() < end and not os.path.exists(os.path.join(FOLDER, "hurry")):
        time.sleep(0.01)
    return x * 1000 + VERSION
"""


@dataclass(frozen=True, eq=False)
class Code:
    """A version of the function; the task's position modulo 60 decides what becomes of it."""

    version: int
    pace: float
    kinds: dict[int, str]

    def kind(self, task: int) -> str:
        return self.kinds.get(task % 60, "good")


@dataclass(frozen=True)
class Options:
    """How a pool was mapped."""

    n: int
    retries: int
    max_crashes: int
    timeout: float | None
    workers: int

    def words(self) -> list[str]:
        given = ["-j", self.workers, "--retries", self.retries, "--max-crashes", self.max_crashes]
        return [str(word) for word in [*given, *(["--timeout", self.timeout] if self.timeout else [])]]


@dataclass
class PoolModel:
    """A pool and all that is known of it."""

    faults: Faults
    name: str
    options: Options
    codes: list[Code] = field(default_factory=list)
    unused: list[Code] = field(default_factory=list)
    """Offered by a retry that had nothing to take up."""
    worker_kills: int = 0
    supervisor_kills: int = 0
    was_cancelled: bool = False
    ended: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    """Of tasks that were shown as ended: state, attempt, lines in the audit file by then."""
    reopened: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of tasks that were since taken up again: the attempt and the lines when they were last shown as ended."""
    attempts: dict[int, int] = field(default_factory=dict)
    results: dict[int, int] = field(default_factory=dict)
    old_lines: int | None = None
    """Lines of code that is not the newest, when that was answered for."""
    frozen: int | None = None
    """Lines in all, since the pool has come to rest under a pause."""

    # --- what is done to it

    def start(self, code: Code) -> None:
        self.codes.append(code)
        source = self.faults.rows(self.options.n, f"{self.name}.csv")
        self.faults.jobpool("map", self.write(code), source, "--name", self.name, *self.options.words())

    def write(self, code: Code) -> str:
        body = BODY.format(**{**code.__dict__, "audit": self.audit_file(code)})
        return str(self.faults.write(body, f"{self.name}_job_{code.version}.py"))

    def audit_file(self, code: Code) -> str:
        return f"audit-{self.name}-{code.version}"

    @property
    def pool(self) -> JobPool[Any]:
        return self.faults.open(self.name)

    def run(self, verb: str, *words: object, codes: Collection[int] = (0,)) -> tuple[int, str]:
        """Run a command on the pool in this process, which is quick; return its exit code and all that it said."""
        out, err = io.StringIO(), io.StringIO()
        given = [verb, self.name, *map(str, words), "--home", str(self.faults.home)]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), imports_undone():
            code = main(given)
        told = f"jobpool {' '.join(given)}: exit {code}\n{out.getvalue()[-2000:]}\n{err.getvalue()}"
        assert code in codes, told
        assert "Traceback" not in err.getvalue(), told
        return code, out.getvalue() + err.getvalue()

    def running_workers(self) -> list[int]:
        """Return the workers that are in a task at this moment."""
        return sorted({each.pid for each in self.pool.running_tasks()} & set(marked(self.pool)))

    def open_again(self, states: set[str], task: int | None = None) -> None:
        """A retry is about to take up what ended so."""
        for each, (state, attempt, lines) in list(self.ended.items()):
            if state in states and task in {None, each}:
                del self.ended[each]
                self.reopened[each] = (attempt or 0, lines)
        self.frozen = None

    # --- what is seen of it

    def lines(self) -> Counter[int]:
        """Return how often each task began, by whatever code."""
        return sum((self.faults.ran(self.audit_file(code)) for code in self.codes), Counter[int]())

    def look(self) -> dict[int, str]:
        """Look at every task, hold the pool to all that is known; return the tasks' states."""
        status = json.loads(self.run("status", "--json")[1])
        assert sum(status["counts"].values()) == self.options.n
        rows = [json.loads(line) for line in self.run("tasks", "--json")[1].splitlines()]
        assert [row["task"] for row in rows] == list(range(self.options.n))
        ran = {code.version: self.faults.ran(self.audit_file(code)) for code in self.codes}
        lines = sum(ran.values(), Counter[int]())
        for row in rows:
            self._see(row, lines[row["task"]], [code for code in self.codes if ran[code.version][row["task"]]])
        if self.old_lines is not None:
            old = sum(ran[code.version].total() for code in self.codes[:-1])
            assert old - self.old_lines <= self.options.workers, "old code began after the new one was promised"
        if self.frozen is not None:
            assert lines.total() == self.frozen, "a task began in a paused pool"
        assert not [code for code in self.unused if self.faults.ran(self.audit_file(code))]
        if not self.supervisor_kills:
            twice = [key for code in self.codes for key, n in self.faults.audit(self.audit_file(code)).items() if n > 1]
            assert not twice, f"(task, attempt) was begun twice: {twice}"
        return {row["task"]: row["state"] for row in rows}

    def _see(self, row: dict[str, Any], lines: int, ran: list[Code]) -> None:
        task, state, attempt = row["task"], row["state"], row["attempt"]
        known = self.ended.get(task)
        assert known is None or known == (state, attempt, lines), f"{row} was {known}, and now has {lines} lines"
        if attempt is not None:
            assert attempt >= self.attempts.get(task, 1), f"{row} was at attempt {self.attempts[task]}"
            self.attempts[task] = attempt
        if state not in FINISHED:
            return
        kinds = {code.kind(task) for code in ran}
        error = str(row["error"] or "").partition(":")[0]
        assert self._explained(state, error, kinds), f"{row} is not explained by {kinds} with {self}"
        if error == "ValueError" and not self.was_cancelled:
            assert lines > self.options.retries, f"{row} was given up after {lines} executions"
        before, then = self.reopened.get(task, (0, 0))
        ran_no_more = lines == then or state == "cancelled"
        assert ran_no_more or attempt > before, f"{row} ran again, and was at attempt {before} before"
        self.ended[task] = (state, attempt, lines)

    def _explained(self, state: str, error: str, kinds: set[str]) -> bool:
        if state == "cancelled":
            return self.was_cancelled
        if state == "timeout":
            return self.options.timeout is not None
        if state == "success":
            return bool(kinds & {"good", "flaky"})
        if error == "WorkerCrashed":
            # What goes down while a cancel is carried out does not run again.
            return "crashes" in kinds or self.worker_kills >= (1 if self.was_cancelled else self.options.max_crashes)
        return error == "ValueError" and bool(kinds & {"fails", "flaky"})

    def read_results(self) -> None:
        """Read all results, and hold them to the code that ran, and to what was read before."""
        states = self.look()
        found = {}
        for line in self.run("results", "--json")[1].splitlines():
            if line.startswith("{"):
                row = json.loads(line)
                assert row["task"] not in found
                found[row["task"]] = row["result"]
        missing = {task for task, state in states.items() if state == "success"} - set(found)
        assert not missing, f"successes without a result: {missing}"
        self.hold_results(found)

    def hold_results(self, found: dict[int, int]) -> None:
        ran = {code: self.faults.ran(self.audit_file(code)) for code in self.codes}
        for task, value in found.items():
            versions = {code.version for code in ran if ran[code][task] and code.kind(task) in {"good", "flaky"}}
            assert value // 1000 == task, f"task {task} has the result {value}"
            assert value % 1000 in versions, f"task {task} has the result {value}, and ran {versions}"
        changed = {task for task, value in self.results.items() if found.get(task) != value}
        assert not changed, f"results changed or gone: {changed}"
        self.results = found
