"""Scenario 17: whatever is done to pools, in whatever order, they keep to their model; driven by hypothesis.

``map`` and what runs at once are processes of their own; supervisors and workers always are. Everything else goes
through the same command line in this process. Rules draw nothing that depends on the moment, so that an example can be
run again as it was, as far as two cores allow.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from jobpool_cli.model import PoolState
from tests.faults import ledger
from tests.faults.harness import Faults
from tests.faults.injection import stopped
from tests.faults.pool_model import FAILED, Code, Options, PoolModel
from tests.helpers import supervisors

MOST_POOLS = 2
# How often each thing is done; hypothesis by itself would choose few kinds for an example and many of a kind.
DEEDS = {
    "map": 2,
    "map_under_a_name_that_is_taken": 1,
    "rm": 1,
    "wait": 3,
    "read": 5,
    "retry": 2,
    "retry_one": 2,
    "retry_with_mended_code": 3,
    "cancel": 2,
    "pause": 2,
    "resume": 5,
    "resume_at_once_several_times": 2,
    "shutdown": 2,
    "kill_the_supervisor": 4,
    "kill_a_worker": 3,
    "stop_a_worker_for_a_while": 1,
    "stop_the_supervisor_for_a_while": 2,
}


class PoolsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        """Keep the example's pools in a folder of its own."""
        super().__init__()
        self.faults = Faults(Path(tempfile.mkdtemp(prefix="jobpool-machine-")), 17)
        self.models: list[PoolModel] = []
        self.made = 0

    @rule(
        what=st.sampled_from([deed for deed, times in DEEDS.items() for _ in range(times)]),
        which=st.integers(0, MOST_POOLS - 1),
        seed=st.integers(0, 2**20),
    )
    def do(self, what: str, which: int, seed: int) -> None:
        """Do something to a pool; all that is open about it follows from the seed."""
        getattr(self, what)(self.models[which % len(self.models)], random.Random(seed))  # noqa: S311

    # --- making and deleting

    @initialize(seed=st.integers(0, 2**20))
    def first_map(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        self.make(
            Options(chance.choice([120, 300]), chance.choice([0, 0, 2]), 2, None, 2), self.code(1, chance, least=1)
        )

    def code(self, version: int, chance: random.Random, *, least: int = 0, kinds: int = 3) -> Code:
        bad = {
            chance.randrange(12): chance.choice(["fails", "fails", "flaky", "crashes"])
            for _ in range(chance.randint(least, kinds))
        }
        return Code(version, chance.choice([0.01, 0.03, 0.09, 0.2]), bad)

    def make(self, options: Options, code: Code) -> None:
        self.made += 1
        model = PoolModel(self.faults, f"pool{self.made}", options)
        self.models.append(model)
        model.start(code)

    def map(self, model: PoolModel, chance: random.Random) -> None:
        if len(self.models) == MOST_POOLS:
            self.read(model, chance)
            return
        n, code = chance.choice([0, 1, 12, 60, 200]), self.code(1, chance)
        hangs = n == 12
        if hangs:
            code.kinds[7] = "hangs"
        retries = 0 if hangs else chance.randrange(3)
        self.make(Options(n, retries, chance.randint(1, 3), 1.5 if hangs else None, chance.randint(1, 3)), code)

    def map_under_a_name_that_is_taken(self, model: PoolModel, _: random.Random) -> None:
        source = self.faults.rows(1, "other.csv")
        self.faults.jobpool("map", model.write(model.codes[-1]), source, "--name", model.name, code=4)

    def rm(self, model: PoolModel, chance: random.Random) -> None:
        if len(self.models) == 1:
            return
        model.look()
        self.models.remove(model)
        pool = model.pool
        code = 4
        if chance.random() < 0.5:
            live = pool.snapshot().state in {PoolState.RUNNING, PoolState.PAUSED}
            code, _ = model.run("rm", "--yes", codes=(0, 4))
            assert code == 0 or live
        if code:
            model.run("rm", "--force")
        assert not pool.paths.root.exists()
        model.run("status", codes=(3,))

    # --- letting it run

    def wait(self, model: PoolModel, chance: random.Random) -> None:
        code, _ = model.run("wait", "--quiet", "--timeout", chance.choice([0.05, 0.2, 0.6]), codes=(0, 1, 4, 124))
        status = model.pool.snapshot()
        if code in {0, 1}:
            assert status.state is PoolState.DONE
            assert bool(status.failed) == bool(code)
        elif code == 4:
            assert status.state is PoolState.INTERRUPTED
            assert status.reason

    # --- looking

    def read(self, model: PoolModel, chance: random.Random) -> None:
        verb = chance.choice(["tasks", "results", "errors", "collect"])
        if verb == "results":
            model.read_results()
            return
        states = model.look()
        if verb == "errors":
            said = model.run("errors", "--list", "--json")[1].splitlines()
            tasks = [json.loads(line)["task"] for line in said if line[0] == "{"]
            assert len(tasks) == len(set(tasks))
            assert {task for task, state in states.items() if state in FAILED} <= set(tasks)
        if verb == "collect":
            self.collect(model, {task for task, state in states.items() if state == "success"}, "--partial")

    def collect(self, model: PoolModel, shown: set[int], *words: str) -> None:
        if not shown:
            # A table of no rows has no columns either: there is nothing to collect yet.
            return
        out = self.faults.folder / "collected.jsonl"
        model.run("collect", "--ignore-exceptions", "--drop-index", *words, "-o", out)
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        found = {row["result"] // 1000: row["result"] for row in rows}
        assert len(found) == len(rows), "a task was collected twice"
        assert shown <= set(found), f"not collected: {shown - set(found)}"
        model.hold_results(found)

    # --- asking for something

    def retry(self, model: PoolModel, chance: random.Random) -> None:
        cancelled = chance.random() < 0.5
        model.look()
        model.open_again(FAILED | ({"cancelled"} if cancelled else set()))
        model.run("retry", *(["--cancelled"] if cancelled else []))

    def retry_one(self, model: PoolModel, chance: random.Random) -> None:
        states = model.look()
        if not states:
            model.run("retry", "--task", 0, codes=(2,))
            return
        task = chance.randrange(model.options.n)
        model.open_again(FAILED | {"cancelled"}, task)
        if states[task] == "success":
            model.run("retry", "--task", task, codes=(4,))
        elif states[task] in FAILED | {"cancelled"}:
            model.run("retry", "--task", task)
        else:
            model.run("retry", "--task", task, codes=(0, 4))

    def retry_with_mended_code(self, model: PoolModel, chance: random.Random) -> None:
        cancelled = chance.random() < 0.5
        model.look()
        code = self.code(1 + len(model.codes) + len(model.unused), chance, kinds=1)
        model.open_again(FAILED | ({"cancelled"} if cancelled else set()))
        _, said = model.run("retry", "--udf", model.write(code), *(["--cancelled"] if cancelled else []))
        if "nothing to retry" in said:
            model.unused.append(code)
        else:
            model.codes.append(code)
            model.old_lines = sum(self.faults.ran(model.audit_file(each)).total() for each in model.codes[:-1])
        model.look()

    def cancel(self, model: PoolModel, chance: random.Random) -> None:
        model.look()
        model.was_cancelled = True
        model.frozen = None
        wait = chance.random() < 0.3
        words = [
            *(["--running"] if chance.random() < 0.5 else []),
            *(["--wait", "--timeout", 30] if wait else []),
        ]
        model.run("cancel", *words)
        states = model.look()
        if wait:
            assert not {"pending", "running"} & set(states.values())

    def pause(self, model: PoolModel, _chance: random.Random) -> None:
        before = model.pool.snapshot().state
        code, said = model.run("pause", codes=(0, 4))
        lines = model.lines().total()
        in_hand = re.search(r"([\d,]+) tasks? in hand", said)
        if before in {PoolState.DONE, PoolState.INTERRUPTED}:
            assert code == 4
        elif code == 0 and model.options.timeout is None:
            quiet = 0
            deadline = time.monotonic() + 20
            while quiet < 10:
                quiet = 0 if model.pool.running_tasks() else quiet + 1
                assert time.monotonic() < deadline, "a paused pool comes to no rest"
                time.sleep(0.01)
            model.frozen = model.lines().total()
            assert model.frozen - lines <= (int(in_hand[1]) if in_hand else 0), "a paused pool went on"
            model.look()

    def resume(self, model: PoolModel, _chance: random.Random) -> None:
        before = model.pool.snapshot()
        model.frozen = None
        code, _ = model.run("resume", codes=(0, 4))
        if before.state in {PoolState.PAUSED, PoolState.INTERRUPTED}:
            assert code == 0 or model.pool.snapshot().state is PoolState.DONE
        elif before.state is PoolState.DONE or not before.reason:
            assert code == 4

    def resume_at_once_several_times(self, model: PoolModel, chance: random.Random) -> None:
        before = model.pool.snapshot().state
        model.frozen = None
        words = self.faults.command("resume", model.name)
        env = self.faults.env | {"JOBPOOL_HOME": str(self.faults.home)}
        started = [
            subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.faults.folder)
            for _ in range(chance.randint(2, 3))
        ]
        ends = [(process.communicate(timeout=60)[1].decode(), process.returncode) for process in started]
        codes = sorted(code for _, code in ends)
        assert set(codes) <= {0, 4}, ends
        assert len(supervisors(model.pool.paths.root)) <= 1
        if before is PoolState.INTERRUPTED:
            assert codes[0] == 0, ends
        if before is PoolState.DONE:
            assert codes[0] == 4, ends

    def shutdown(self, model: PoolModel, chance: random.Random) -> None:
        model.run("shutdown", *(["--no-wait"] if chance.random() < 0.5 else []))
        assert not model.pool.is_live()
        model.look()

    # --- faults

    def kill_the_supervisor(self, model: PoolModel, chance: random.Random) -> None:
        model.supervisor_kills += 1
        doomed = model.running_workers() if chance.random() < 0.5 else []
        self.faults.kill_supervisor(model.pool)
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.faults.injected(len(doomed))
        model.look()

    def kill_a_worker(self, model: PoolModel, _chance: random.Random) -> None:
        for pid in model.running_workers()[:1]:
            model.worker_kills += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.faults.injected()

    def stop_a_worker_for_a_while(self, model: PoolModel, chance: random.Random) -> None:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError), stopped(*model.running_workers()[:1]):
            self.faults.injected()
            model.look()
            time.sleep(chance.choice([0.02, 0.2]))

    def stop_the_supervisor_for_a_while(self, model: PoolModel, chance: random.Random) -> None:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError), stopped(*supervisors(model.pool.paths.root)):
            self.faults.injected()
            model.look()
            if chance.random() < 0.5:
                # A request that nobody answers in time stands, and is honoured afterwards.
                model.was_cancelled = True
                model.frozen = None
                code, _ = model.run("cancel", "--timeout", "0.1", codes=(0, 124))
                assert code == 124 or not model.pool.is_live() or model.pool.snapshot().state is PoolState.DONE

    # --- the end

    def check_all(self) -> None:
        self.faults.release("hurry")
        for model in self.models:
            pool = model.pool
            model.look()
            model.frozen = None
            self.end(model)
            model.look()
            model.read_results()
            shown = {task for task, (state, _, _) in model.ended.items() if state == "success"}
            assert len(model.ended) == model.options.n, "not every task has ended"
            self.collect(model, shown)
            self.faults.check(pool, None, shown=shown, audit=None)

    def end(self, model: PoolModel) -> None:
        """Go on, as often as it takes, until all tasks have ended."""
        pool = model.pool
        deadline = time.monotonic() + 60
        while (status := pool.snapshot()).state is not PoolState.DONE or pool.is_live():
            if time.monotonic() >= deadline:
                raise self.faults.hang(f"the pool is not done: {status}")
            if status.state is PoolState.PAUSED or (status.state is PoolState.INTERRUPTED and not pool.is_live()):
                model.run("resume", codes=(0, 4))
            time.sleep(0.02)

    def teardown(self) -> None:
        try:
            self.check_all()
        finally:
            self.clear()

    def clear(self) -> None:
        self.faults.close()
        shutil.rmtree(self.faults.folder, ignore_errors=True)


# Everything once, most of it while tasks run: what a few examples of chance may miss.
TOUR = (
    "retry_one", "kill_a_worker", "retry_with_mended_code", "pause", "read", "resume", "kill_the_supervisor", "read",
    "retry", "resume_at_once_several_times", "stop_a_worker_for_a_while", "retry_with_mended_code", "map", "wait",
    "kill_the_supervisor", "resume", "pause", "kill_the_supervisor", "resume", "shutdown", "resume",
    "stop_the_supervisor_for_a_while", "retry", "resume", "map_under_a_name_that_is_taken", "cancel", "retry", "cancel",
    "read", "rm",
)  # fmt: skip


@pytest.mark.scenario(17)
def test_a_pool_to_which_everything_is_done_keeps_to_its_model() -> None:
    """Scenario 17: every deed of the state machine once, in an order in which it matters."""
    for seed in range(1, ledger.scaled(2, 11)):
        machine = PoolsMachine()
        try:
            machine.make(Options(300, 0, 2, None, 2), Code(1, 0.03, {1: "fails", 5: "flaky", 9: "crashes"}))
            for turn, what in enumerate(TOUR):
                machine.do(what=what, which=0, seed=100 * seed + turn)
        except BaseException:
            machine.clear()
            raise
        machine.teardown()


@pytest.mark.scenario(17)
def test_whatever_is_done_to_pools_they_keep_to_their_model() -> None:
    """Scenario 17: map, kill, retry, cancel, resume, collect, rm and their like in any order, against a model."""
    run_state_machine_as_test(
        PoolsMachine,
        settings=settings(
            max_examples=ledger.scaled(2, 50),
            stateful_step_count=ledger.scaled(30, 60),
            derandomize=not ledger.is_long(),
            database=None,
            phases=[Phase.generate],
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
