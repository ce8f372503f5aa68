from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobpool_cli.worker.protocol import (
    CHECKED_HEADER,
    MAX_PAYLOAD_BYTES,
    MAX_RANGES_PER_BATCH,
    MAX_TEXT_BYTES,
    BatchOrder,
    Frame,
    FrameReader,
    ProtocolError,
    frame_bytes,
    send_frame,
)


def framed(text: bytes) -> bytes:
    """Return a frame of this text, whatever it is."""
    checked = CHECKED_HEADER.pack(b"jbpl", len(text), 0, zlib.crc32(text))
    return checked + zlib.crc32(checked).to_bytes(4, "little") + text


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    here.settimeout(0)
    yield here, there
    here.close()
    there.close()


@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 2**40)).map(lambda each: (each[0], sum(each)))),
    st.integers(1),
    st.integers(1),
)
def test_an_order_is_decoded_as_it_was_encoded(
    batch: int, ranges: list[tuple[int, int]], attempt: int, udf: int
) -> None:
    order = BatchOrder(batch, tuple(ranges), attempt, udf)
    assert BatchOrder.decode(order.encode()) == order


def test_two_of_the_largest_orders_fit_into_a_channel_that_nobody_reads() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.settimeout(0)
    far = 10**10
    order = BatchOrder(10**9, tuple((far + 2 * n, far + 2 * n + 1) for n in range(MAX_RANGES_PER_BATCH)), 999, 99)
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    for _ in range(2):
        here.send(order.encode())
    for _ in range(2):
        assert BatchOrder.decode(there.recv(1 << 20)) == order
    here.close()
    there.close()


def test_frames_come_out_as_they_went_in_however_they_are_cut(channel: tuple[socket.socket, socket.socket]) -> None:
    here, there = channel
    sent = [Frame("ready", {}, b""), Frame("outcomes", {"batch": 3, "text": "ü\n"}, bytes(range(256)) * 50)]
    for frame in sent:
        send_frame(there, frame.kind, frame.body, frame.payload)
    there.close()
    data = b""
    while piece := here.recv(1 << 20):
        data += piece
    for step in (1, 7, len(data)):
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        reader, received = FrameReader(), []
        for start in range(0, len(data), step):
            theirs.sendall(data[start : start + step])
            frames, alive = reader.feed(ours)
            assert alive
            received += frames
        assert received == sent
        theirs.close()
        assert reader.feed(ours) == ([], False)
        ours.close()


def test_a_large_payload_passes_through_a_small_channel(channel: tuple[socket.socket, socket.socket]) -> None:
    here, there = channel
    payload = bytes(MAX_PAYLOAD_BYTES)
    sender = threading.Thread(target=send_frame, args=(there, "outcomes", {}, payload))
    sender.start()
    reader = FrameReader()
    frames: list[Frame] = []
    while not frames:
        frames, _ = reader.feed(here)
    sender.join()
    assert frames == [Frame("outcomes", {}, payload)]


def test_an_unfinished_frame_of_a_dead_worker_is_not_delivered(channel: tuple[socket.socket, socket.socket]) -> None:
    here, there = channel
    there.sendall(frame_bytes("ready", {}, bytes(10)) + b"abc")
    there.close()
    assert FrameReader().feed(here) == ([], False)


@pytest.mark.parametrize(
    "junk",
    [
        b"x",
        b"junk" * 10,
        b"jbpl" * 10,
        frame_bytes("ready", {})[:-1] + b"]",
        frame_bytes("outcomes", {}, b"columns") + b"columnx",
        framed(b"[1, 2]"),
        framed(b'{"no": "kind"}'),
        framed(b"[" * 100_000),
        framed(b"\xff"),
    ],
)
def test_bytes_that_are_no_frame_are_refused(channel: tuple[socket.socket, socket.socket], junk: bytes) -> None:
    here, there = channel
    there.sendall(junk)
    with pytest.raises(ProtocolError):
        FrameReader().feed(here)


def test_frames_before_the_junk_are_delivered_before_it_is_refused(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    here, there = channel
    send_frame(there, "ready", {})
    there.sendall(b"junk" * 10)
    reader = FrameReader()
    assert reader.feed(here) == ([Frame("ready", {}, b"")], True)
    with pytest.raises(ProtocolError):
        reader.feed(here)


@pytest.mark.parametrize("sizes", [(MAX_TEXT_BYTES + 1, 0), (10, MAX_PAYLOAD_BYTES + 1), (2**32 - 1, 2**32 - 1)])
def test_a_header_that_announces_more_than_there_can_be_is_refused(
    channel: tuple[socket.socket, socket.socket], sizes: tuple[int, int]
) -> None:
    here, there = channel
    checked = CHECKED_HEADER.pack(b"jbpl", *sizes, 0)
    there.sendall(checked + zlib.crc32(checked).to_bytes(4, "little"))
    with pytest.raises(ProtocolError, match="larger than any"):
        FrameReader().feed(here)
