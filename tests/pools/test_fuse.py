"""A pool of which every task crashes its worker, with real workers."""

from __future__ import annotations

import pytest

from jobpool_cli.errors import ConflictError
from jobpool_cli.model import PoolOptions, PoolState
from tests.helpers import Bench, check_invariants, square

CRASHES = "def f(x: int):\n    _audit()\n    if not os.path.exists(os.path.join(FOLDER, 'mended')):\n"
CRASHES += "        os.kill(os.getpid(), signal.SIGKILL)\n    return x * x\n"


def test_a_pool_of_which_every_task_crashes_stops_itself_and_loses_nothing(bench: Bench) -> None:
    pool = bench.map(CRASHES, 10_000, options=PoolOptions(workers=1, max_crashes=1))
    with pytest.raises(ConflictError, match="tasks in a row crashed their workers"):
        pool.follow(60)
    status = pool.snapshot()
    assert status.state is PoolState.INTERRUPTED
    first = len(pool.failures())
    assert first == status.failed == bench.audit().total()
    assert first == 20
    check_invariants(pool, square)

    bench.release("mended")
    pool.resume()
    assert pool.follow(60).failed == 20
    pool.retry()
    assert pool.follow(60).state is PoolState.DONE
    check_invariants(pool, square, shown=range(10_000))
