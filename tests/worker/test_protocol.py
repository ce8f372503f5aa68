from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobpool_cli.worker.protocol import (
    HEADER,
    MAX_RANGES_PER_BATCH,
    BatchOrder,
    Frame,
    FrameReader,
    ProtocolError,
    send_frame,
)


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    here.settimeout(0)
    yield here, there
    here.close()
    there.close()


@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40))),
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
    payload = bytes(20_000_000)
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
    there.sendall(HEADER.pack(b"jbpl", 10, 10, 0) + b"abc")
    there.close()
    assert FrameReader().feed(here) == ([], False)


@pytest.mark.parametrize("junk", [b"junk" * 10, HEADER.pack(b"jbpl", 2, 0, 1) + b"{}"])
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


def test_a_header_that_announces_more_than_there_can_be_is_refused(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    here, there = channel
    there.sendall(HEADER.pack(b"jbpl", 10, 1 << 60, 0))
    with pytest.raises(ProtocolError):
        FrameReader().feed(here)
