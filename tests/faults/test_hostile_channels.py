"""Functions that write into what belongs to their worker: its channels, its slots. Nothing of it is believed."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli.model import TaskState
from jobpool_cli.pool import JobPool
from tests.faults import ledger
from tests.faults.harness import Faults
from tests.faults.one_bad import BAD, TASKS, hostile, several
from tests.helpers import supervisors

# How a frame is made, written down anew: what a hostile function could do.
FORGE = """
import json, mmap, random, socket, stat, struct, zlib
def _frame(body, payload=b""):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    checked = struct.pack("<4sIII", b"jbpl", len(text), len(payload), zlib.crc32(payload, zlib.crc32(text)))
    return checked + zlib.crc32(checked).to_bytes(4, "little") + text + payload
def _everywhere(data, sockets_only=True):
    for fd in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode) or not sockets_only:
                os.write(fd, data)
        except OSError:
            pass
def _outcomes(**changes):
    body = {"kind": "outcomes", "batch": 1, "upto": 1, "final": False, "rows": 1, "ranges": [[0, 1]],
            "result_kind": "int64 {}", "busy": 0.1, "failures": [], "last_finished": 1}
    return {**body, **changes}
def _failure(**changes):
    failure = {"position": 0, "type": "E", "message": "forged", "frames": "", "where": None, "exception": None,
               "started": 1, "duration": 1, "log": [0, 0]}
    return {**failure, **changes}
def _slots():
    for line in open("/proc/self/maps"):
        if line.rstrip().endswith("/slots"):
            name = line.split(None, 5)[5].strip()
            with open(name, "r+b") as file:
                return mmap.mmap(file.fileno(), 0)
def _scribble(data):
    slots = _slots()
    slots[:] = (data * (len(slots) // len(data) + 1))[:len(slots)]
"""
EVERYWHERE = "_everywhere({})"
JUNK = {
    "text": EVERYWHERE.format("b'junk' * 10"),
    "a-byte": EVERYWHERE.format("b'j'"),
    "everything": "_everywhere(b'junk' * 100, sockets_only=False)",
    "megabytes": "import threading\nfor _ in range(8):\n"
    "    threading.Thread(target=_everywhere, args=[os.urandom(1 << 20)]).start()\ntime.sleep(0.3)",
    "absurd-lengths": EVERYWHERE.format("struct.pack('<4sIIII', b'jbpl', 2**32 - 1, 2**32 - 1, 0, 0)"),
    "absurd-lengths-well-made": "h = struct.pack('<4sIII', b'jbpl', 2**32 - 1, 2**32 - 1, 0)\n"
    "_everywhere(h + zlib.crc32(h).to_bytes(4, 'little'))",
    "no-json": EVERYWHERE.format("_frame(b'[' * 100_000)"),
    "another-batch": EVERYWHERE.format("_frame(_outcomes(batch=10**9), b'x')"),
    "another-s-tasks": "for b in range(64): _everywhere(_frame(_outcomes(batch=b, ranges=[[90, 91]]), b'x'))",
    "many-rows": "for b in range(64): _everywhere(_frame(_outcomes(batch=b, upto=10**12, rows=10**12), b'x'))",
    "negative": "for b in range(64): _everywhere(_frame(_outcomes(batch=b, upto=-5, ranges=[[-9, 3]]), b'x'))",
    "a-file-elsewhere": "for b in range(64):\n"
    "    for name in ('../args.parquet', '/etc/passwd', 'segment-000001.parquet'):\n"
    "        _everywhere(_frame(_outcomes(batch=b, file=name, size=9)))",
    "another-s-failure": "for b in range(64): _everywhere(_frame(_outcomes(batch=b, rows=0, ranges=[], upto=1,"
    " failures=[_failure(position=2**40)])))",
    "ready-again": EVERYWHERE.format("_frame({'kind': 'ready'})"),
    "does-not-load": EVERYWHERE.format("_frame({'kind': 'boot-failed', 'message': 'stop', 'hint': ''})"),
    "slots-of-ones": "_scribble(b'\\xff\\xff\\xff\\x7f' * 2)",
    "slots-of-junk": "_scribble(random.Random(3).randbytes(1 << 12))",
    "slots-and-a-crash": "_scribble(random.Random(4).randbytes(1 << 12))\nos.abort()",
}


# Once, at the first attempt of the task; then it stays for a moment, as what it wrote is read.
ONCE = "if jobpool_cli.current_task().attempt == 1:\n{}    time.sleep(0.1)"


@pytest.mark.scenario(42)
@pytest.mark.parametrize("names", ledger.scaled([list(JUNK)], [list(JUNK), *([name] for name in JUNK)]), ids=" ".join)
def test_junk_in_what_belongs_to_the_worker_replaces_it_and_blames_nobody_else(
    faults: Faults, names: list[str]
) -> None:
    """Scenario 42: junk in every inherited descriptor, forged messages, scribbled slots, once: all succeed."""
    deeds = {name: ONCE.format("".join(f"    {line}\n" for line in JUNK[name].splitlines())) for name in names}
    body, tasks = several(deeds, top=FORGE)
    pool = faults.map(body, TASKS)
    faults.injected(len(names))
    faults.ended(pool)
    counts = pool.snapshot().counts
    assert counts[TaskState.SUCCESS] == TASKS, (counts, [each.message for each in pool.failures(history=True)][:3])
    assert {each.task for each in pool.failures(history=True)} <= set(tasks.values())
    assert max(faults.audit().values()) == 1
    assert {path.name for path in pool.paths.results.iterdir()} == {path.name for path in _segments(pool)}
    assert pool.snapshot().reason == ""
    faults.check(pool)


def _segments(pool: JobPool[Any]) -> list[Path]:
    return [path for path in pool.paths.results.iterdir() if path.name.startswith("segment-")]


@pytest.mark.scenario(42)
def test_a_task_that_always_writes_junk_fails_alone_and_the_message_says_so(faults: Faults) -> None:
    """Scenario 42: junk with every attempt, and the task returns at once: found among its neighbours, and failed."""
    pool = faults.map(hostile("_everywhere(b'junk' * 1000)", top=FORGE), TASKS)
    faults.injected(4)
    faults.ended(pool)
    assert pool.snapshot().counts[TaskState.SUCCESS] == TASKS - 1
    (failure,) = pool.failures()
    assert (failure.task, failure.type) == (BAD, "WorkerCrashed")
    assert "bytes that are no message" in failure.message
    assert "write to, or close, file descriptors that it did not open" in failure.message
    assert {each.task for each in pool.failures(history=True)} == {BAD}
    assert max(faults.audit().values()) == 1
    faults.check(pool)


@pytest.mark.scenario(42)
def test_a_flood_of_junk_does_not_swell_the_supervisor(faults: Faults) -> None:
    """Scenario 42: a message of 200 MB that never ends, by a worker that is then silent: bounded memory, no hang."""
    flood = (
        "h = struct.pack('<4sIII', b'jbpl', 200 << 20, 0, 0)\n_everywhere(h + zlib.crc32(h).to_bytes(4, 'little'))\n"
    )
    flood += "for _ in range(60): _everywhere(bytes(1 << 20))\n_wait_for('go')"
    once = "if jobpool_cli.current_task().attempt == 1:\n" + "".join(f"    {line}\n" for line in flood.splitlines())
    pool = faults.map(hostile(once, top=FORGE), TASKS, "-j", "1")
    faults.injected()
    (pid,) = supervisors(pool.paths.root)
    faults.until(lambda: _resident(pid) > 60 << 20, what="the supervisor has taken in the flood")
    assert _resident(pid) < 500 << 20
    faults.release("go")
    faults.ended(pool)
    assert pool.snapshot().counts[TaskState.SUCCESS] == TASKS
    assert {each.task for each in pool.failures(history=True)} <= {BAD}
    faults.check(pool)


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
