"""Process numbers that are somebody else's by now: never shown alive, never signalled."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobpool_cli.model import PoolState, TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.store import slots
from tests.faults import injection
from tests.faults.harness import Faults
from tests.helpers import marked, supervisors

HELD = "def f(x: int) -> int:\n    _audit()\n    _wait_for('go')\n    return x * x\n"


class Namespace:
    """A PID namespace of the test's own, in which a number can be given to whom one likes."""

    def __init__(self) -> None:
        """Start its first process."""
        self._first = subprocess.Popen(
            # A shell, which buries the orphans that come to it: a number is free only then.
            injection.in_pid_namespace("sh", "-c", "echo ready; sleep 3600; :"),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text().split()
        self.enter = ["nsenter", "--target", children[0], "--pid", "--mount"]

    def number(self, pid: int) -> int:
        """Return a process's number in here."""
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
        raise LookupError(pid)

    def stranger(self, number: int) -> None:
        """Start a process under this number, which must be free."""
        script = f"echo {number - 1} > /proc/sys/kernel/ns_last_pid; sleep 3600 >/dev/null 2>&1 & echo $!"
        for _ in range(20):
            # Another process may be quicker; then the number is still free, and one tries again.
            got = subprocess.run([*self.enter, "sh", "-c", script], capture_output=True, text=True, check=True).stdout
            if int(got) == number:
                return
            subprocess.run([*self.enter, "kill", "-9", got.strip()], check=True)
        pytest.fail(f"no process could be started as {number}")

    def lives(self, number: int) -> bool:
        """Return whether the stranger of this number still sleeps."""
        words = [*self.enter, "cat", f"/proc/{number}/cmdline"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.startswith("sleep\0")

    def close(self) -> None:
        """End it, and with it all that is in it."""
        self._first.kill()
        self._first.communicate()


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A PID namespace; it is gone at the end."""
    injection.need("nsenter", root=True)
    made = Namespace()
    yield made
    made.close()


def reused(faults: Faults, namespace: Namespace) -> tuple[JobPool[object], list[int]]:
    """Return a pool whose processes were killed, and their numbers, which strangers have by now."""
    pool = faults.map(HELD, 6, prefix=namespace.enter)
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    processes = [*supervisors(pool.paths.root), *marked(pool)]
    numbers = [namespace.number(pid) for pid in processes]
    assert {each.pid for each in pool.running_tasks()} <= set(numbers)
    injection.kill(*processes)
    faults.until(lambda: not any(map(injection.alive, processes)) and not pool.is_live())
    for number in numbers:
        namespace.stranger(number)
    faults.injected(len(numbers))
    assert len(numbers) >= 3
    return pool, numbers


@pytest.mark.scenario(21)
def test_a_stranger_with_a_dead_process_s_number_is_not_taken_for_it_and_not_signalled(
    faults: Faults, namespace: Namespace
) -> None:
    """Scenario 21: strangers have the numbers of supervisor and workers; status, resume and cancel leave them alone."""
    pool, numbers = reused(faults, namespace)
    inside = namespace.enter
    words = memoryview(pool.paths.slots.read_bytes()).cast("q")
    stale = {words[base + slots.PID] for base in range(0, len(words), slots.WORDS)} - {0}
    assert stale <= set(numbers), "the file of slots still names the dead workers"
    assert stale
    status = pool.snapshot()
    assert status.state is PoolState.INTERRUPTED
    assert status.counts[TaskState.RUNNING] == 0
    assert not pool.running_tasks()
    assert "running" not in faults.jobpool("tasks", "pool", prefix=inside).stdout
    assert "interrupted" in faults.jobpool("status", "pool", prefix=inside).stdout

    faults.jobpool("resume", "pool", prefix=inside)
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    assert not {each.pid for each in pool.running_tasks()} & set(numbers)
    faults.jobpool("cancel", "pool", "--running", "--wait", prefix=inside)
    faults.check(pool)
    assert all(map(namespace.lives, numbers))


@pytest.mark.scenario(21)
def test_deleting_a_pool_by_force_leaves_strangers_with_its_numbers_alone(faults: Faults, namespace: Namespace) -> None:
    """Scenario 21: rm --force of the interrupted pool, and of another whose worker's number was used again."""
    pool, numbers = reused(faults, namespace)
    faults.jobpool("rm", "pool", "--force", prefix=namespace.enter)
    assert not pool.paths.root.exists()
    assert all(map(namespace.lives, numbers))


@pytest.mark.scenario(21)
def test_a_dead_worker_s_number_that_is_used_again_while_the_pool_runs_is_not_signalled(
    faults: Faults, namespace: Namespace
) -> None:
    """Scenario 21: a worker is replaced, a stranger gets its number, then the running tasks are cancelled."""
    pool = faults.map(HELD, 6, prefix=namespace.enter)
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    victim = marked(pool)[0]
    number = namespace.number(victim)
    injection.kill(victim)
    faults.until(lambda: len(pool.failures(history=True)) == 1)
    faults.until(lambda: not Path(f"/proc/{victim}").exists())
    namespace.stranger(number)
    faults.injected()
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    assert number not in {each.pid for each in pool.running_tasks()}
    faults.jobpool("cancel", "pool", "--running", "--wait", prefix=namespace.enter)
    faults.check(pool)
    assert namespace.lives(number)
