"""What leaves a worker: frames of outcomes, whatever the results are like."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobpool_cli.layout import PoolPaths
from jobpool_cli.store.outcomes.table import table_of
from jobpool_cli.store.values.codec import decode, encode
from jobpool_cli.worker.failure import describe
from jobpool_cli.worker.outbox import FAILURE_BYTES, GATHERED_BYTES, BatchOutcomes, Outbox
from jobpool_cli.worker.protocol import BatchOrder, Frame, FrameReader
from tests.helpers import until


class Received:
    """An outbox and what came out of it."""

    def __init__(self, folder: Path) -> None:
        """Begin to receive."""
        ours, self._theirs = socket.socketpair()
        self.folder = folder
        (folder / "results").mkdir()
        self.frames: list[Frame] = []
        self.outbox = Outbox(PoolPaths(folder), 1, ours)
        self._ours = ours
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        reader, alive = FrameReader(), True
        self._theirs.setblocking(False)  # noqa: FBT003 - the socket's signature
        while alive:
            frames, alive = reader.feed(self._theirs)
            self.frames += frames
            time.sleep(0.002)

    def close(self) -> list[Frame]:
        self._ours.close()
        self._thread.join()
        self._theirs.close()
        return self.frames

    def results(self) -> dict[int, object]:
        found: dict[int, object] = {}
        for frame in self.frames:
            if frame.body["rows"]:
                table = table_of(frame.payload)
                values = decode(table["result"], table.schema.field("result"), table["result_pickle"])
                found |= dict(zip(table["task"].to_pylist(), values, strict=True))
        return found

    def failures(self) -> dict[int, dict[str, Any]]:
        return {failure["position"]: failure for frame in self.frames for failure in frame.body["failures"]}


@pytest.fixture
def received(tmp_path: Path) -> Iterator[Received]:
    made = Received(tmp_path)
    yield made
    if made._thread.is_alive():
        made.close()


def add(batch: BatchOutcomes, result: object) -> None:
    now = time.monotonic_ns()
    batch.starts.append(now)
    batch.ends.append(now + 1000)
    batch.results.append(result)


def failure(position: int, error: BaseException) -> dict[str, Any]:
    return {**describe(error), "position": position, "started": time.monotonic_ns(), "duration": 5, "log": [0, 0]}


class ExitsWhenPickled:
    def __reduce__(self) -> Any:
        """Do what no pickling should."""
        raise SystemExit(3)


def test_a_result_that_ends_the_process_when_it_is_pickled_fails_alone(received: Received) -> None:
    batch = received.outbox.open(BatchOrder(1, ((100, 108),), 1, 1), 0)
    for task in range(100, 108):
        if task == 102:
            received.outbox.add_failure(failure(2, ValueError("no")))
        else:
            add(batch, ExitsWhenPickled() if task == 105 else {"x": task})
    received.outbox.flush(final=True)
    frames = received.close()
    assert received.results() == {task: {"x": task} for task in (100, 101, 103, 104, 106, 107)}
    failures = received.failures()
    assert {position: each["type"] for position, each in failures.items()} == {2: "ValueError", 5: "ResultNotStorable"}
    assert "SystemExit" in failures[5]["message"]
    assert [frame.body["final"] for frame in frames] == [False] * (len(frames) - 1) + [True]
    upto = [frame.body["upto"] for frame in frames]
    assert upto == sorted(upto)
    assert upto[-1] == 8
    for frame, before in zip(frames, [0, *upto], strict=False):
        positions = [each["position"] for each in frame.body["failures"]]
        if frame.body["rows"]:
            positions += [task - 100 for task in table_of(frame.payload)["task"].to_pylist()]
        assert sorted(positions) == list(range(before, frame.body["upto"]))


def test_an_encoder_that_fails_once_neither_ends_the_thread_nor_loses_an_outcome(
    received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fails_at_first(values: Any) -> Any:
        calls.append(len(values))
        if len(calls) == 1:
            raise RuntimeError("dictionary changed size during iteration")
        return encode(values)

    monkeypatch.setattr("jobpool_cli.worker.outbox.encode", fails_at_first)
    received.outbox.start()
    batch = received.outbox.open(BatchOrder(1, ((0, 3),), 1, 1), 0)
    add(batch, {"x": 1})
    add(batch, {"x": 2})
    deadline = time.monotonic() + 10
    while not received.frames and time.monotonic() < deadline:
        time.sleep(0.01)
    assert received.results() == {0: {"x": 1}, 1: {"x": 2}}, "sent by the thread's next look, not by the final flush"
    assert not received.failures()
    received.outbox.flush(final=True)


def test_large_failures_leave_in_frames_of_bounded_size(received: Received) -> None:
    received.outbox.open(BatchOrder(1, ((0, 40),), 1, 1), 0)
    for position in range(40):
        received.outbox.add_failure(failure(position, ValueError(os.urandom(700_000))))
    batch = received.outbox._batch
    received.outbox.flush(final=True)
    frames = received.close()
    assert sorted(received.failures()) == list(range(40))
    sizes = [sum(len(each["exception"]) for each in frame.body["failures"]) for frame in frames]
    assert max(sizes) < FAILURE_BYTES + 1_400_000
    assert batch is not None
    assert set(batch.failures) == {None}, "what is sent does not stay in memory"


def test_a_worker_s_own_encoding_does_not_count_as_the_function_s_cpu_time(received: Received) -> None:
    received.outbox.start()
    process, without = time.process_time_ns(), received.outbox.process_time_without_it()
    batch = received.outbox.open(BatchOrder(1, ((0, 300_000),), 1, 1), 0)
    for _ in range(200_000):
        add(batch, {"name": "x", "values": [1.0, 2.0]})
    until(lambda: received.frames, what="the thread has encoded and sent them")
    own = received.outbox.process_time_without_it() - without
    whole = time.process_time_ns() - process
    assert whole - own > 20_000_000, "encoding so much takes a while, and the thread's time is left out"


def test_large_results_leave_by_the_thread_while_the_batch_goes_on_and_few_bytes_wait(received: Received) -> None:
    def add_arrays(count: int) -> None:
        for number in range(count):
            add(batch, noise + number)

    noise = np.random.default_rng(3).random(131_072)
    received.outbox.start()
    received.outbox.open(BatchOrder(1, ((0, 20),), 1, 1), 0)
    batch = received.outbox.open(BatchOrder(2, ((20, 120),), 1, 1), 0)
    add_arrays(20)
    received.outbox.flush(final=False)
    add_arrays(GATHERED_BYTES // noise.nbytes + 1)
    deadline = time.monotonic() + 20
    while len(received.frames) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not received.frames[1].body["final"], "nobody has flushed the batch"
    received.outbox.flush(final=True)
    frames = received.close()
    assert [bool(frame.payload) for frame in frames[:2]] == [False, False], "large results do not pass the channel"
    rows = [frame.body["rows"] for frame in frames]
    assert rows[0] == 20
    # Fewer where the thread came by on its regular look, before so much had come together.
    assert 0 < rows[1] <= GATHERED_BYTES // noise.nbytes + 1
    assert sum(rows) == 20 + GATHERED_BYTES // noise.nbytes + 1
    for frame in frames[:2]:
        assert (received.folder / "results" / frame.body["file"]).stat().st_size == frame.body["size"]


def test_large_results_that_shrink_to_little_are_no_file_of_their_own(received: Received) -> None:
    batch = received.outbox.open(BatchOrder(1, ((0, 30),), 1, 1), 0)
    for _ in range(30):
        add(batch, np.zeros(131_072))
    received.outbox.flush(final=True)
    (frame,) = received.close()
    assert 0 < len(frame.payload) < 1 << 20
    assert "file" not in frame.body
