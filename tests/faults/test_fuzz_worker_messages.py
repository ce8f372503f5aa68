"""Messages between supervisor and worker, mutilated: refused, or what a worker could have sent; never anything else."""

from __future__ import annotations

import base64
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobpool_cli.engines.base import Outcomes
from jobpool_cli.engines.reports import INT64_MAX, MAX_FIELD_CHARACTERS, Reports
from jobpool_cli.store.ranges import merged
from jobpool_cli.store.slots import SLOT_BYTES, SharedSlots, create_slots, left_running, read_running
from jobpool_cli.worker.protocol import (
    MAX_PAYLOAD_BYTES,
    MAX_TEXT_BYTES,
    BatchOrder,
    Frame,
    FrameReader,
    ProtocolError,
    frame_bytes,
)
from tests.faults import ledger

CORPUS = Path(__file__).parent.parent / "data" / "corpus" / "frames"
EXAMPLES = ledger.scaled(300, 30_000)
FUZZED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# A batch of two ranges, of which three tasks are reported already.
ORDER = BatchOrder(7, ((10, 20), (40, 45)), 2, 1)
FAILURE: dict[str, Any] = {
    "position": 6, "type": "ValueError", "message": "no", "frames": "Traceback\n", "where": ["job.py", 3, "f"],
    "exception": base64.b64encode(b"pickle").decode(), "started": 5, "duration": 6, "log": [0, 10],
}  # fmt: skip
BODY: dict[str, Any] = {
    "batch": 7, "upto": 12, "final": False, "rows": 8, "whole": 900, "ranges": [[13, 16], [17, 20], [40, 42]],
    "result_kind": "int64 {}", "busy": 0.25, "failures": [FAILURE], "last_finished": 77,
}  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NEAR = st.sampled_from([-1, 0, 1, 2, 3, 7, 11, 12, 13, 15, 16, 10**9, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, True])
TEXTS = st.sampled_from(["", "x", "\ud800", "../x", "/etc/passwd", ".tmp-000000000000-segment.parquet", "=", "a\0b"])


def books(folder: Path) -> Reports:
    """Return the books on a worker that has the batch and has reported three of it."""
    made = Reports(0, 1, folder)
    made.event(Frame("ready", {}, b""))
    made.sent(ORDER)
    first = {**BODY, "upto": 3, "rows": 3, "ranges": [[10, 13]], "failures": []}
    made.event(Frame("outcomes", first, b"columns"))
    return made


def check_believed(body: dict[str, Any]) -> None:
    """Check that what passed is about tasks of the batch, each once, and can be stored as it is."""
    assert body["batch"] == ORDER.batch
    assert 3 <= body["upto"] <= 15
    tasks = [*range(10, 20), *range(40, 45)]
    failed = [tasks[each["position"]] for each in body["failures"]]
    succeeded = [task for low, high in merged(body.get("ranges", [])) for task in range(low, high)]
    assert sorted(failed + succeeded) == tasks[3 : body["upto"]]
    assert body["rows"] == len(succeeded)
    assert 0 <= body["busy"] < float("inf")
    for each in body["failures"]:
        for name in ("type", "message", "frames"):
            each[name].encode()
        assert all(0 <= number <= INT64_MAX for number in (each["started"], each["duration"], *each["log"]))
        base64.b64decode(each["exception"] or "", validate=True)
    if "file" in body:
        assert "/" not in body["file"]
    json.dumps(body).encode()


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where in a message anything stands."""
    yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths_in(each, (*path, key))


@st.composite
def mutilated(draw: st.DrawFn) -> dict[str, Any]:
    """Return a message of which one to three fields are something else, or missing."""
    body: dict[str, Any] = json.loads(json.dumps(BODY))
    if draw(st.booleans()):
        del body["failures"][:]
        body |= {"upto": 12, "rows": 9, "ranges": [[13, 20], [40, 42]]}
    if draw(st.integers(0, 4)) == 0:
        body |= {"file": draw(TEXTS), "size": draw(NEAR)}
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from([path for path in paths_in(body) if path]))
        holder: Any = body
        for step in way:
            holder = holder[step]
        if isinstance(holder, dict) and draw(st.integers(0, 5)) == 0:
            del holder[last]
        else:
            holder[last] = draw(NEAR | TEXTS | JSON)
    return body


@pytest.mark.scenario(42)
@FUZZED
@given(mutilated(), st.sampled_from([b"", b"columns"]))
@example(BODY, b"columns")
def test_a_report_is_refused_or_tells_of_tasks_that_the_worker_had(
    tmp_path: Path, body: dict[str, Any], payload: bytes
) -> None:
    """Scenario 42: outcomes with any field exchanged; nothing passes that adds up to other tasks than the worker's."""
    reports = books(tmp_path)
    try:
        event = reports.event(Frame("outcomes", body, payload))
    except ProtocolError:
        # As text: to Python 0 is False, and to a supervisor it is not.
        assert (repr(body), payload) != (repr(BODY), b"columns")
        return
    assert isinstance(event, Outcomes)
    check_believed(event.body)


@pytest.mark.scenario(42)
@FUZZED
@given(
    kind=st.text(max_size=12) | st.sampled_from(["warm", "ready", "boot-failed", "outcomes"]),
    body=JSON,
    booted=st.booleans(),
)
def test_a_message_of_any_kind_at_any_time_is_refused_or_fits(
    tmp_path: Path, kind: str, body: Any, *, booted: bool
) -> None:
    """Scenario 42: messages of any kind, before and after the worker is ready."""
    reports = books(tmp_path) if booted else Reports(0, 1, tmp_path)
    try:
        reports.event(Frame(kind, body if isinstance(body, dict) else {}, b""))
    except ProtocolError:
        return
    assert not booted, "an empty report passed, or one at a wrong time"


def read(data: bytes, step: int) -> tuple[list[Frame], bool]:
    """Return the frames that a reader makes of bytes that come in pieces, and whether it refused what followed."""
    here, there = socket.socketpair()
    here.settimeout(0)
    reader, frames, refused = FrameReader(), [], False
    with here, there:
        for start in range(0, len(data), step):
            there.sendall(data[start : start + step])
            try:
                while found := reader.feed(here)[0]:
                    frames += found
            except ProtocolError:
                refused = True
                break
    return frames, refused


GOOD = (
    frame_bytes("ready", {}) + frame_bytes("outcomes", BODY, b"columns") + b"columns" + frame_bytes("ready", {"n": 1})
)


@pytest.mark.scenario(42)
@FUZZED
@given(
    st.binary(max_size=60),
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)), max_size=4),
    st.integers(0, len(GOOD)),
    st.integers(1, 700),
)
def test_bytes_become_the_frames_that_were_sent_or_are_refused(
    junk: bytes, flips: list[tuple[int, int]], at: int, step: int
) -> None:
    """Scenario 42: a stream with bytes changed and junk in between: whole frames before it, none behind it."""
    data = bytearray(GOOD)
    for place, change in flips:
        data[place] ^= change
    data[at:at] = junk
    intact, _ = read(GOOD, len(GOOD))
    frames, refused = read(bytes(data), step)
    assert frames == intact[: len(frames)]
    if bytes(data) != GOOD and len(frames) == len(intact):
        assert refused or bytes(data).startswith(GOOD)


@pytest.mark.scenario(42)
@FUZZED
@given(st.binary(max_size=200), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_header_alone_never_makes_the_reader_wait_for_more_than_a_message_can_hold(
    rest: bytes, text: int, payload: int
) -> None:
    """Scenario 42: well-made headers that announce anything."""
    checked = struct.pack("<4sIII", b"jbpl", text, payload, 0)
    frames, refused = read(checked + zlib.crc32(checked).to_bytes(4, "little") + rest, 1 << 20)
    assert refused or (text <= MAX_TEXT_BYTES and payload <= MAX_PAYLOAD_BYTES)
    assert not frames or (text, payload) == (len(rest), 0)


@pytest.mark.scenario(42)
@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus_of_bad_messages_is_refused(tmp_path: Path, path: Path) -> None:
    """Scenario 42: what was once found, and what one would think of: each file is a stream that must be refused."""
    for step in (1, 1 << 16):
        frames, refused = read(path.read_bytes(), step)
        reports = books(tmp_path)
        try:
            for frame in frames:
                reports.event(frame)
        except ProtocolError:
            refused = True
        assert refused


@pytest.mark.scenario(42)
def test_a_failure_whose_text_has_no_end_is_refused(tmp_path: Path) -> None:
    """Scenario 42: two megabytes of message, where a worker cuts at ten thousand characters."""
    body = {**BODY, "failures": [{**FAILURE, "message": "x" * (MAX_FIELD_CHARACTERS + 1)}]}
    with pytest.raises(ProtocolError, match="endless"):
        books(tmp_path).event(Frame("outcomes", body, b"columns"))


@pytest.mark.scenario(42)
@FUZZED
@given(st.binary(min_size=SLOT_BYTES, max_size=4 * SLOT_BYTES))
def test_slots_with_anything_in_them_are_looked_at_without_harm(tmp_path: Path, data: bytes) -> None:
    """Scenario 42: the shared memory holds junk: readers, and a supervisor that starts, take what makes sense."""
    path = tmp_path / "slots"
    create_slots(path)
    SharedSlots(path)._map[: len(data)] = data
    for each in read_running(path):
        assert each.task >= 0
        assert each.elapsed >= 0
    left_running(path)
    reports = books(tmp_path)
    words = memoryview(data[: len(data) // 8 * 8]).cast("q")
    for word in words:
        found = reports.running(word)
        assert found is None or (found[0] == ORDER.batch and 0 <= found[1] < 15)


@pytest.mark.scenario(42)
@FUZZED
@given(st.binary(max_size=80) | JSON.map(lambda value: json.dumps(value).encode()))
def test_an_order_is_decoded_or_refused(data: bytes) -> None:
    """Scenario 42: the other way: what a worker reads is an order, or it ends with a reason."""
    try:
        order = BatchOrder.decode(data)
    except ProtocolError:
        return
    assert BatchOrder.decode(order.encode()) == order
    assert all(0 <= low < high for low, high in order.ranges)
