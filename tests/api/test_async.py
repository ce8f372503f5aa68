from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli import JobPool, udf
from jobpool_cli.errors import RemoteTraceback, WaitTimeoutError

TICKS = 30
Pool = JobPool[int]


async def open_the_gate_by_ticking(gate: Path) -> None:
    """Make the file that the tasks wait for after so many turns of the event loop: if it stands still, nothing ends."""
    for _ in range(TICKS):
        await asyncio.sleep(0.01)
    gate.touch()  # noqa: ASYNC240 - a file in memory


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (lambda pool: pool.wait_async(), None),
        (lambda pool: pool.tail_async(), None),
        (lambda pool: pool.results_async(), [0, 1, 2]),
        (lambda pool: pool.collect_async(), [0, 1, 2]),
        (lambda pool: pool.cancel_async(wait=True), {"cancelled": 0, "running": 3}),
        (lambda pool: pool.shutdown_async(), None),
    ],
    ids=["wait", "tail", "results", "collect", "cancel", "shutdown"],
)
def test_the_event_loop_goes_on_while_a_coroutine_waits_for_the_pool(
    wait_at_gate: Callable[[int], int],
    gate: Path,
    method: Callable[[Pool], Coroutine[Any, Any, Any]],
    expected: Any,
    until: Callable[..., None],
) -> None:
    async def main() -> Any:
        pool = await udf(wait_at_gate).map_async(range(3), max_workers=3)
        await asyncio.to_thread(until, lambda: len(pool.running()) == 3)
        answer, _ = await asyncio.gather(method(pool), open_the_gate_by_ticking(gate))
        return answer

    answer = asyncio.run(main())
    assert (answer["result"].tolist() if hasattr(answer, "columns") else answer) == expected


def test_cancelling_a_coroutine_ends_the_waiting_and_leaves_the_pool_running(
    wait_at_gate: Callable[[int], int], gate: Path
) -> None:
    pools = []

    async def main() -> None:
        pool = await udf(wait_at_gate).map_async(range(4), max_workers=2)
        pools.append(pool)
        waiting = [asyncio.create_task(each) for each in (pool.wait_async(), pool.tail_async(), pool.collect_async())]
        for _ in range(TICKS):
            await asyncio.sleep(0.01)
        for each in waiting:
            assert not each.done()
            each.cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended)

    # It returns although no task has ended: no thread goes on waiting for the pool.
    asyncio.run(main())
    (pool,) = pools
    assert pool.is_live()
    assert not pool.done()
    gate.touch()
    assert pool.results() == [0, 1, 2, 3]


def test_many_coroutines_wait_at_once_without_a_thread_each(wait_at_gate: Callable[[int], int], gate: Path) -> None:
    most = 0

    async def main() -> list[list[int]]:
        nonlocal most
        pool = await udf(wait_at_gate).map_async(range(2))
        waiting = [asyncio.create_task(pool.results_async()) for _ in range(100)]
        for _ in range(TICKS):
            await asyncio.sleep(0.01)
            most = max(most, threading.active_count())
        gate.touch()  # noqa: ASYNC240 - a file in memory
        return await asyncio.gather(*waiting)

    assert asyncio.run(main()) == [[0, 1]] * 100
    assert most < 60


def test_a_coroutine_raises_what_the_plain_method_raises(wait_at_gate: Callable[[int], int], gate: Path) -> None:
    async def main() -> None:
        pool = await udf(wait_at_gate).map_async([1])
        with pytest.raises(WaitTimeoutError):
            await pool.wait_async(0.05)
        gate.touch()  # noqa: ASYNC240 - a file in memory
        await pool.wait_async()

        failing = await udf(lambda x: 1 / x).map_async([0])
        with pytest.raises(ZeroDivisionError):
            await failing.results_async()

    asyncio.run(main())


class Stopped(StopIteration):
    """Its value must not be taken for an answer."""


@pytest.mark.parametrize("kind", [StopIteration, Stopped])
@pytest.mark.parametrize("name", ["results", "results_now", "collect"])
def test_a_task_may_raise_what_generators_and_coroutines_cannot(kind: type[StopIteration], name: str) -> None:
    def stop(x: int) -> int:
        raise kind(x)

    pool = udf(stop).map([7], wait=True)
    with pytest.raises(kind) as caught:
        getattr(pool, name)()
    assert (caught.value.value, vars(caught.value)["task"]) == (7, 0)

    async def main() -> None:
        # As Python has it for every coroutine that raises StopIteration.
        with pytest.raises(RuntimeError, match="raised StopIteration") as caught:
            await asyncio.wait_for(getattr(pool, f"{name}_async")(), 20)
        assert isinstance(caught.value.__cause__, kind)

    asyncio.run(main())


@pytest.mark.parametrize("kind", [TimeoutError, concurrent.futures.CancelledError])
@pytest.mark.parametrize("name", ["results", "results_now", "collect"])
def test_an_exception_that_futures_know_comes_through_a_coroutine_whole(kind: type[Exception], name: str) -> None:
    def fail(x: int) -> int:
        raise kind("far away", x)

    pool = udf(fail).map([7], wait=True)

    async def main() -> None:
        with pytest.raises(kind) as caught:
            await getattr(pool, f"{name}_async")()
        assert caught.value.args == ("far away", 7)
        assert vars(caught.value)["arguments"] == {"x": 7}
        assert isinstance(caught.value.__cause__, RemoteTraceback)

    asyncio.run(main())


def test_a_block_waits_without_holding_up_the_loop_and_after_an_error_lets_the_rest_pend(
    wait_at_gate: Callable[[int], int], gate: Path
) -> None:
    async def main() -> None:
        async with await udf(wait_at_gate).map_async([1, 2]) as pool:
            opening = asyncio.create_task(open_the_gate_by_ticking(gate))
        await opening
        assert pool.all_succeeded()

    asyncio.run(main())


THEIRS = [
    "wait",
    "results",
    "results_now",
    "errors",
    "first_error",
    "logs",
    "first_log",
    "logs_df",
    "success",
    "tail",
    "cancel",
]
TWINS = [name for name in dir(JobPool) if name.endswith("_async")]


def test_there_are_the_twins_of_the_class_that_is_re_created() -> None:
    assert {f"{name}_async" for name in THEIRS} <= set(TWINS)


@pytest.mark.parametrize("name", TWINS)
def test_each_twin_is_a_coroutine_with_the_name_the_signature_and_the_help_of_its_method(name: str) -> None:
    twin, plain = getattr(JobPool, name), getattr(JobPool, name.removesuffix("_async"))
    assert inspect.iscoroutinefunction(twin)
    assert not inspect.iscoroutinefunction(plain)
    assert twin.__doc__
    ours, theirs = (inspect.signature(each).parameters for each in (twin, plain))
    assert ours == theirs
    if name != "df_async":
        assert twin.__name__ == name
        assert twin.__qualname__.endswith(f".{name}")
