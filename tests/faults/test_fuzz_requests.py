"""Anything at all among the requests: the supervisor says so, goes on, and honours those that follow."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from jobpool_cli.model import PoolState, TaskState
from jobpool_cli.store import requests
from tests.faults.harness import Faults
from tests.faults.ledger import scaled
from tests.faults.mutation import mutated

CORPUS = Path(__file__).parent.parent / "data" / "corpus" / "requests"
WAITING = (
    "def f(x: int) -> int:\n    _audit()\n    if x == 0: raise ValueError(x)\n    _wait_for('go')\n    return x * x\n"
)
HUGE = 10**30
DETAILS: list[dict[str, object]] = [
    {"tasks": [float("inf")]}, {"tasks": [HUGE]}, {"tasks": [-1]}, {"tasks": [0.5, 1.5]}, {"tasks": "0"},
    {"tasks": {"0": 1}}, {"tasks": [[0]]}, {"tasks": [None]}, {"tasks": [True]}, {"tasks": 0},
    {"tasks": [2**62]}, {"tasks": ["\ud800"]}, {"udf": -1}, {"udf": HUGE}, {"udf": 0}, {"udf": 77}, {"udf": "1"},
    {"udf": [1]},
    {"udf": 1.0}, {"udf": True}, {"udf": float("nan")}, {"tasks": [0], "udf": 2**63},
    {"damaged": True}, {"damaged": True, "segments": "../x"}, {"damaged": True, "segments": [["x"]]},
    {"damaged": True, "segments": ["../../victim"]}, {"damaged": True, "segments": None},
]  # fmt: skip
CONTENTS: dict[str, bytes] = {
    "deep": b"[" * 200_000,
    "deep-object": b'{"action": "retry", "tasks": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "digits": b'{"action": "retry", "tasks": [' + b"9" * 10_000 + b"]}",
    "random": bytes(range(256)) * 40,
    **{
        f"details-{number}": json.dumps({"action": "retry", "cancelled": True, **details}).encode()
        for number, details in enumerate(DETAILS)
    },
    **{
        f"action-{number}": json.dumps({"action": action}).encode()
        for number, action in enumerate(["explode", "", "\ud800", "a\nb", "\x1b[31m", "x" * 1000, "retry\0", "é"])
    },
}
NAMES = [b"\xff\xfe.json", b"\x1b[31m.json", b"two\nlines.json", b"x" * 250 + b".json", b".json", "ünï.json".encode()]


def _plant(folder: Path) -> int:
    """Put everything there that is no request; return how much."""
    count = 0
    for name, content in CONTENTS.items():
        (folder / f"{name}.json").write_bytes(content)
        count += 1
    for path in sorted(CORPUS.iterdir()) if CORPUS.is_dir() else []:
        (folder / f"corpus-{path.name}.json").write_bytes(path.read_bytes())
        count += 1
    sample = json.dumps({"action": "retry", "tasks": [0, 1, 2], "cancelled": False, "udf": None}).encode()
    for seed in range(scaled(40, 2000)):
        content = mutated(sample, seed)
        if b"shutdown" not in content and b"cancel" not in content[:22]:
            (folder / f"mutated-{seed:05d}.json").write_bytes(content)
            count += 1
    for raw in NAMES:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + raw)).write_bytes(b'{"action": "pause!"}')
        count += 1
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "fifo.json")
    (folder / "circle.json").symlink_to("circle.json")
    (folder / "dangling.json").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(folder)  # a socket's path has little room
        try:
            made.bind("socket.json")
        finally:
            os.chdir(here)
    with (folder / "giant.json").open("wb") as file:
        file.truncate(requests.LARGEST_BYTES + 1)
    return count + 6


@pytest.mark.scenario(52)
def test_the_supervisor_survives_whatever_lies_among_the_requests(faults: Faults) -> None:
    """Scenario 52 (requests): any bytes, sizes, folders, pipes, links, types: ignored or answered, and on it goes."""
    pool = faults.map(WAITING, 20)
    victim = faults.folder / "victim"
    victim.write_text("precious")
    faults.until(lambda: pool.snapshot().counts[TaskState.ERROR] == 1)
    faults.injected(_plant(pool.paths.requests))
    # Requests are carried out by name: this one comes last, and is answered.
    faults.jobpool("pause", "pool")
    assert pool.snapshot().state is PoolState.PAUSED
    faults.jobpool("resume", "pool")

    def left() -> list[str]:
        return [each.name for each in pool.paths.requests.iterdir() if each.name not in {"folder.json", ".json"}]

    faults.until(lambda: not left(), what="the junk is gone")
    assert victim.read_text() == "precious"
    said = pool.paths.supervisor_log.read_text()
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert pool.is_live()
    (pool.paths.requests / "folder.json").rmdir()
    faults.release("go")
    faults.ended(pool)
    assert pool.snapshot().state is PoolState.DONE
    faults.check(pool)


@pytest.mark.scenario(52)
def test_a_request_to_nobody_is_honoured_or_ignored_at_the_next_start(faults: Faults) -> None:
    """Scenario 52 (requests): junk that waits while nobody works does not keep a supervisor from starting."""
    pool = faults.map(WAITING, 3)
    faults.kill_supervisor(pool)
    faults.injected(_plant(pool.paths.requests))
    # Links are told of, and are for the user to remove.
    assert "is a symbolic link" in faults.jobpool("resume", "pool", code=6).stderr
    for name in ("circle.json", "dangling.json"):
        (pool.paths.requests / name).unlink()
    faults.release("go")
    faults.finish(pool)
    (pool.paths.requests / "folder.json").rmdir()
    faults.check(pool)


@pytest.mark.scenario(52)
def test_reading_a_request_raises_a_value_error_or_gives_a_request(tmp_path: Path) -> None:
    """Scenario 52 (requests): of thousands of broken files none raises anything else."""
    path = tmp_path / "1.json"
    samples = [
        b'{"action": "retry", "tasks": [1, 2, 3], "udf": 2, "cancelled": true}',
        b'{"action": "cancel", "running": false}',
    ]
    for seed in range(scaled(1000, 100_000)):
        path.write_bytes(mutated(samples[seed % 2], seed))
        try:
            request = requests.read(path)
        except ValueError:
            continue
        assert request.action.isascii()
