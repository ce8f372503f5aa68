"""The wall clock jumps while tasks run; the monotonic one goes on."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from jobpool_cli.model import TaskState
from tests.faults import injection
from tests.faults.harness import Faults
from tests.faults.ledger import scaled

BODY = """
def f(x: int) -> int:
    _audit()
    if x < 2:
        _wait_for("go")
    elif x == 9:
        raise ValueError(x)
    elif x == 8 and jobpool_cli.current_task().attempt == 1:
        os.abort()
    return x * x
"""
# Not libfaketime: it also rewrites the moments until which threads and sleeps wait, takes those of the monotonic clock
# for the wall clock's, and has a Python of many threads go round in circles. This moves the wall clock, and no more.
SHIFTED_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long seconds(void) {
    static volatile long *shared;
    if (!shared) {
        int fd = open(getenv("SHIFTED_CLOCK"), O_RDONLY | O_CLOEXEC);
        if (fd < 0) return 0;
        shared = mmap(0, sizeof *shared, PROT_READ, MAP_SHARED, fd, 0);
        close(fd);
    }
    return *shared;
}

int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, t);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) t->tv_sec += seconds();
    return result;
}

int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""
CLOCKS = "import time; print(time.time(), time.monotonic())"


def clocks(env: dict[str, str]) -> tuple[float, float]:
    """Return how far wall clock and monotonic clock of a new process are ahead of ours."""
    before = time.time(), time.monotonic()
    done = subprocess.run([sys.executable, "-c", CLOCKS], env=env, capture_output=True, text=True, check=True)
    wall, monotonic = map(float, done.stdout.split())
    return wall - before[0], monotonic - before[1]


@pytest.fixture
def clock(faults: Faults) -> Iterator[Callable[[int], None]]:
    """Give every process of the test a wall clock that can be set ahead by so many seconds."""
    injection.need("cc")
    source, library = faults.folder / "clock.c", faults.folder / "clock.so"
    source.write_text(SHIFTED_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    path = faults.folder / "shift"
    path.write_bytes(bytes(8))
    faults.env |= {"LD_PRELOAD": str(library), "SHIFTED_CLOCK": str(path)}
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        words = memoryview(shared).cast("q")

        def ahead_by(seconds: int) -> None:
            words[0] = seconds

        yield ahead_by
        words.release()


@pytest.mark.scenario(26)
@pytest.mark.parametrize("seconds", [-3600, 86400])
def test_a_jump_of_the_wall_clock_times_nothing_out_and_makes_no_time_negative(
    faults: Faults, clock: Callable[[int], None], seconds: int
) -> None:
    """Scenario 26: the wall clock jumps under tasks with a time limit: none is timed out, all times are sane."""
    pool = faults.map(BODY, 400, "-j", "3", "--timeout", "20")
    faults.until(lambda: {each.task for each in pool.running_tasks()} >= {0, 1})
    faults.until(lambda: pool.snapshot().counts[TaskState.SUCCESS] >= 100)
    began = datetime.now(UTC)

    clock(seconds)
    wall, monotonic = clocks(faults.env)
    assert abs(wall - seconds) < 60, "the wall clock has jumped for the pool's processes"
    assert abs(monotonic) < 60, "the monotonic clock has not"
    faults.injected()

    faults.until(lambda: pool.snapshot().finished == 398)
    # Looks with the jumped clock, at tasks that began before the jump.
    shown = json.loads(faults.jobpool("status", "pool", "--json").stdout)
    assert shown["total_time"] >= 0
    assert shown["counts"]["timeout"] == 0
    assert "-" not in faults.jobpool("status", "pool").stdout.split("created")[1].split("\n")[0].split(",")[1]
    listed = faults.jobpool("tasks", "pool", "--state", "running", "--json").stdout
    running = [json.loads(line) for line in listed.splitlines()]
    assert [each["task"] for each in running] == [0, 1]
    assert all(0 <= each["duration"] < 20 for each in running)
    faults.release("go")
    faults.jobpool("wait", "pool", code=1)
    clock(0)

    status = pool.snapshot()
    assert status.counts[TaskState.TIMEOUT] == 0
    assert status.counts[TaskState.SUCCESS] == 399
    assert status.total_time >= 0
    rows = [json.loads(line) for line in faults.jobpool("tasks", "pool", "--json").stdout.splitlines()]
    assert len(rows) == 400
    jumped = timedelta(seconds=seconds)
    for row in rows:
        assert 0 <= row["duration"] < 30, row
        started = datetime.fromisoformat(row["started"])
        near = min(abs(started - began), abs(started - began - jumped))
        assert near < timedelta(minutes=1), f"{row} began when either clock says"
    for failure in pool.failures(history=True):
        assert failure.duration is not None
        assert 0 <= failure.duration < 30
    tail = faults.jobpool("tail", "pool", code=1).stdout
    assert "-" not in tail.splitlines()[-1]
    faults.jobpool("retry", "pool")
    faults.jobpool("wait", "pool", code=1)
    status = pool.snapshot()
    assert status.retry_time is not None
    assert status.retry_time >= 0
    faults.check(pool)


@pytest.mark.scenario(26)
@pytest.mark.parametrize("seconds", scaled([86400], [-3600, 86400]))
def test_a_time_limit_keeps_to_its_seconds_through_a_jump(
    faults: Faults, clock: Callable[[int], None], seconds: int
) -> None:
    """Scenario 26: a task that runs past its limit is stopped in time, wherever the wall clock has gone."""
    body = "def f(x: int) -> int:\n    _audit()\n    time.sleep(600) if x == 0 else None\n    return x * x\n"
    pool = faults.map(body, 5, "--timeout", "1.5")
    faults.until(lambda: 0 in {each.task for each in pool.running_tasks()})
    clock(seconds)
    faults.injected()
    faults.until(lambda: pool.snapshot().counts[TaskState.TIMEOUT] == 1, 8)
    faults.ended(pool)
    (failure,) = pool.failures()
    assert failure.duration is not None
    assert 1.5 <= failure.duration < 8
    faults.check(pool)
