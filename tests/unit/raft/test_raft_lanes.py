"""Lanes: frames, tickets, and what an end that may not speak is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_manager.raft.lanes import receiving
from pyswarm_manager.raft.lanes.frames import Frames, FrameTooLarge, framed
from pyswarm_manager.raft.lanes.receiving import Lanes, Offer
from pyswarm_manager.raft.lanes.sending import open_lane


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50))
def test_frames_come_out_as_they_went_in_however_they_are_cut(payloads: list[bytes], step: int) -> None:
    data, frames = b"".join(map(framed, payloads)), Frames()
    found = [frame for at in range(0, len(data), step) for frame in frames.feed(data[at : at + step])]
    assert found == payloads


@given(st.binary(max_size=400))
def test_anything_is_cut_or_refused(data: bytes) -> None:
    with contextlib.suppress(FrameTooLarge):
        assert all(len(frame) <= 32 for frame in Frames(32).feed(data))


def test_a_frame_that_is_too_large_is_refused_by_its_length_alone() -> None:
    with pytest.raises(FrameTooLarge):
        list(Frames(32).feed((33).to_bytes(4, "big")))


class Stream:
    """Takes what comes; `room` tells when it takes more."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.news = asyncio.Event()
        self.is_full = False
        self.go_on: Callable[[], None] | None = None

    def take(self, batch: bytes) -> bool:
        if batch == b"forbidden":
            return False
        self.taken.append(batch)
        self.news.set()
        return True

    def call_when_room(self, callback: Callable[[], None]) -> bool:
        self.go_on = callback if self.is_full else None
        return self.is_full

    async def until(self, count: int) -> None:
        while len(self.taken) < count:
            self.news.clear()
            await self.news.wait()


@contextlib.asynccontextmanager
async def door(lanes: Lanes) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(lanes.protocol, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def offered(lanes: Lanes, stream: Stream) -> Offer:
    offer = lanes.offer(stream)
    assert offer is not None
    return offer


async def test_what_is_sent_arrives_in_order_until_the_offer_ends() -> None:
    lanes, stream = Lanes(), Stream()
    offer = offered(lanes, stream)
    async with door(lanes) as port:
        lane = await open_lane("127.0.0.1", port, None, None, offer.ticket)
        sent = [b"%d" % n * 1000 for n in range(100)]
        for payload in sent:
            assert lane.send(payload)
        await stream.until(100)
        assert stream.taken == sent
        offer.close()
        await lane.closed
        assert not lane.send(b"more")
        with pytest.raises(OSError):
            await open_lane("127.0.0.1", port, None, None, offer.ticket)


@pytest.mark.parametrize("ticket", [b"wrong" * 6 + b"..", b"", b"x" * 33], ids=["wrong", "none", "too long"])
async def test_without_its_ticket_nobody_is_heard(ticket: bytes) -> None:
    lanes, stream = Lanes(), Stream()
    offered(lanes, stream)
    async with door(lanes) as port:
        with pytest.raises(OSError):
            await open_lane("127.0.0.1", port, None, None, ticket)
    assert not stream.taken


async def test_who_shows_no_ticket_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "TICKET_TIMEOUT_S", 0.01)
    async with door(Lanes()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_connections_without_a_ticket_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MAX_UNKNOWN", 1)
    lanes, stream = Lanes(), Stream()
    async with door(lanes) as port:
        _, idle = await asyncio.open_connection("127.0.0.1", port)
        reader, second = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        idle.close()
        await idle.wait_closed()
        second.close()
        lane = None
        while lane is None:
            with contextlib.suppress(OSError):
                lane = await open_lane("127.0.0.1", port, None, None, offered(lanes, stream).ticket)
        lane.close()


async def test_what_may_not_be_said_ends_the_lane() -> None:
    lanes, stream = Lanes(), Stream()
    async with door(lanes) as port:
        lane = await open_lane("127.0.0.1", port, None, None, offered(lanes, stream).ticket)
        lane.send(b"forbidden")
        lane.send(b"after it")
        await lane.closed
    assert not stream.taken


async def test_the_newest_lane_of_a_ticket_counts() -> None:
    lanes, stream = Lanes(), Stream()
    offer = offered(lanes, stream)
    async with door(lanes) as port:
        first = await open_lane("127.0.0.1", port, None, None, offer.ticket)
        second = await open_lane("127.0.0.1", port, None, None, offer.ticket)
        await first.closed
        assert second.send(b"x")
        await stream.until(1)
        second.close()


async def test_a_reader_that_is_behind_holds_the_sender_back() -> None:
    lanes, stream = Lanes(), Stream()
    async with door(lanes) as port:
        lane = await open_lane("127.0.0.1", port, None, None, offered(lanes, stream).ticket)
        stream.is_full = True
        lane.send(b"1")
        await stream.until(1)
        before, stream.is_full = len(stream.taken), False
        for n in range(200):
            lane.send(b"%d" % n)
        assert len(stream.taken) == before
        stream.go_on()
        await stream.until(201)
        lane.close()


def test_offers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MAX_OFFERS", 1)
    lanes = Lanes()
    first = lanes.offer(Stream.__new__(Stream))
    assert first is not None
    assert lanes.offer(Stream.__new__(Stream)) is None
    first.close()
    assert lanes.offer(Stream.__new__(Stream)) is not None
