"""What mypy and pyright know of a pool's types; both check this file, and it is run, too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import assert_type

import pandas as pd

from jobpool_cli import JobPool, Task, udf


@udf
def square(x: int) -> int:
    """Return a square."""
    return x * x


@udf()
def greeting(name: str, *, loud: bool = False) -> str:
    """Return a greeting."""
    return name.upper() if loud else name


def half(x: float) -> float:
    """Return half of it."""
    return x / 2


def called() -> None:
    """Call decorated functions as what they are."""
    assert_type(square(3), int)
    assert_type(greeting("you", loud=True), str)
    halved = udf(half)
    assert_type(halved(3.0), float)
    assert_type(halved.map([1.0]), JobPool[float])


def mapped() -> JobPool[int]:
    """Read a pool."""
    pool = square.map([1, 2, 3], max_workers=2)
    assert_type(pool, JobPool[int])
    assert_type(pool.results(), list[int])
    assert_type(pool.results(return_exceptions=True), list[int | Exception])
    assert_type(pool.results_now(), dict[int, int])
    assert_type(pool.success(), dict[int, int])
    assert_type(pool.errors(), dict[int, Exception])
    assert_type(pool.first_error(), Exception | None)
    assert_type(pool.logs(), list[str | None])
    assert_type(pool.times(), list[timedelta | None])
    assert_type(pool.total_time(since_retry=True), timedelta)
    assert_type(pool.collect(), pd.DataFrame)
    assert_type(pool.logs_df(status_column=None), pd.DataFrame)
    assert_type(pool.wait(), None)
    assert_type(pool.done(), bool)
    assert_type(pool[0], Task[int])
    assert_type(pool[0].result, int)
    assert_type(pool[:2], Sequence[Task[int]])
    assert_type([task.result for task in pool], list[int])
    assert_type(pool.debug(1), int)
    with pool as same:
        assert_type(same.results(), list[int])
    return pool


async def awaited() -> None:
    """Read a pool in an event loop."""
    pool = await greeting.map_async(["you", "me"], loud=True)
    assert_type(pool, JobPool[str])
    assert_type(await pool.wait_async(), None)
    assert_type(await pool.results_async(), list[str])
    assert_type(await pool.results_async(return_exceptions=True), list[str | Exception])
    assert_type(await pool.results_now_async(), dict[int, str])
    assert_type(await pool.success_async(), dict[int, str])
    assert_type(await pool.first_log_async(), str | None)
    assert_type(await pool.collect_async(drop_index=True), pd.DataFrame)
    assert_type(await pool.done_async(), bool)


if __name__ == "__main__":
    called()
    mapped()
    asyncio.run(awaited())
