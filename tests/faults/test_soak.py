"""The soak: a thousand random kills over a hundred thousand tasks in pools of several shapes."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from jobpool_cli.errors import JobPoolError
from jobpool_cli.model import PoolState, TaskState
from jobpool_cli.pool import JobPool
from tests.faults import ledger
from tests.faults.harness import Faults
from tests.faults.injection import kill
from tests.faults.witness import Witness
from tests.helpers import marked, supervisors

# More than a pool survives; none of its tasks may fail because it was hit so often.
MAX_CRASHES = "100000"
POOL_SECONDS = 900.0
SIDE_BY_SIDE = 3
LARGE_BYTES = 9 << 20


@dataclass(frozen=True)
class Shape:
    """What the tasks of a pool are like.

    Attributes:
        body: of the function, after the line that audits.
        result: what a task returns; raises where it fails for good.
        tasks: how many, in the quick and in the long form.
        options: of `map`.
    """

    name: str
    body: str
    result: Callable[[int], object]
    tasks: tuple[int, int]
    options: tuple[str, ...] = ()

    def fails(self, x: int) -> bool:
        """Whether a task fails at its last attempt."""
        try:
            self.result(x)
        except ValueError:
            return True
        return False


def _several_kinds(x: int) -> object:
    kinds: list[object] = [x, str(x), None, x / 4, [x, x], {"x": x}]
    return kinds[x // 500 % 6]


def _picky(x: int) -> int:
    if x % 11 == 0:
        raise ValueError(x)
    return x * x


def _large(x: int) -> bytes:
    # Enough that the worker writes it as a segment of its own; of few random bytes, or the sweep would take its time.
    return random.Random(x).randbytes(1000) * 10 if x % 10 else random.Random(x).randbytes(LARGE_BYTES)  # noqa: S311


SHAPES = (
    # Trivial tasks: large batches; the nap is what gives the kills something to hit.
    Shape(
        "trivial",
        "    if x % 1000 == 999:\n        time.sleep(0.05)\n"
        '    return [x, str(x), None, x / 4, [x, x], {"x": x}][x // 500 % 6]\n',
        _several_kinds,
        (3000, 25_000),
    ),
    Shape("slow", "    time.sleep(0.01)\n    return x * x\n", lambda x: x * x, (60, 1_500)),
    Shape(
        "picky",
        "    time.sleep(0.001)\n    if x % 11 == 0 or (x % 7 == 0 and jobpool_cli.current_task().attempt == 1):\n"
        "        raise ValueError(x)\n    return x * x\n",
        _picky,
        (200, 6_000),
        ("--retries", "2"),
    ),
    Shape(
        "large",
        "    import random\n    time.sleep(0.02)\n"
        f"    return random.Random(x).randbytes(1000) * 10 if x % 10 else random.Random(x).randbytes({LARGE_BYTES})\n",
        _large,
        (20, 200),
    ),
    Shape(
        "loud",
        "    for line in range(5):\n        print('task', x, 'line', line)\n    time.sleep(0.001)\n    return x\n",
        lambda x: x,
        (200, 6_000),
    ),
)


class Killer:
    """Kills processes of pools until it has killed enough; shared by the threads that look after one pool each."""

    def __init__(self, faults: Faults, goal: int) -> None:
        """Kill so often."""
        self.faults = faults
        self.goal = goal
        self.kills = 0
        self._lock = threading.Lock()

    @property
    def through(self) -> bool:
        """Whether it has killed enough."""
        return self.kills >= self.goal

    def count(self, kills: int) -> None:
        """Count kills."""
        with self._lock:
            self.kills += kills
        self.faults.injected(kills)

    def torment(self, pool: JobPool[Any], witness: Witness, chance: random.Random) -> None:
        """Kill what works on a pool, at random, as fast as the pool gets on in between, until it is done."""
        deadline = time.monotonic() + POOL_SECONDS
        ran = -1
        since_progress = 0
        while time.monotonic() < deadline:
            # The lock first: a supervisor that ends in between has left its counters.
            if not pool.is_live():
                if pool.snapshot().state is PoolState.DONE:
                    return
                with contextlib.suppress(JobPoolError):
                    pool.resume()
            witness.look()
            length = witness.audited()
            since_progress = 0 if length != ran else since_progress + 1
            if not self.through and (since_progress == 0 or chance.random() < 0.05):
                ran = length
                self._kill_some(pool, chance)
                if chance.random() < 0.3:
                    # At once, before anybody has gone on.
                    witness.look()
            time.sleep(chance.uniform(0.0, 0.15))
        raise self.faults.hang(f"{pool.name} is not done after {POOL_SECONDS:g} s: {pool.snapshot()}")

    def _kill_some(self, pool: JobPool[Any], chance: random.Random) -> None:
        lords, workers = supervisors(pool.paths.root), marked(pool)
        draw = chance.random()
        doomed = workers[:1] if draw < 0.65 else lords if draw < 0.85 else [*lords, *workers]
        if draw < 0.65 and workers:
            doomed = [chance.choice(workers)]
        kill(*doomed)
        self.count(len(doomed))


def _run(killer: Killer, shape: Shape, number: int) -> None:
    faults, chance = killer.faults, random.Random(number)  # noqa: S311 - chance is no secret
    name, n = f"{shape.name}-{number}", ledger.scaled(*shape.tasks)
    body = f"def f(x: int):\n    _audit({name!r})\n{shape.body}"
    pool = faults.map(body, n, "--max-crashes", MAX_CRASHES, *shape.options, name=name)
    witness = Witness(faults, pool, name)
    killer.torment(pool, witness, chance)
    witness.look()
    witness.check()
    failed = {x for x in range(n) if shape.fails(x)}
    counts = pool.snapshot().counts
    assert counts[TaskState.SUCCESS] == n - len(failed), pool.snapshot()
    assert {each.task for each in pool.failures()} == failed
    faults.check(pool, shape.result, audit=name)
    if shape.name == "loud":
        for x in chance.sample(range(n), 10):
            said = "".join(f"task {x} line {line}\n" for line in range(5))
            assert faults.jobpool("logs", name, str(x)).stdout == said


@pytest.mark.scenario(1)
def test_a_thousand_random_kills_lose_nothing_and_record_nothing_twice(faults: Faults) -> None:
    """Scenario 1, the soak: supervisors and workers killed at random moments, sometimes together; resume each time."""
    goal, most = ledger.scaled((20, 3), (1_000, 60))
    killer = Killer(faults, goal)
    numbers = iter(range(most))
    shapes = ledger.scaled([SHAPES[0], SHAPES[2], SHAPES[3]], list(SHAPES))

    def look_after_pools() -> int:
        tasks = 0
        for number in numbers:
            shape = shapes[number % len(shapes)]
            _run(killer, shape, number)
            tasks += ledger.scaled(*shape.tasks)
            if killer.through and number >= 2 * len(shapes):
                break
        return tasks

    with ThreadPoolExecutor(SIDE_BY_SIDE) as executor:
        tasks = sum(each.result() for each in [executor.submit(look_after_pools) for _ in range(SIDE_BY_SIDE)])
    assert killer.kills >= ledger.scaled(10, goal)
    assert tasks >= ledger.scaled(1_000, 100_000)
