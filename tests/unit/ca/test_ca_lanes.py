"""Lanes of Raft at a manager's HTTPS door: beside HTTP, only with a ticket, and only to one that proves a manager."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from manager_harness import Swarm, make_identity

from pyswarm_common.identity import JoinToken, NodeIdentity
from pyswarm_common.identity.join_client import fetch_root_certificate
from pyswarm_common.model import NodeRole
from pyswarm_manager.ca.https import JoinServer
from pyswarm_manager.outgoing_lanes import lane_to
from pyswarm_manager.raft.lanes.receiving import Lanes


class Stream:
    def __init__(self) -> None:
        self.taken: asyncio.Queue[bytes] = asyncio.Queue()

    def take(self, batch: bytes) -> bool:
        self.taken.put_nowait(batch)
        return True

    def call_when_room(self, callback: Callable[[], None]) -> bool:
        return False


@contextlib.asynccontextmanager
async def door(swarm: Swarm, identity: NodeIdentity, lanes: Lanes | None) -> AsyncIterator[str]:
    server = JoinServer(swarm.leader.ca, lambda: identity, None, lanes)
    port = await server.start("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{port - 1}"
    finally:
        await server.close()


async def test_a_lane_and_a_joining_machine_come_by_the_same_door(swarm: Swarm) -> None:
    lanes, stream = Lanes(), Stream()
    offer = lanes.offer(stream)
    assert offer is not None
    async with door(swarm, swarm.leader.identity, lanes) as address:
        lane = await lane_to(address, offer.ticket, swarm.leader.identity)
        assert lane.send(b"x" * 1_000_000)
        assert lane.send(b"y")
        assert await stream.taken.get() == b"x" * 1_000_000
        assert await stream.taken.get() == b"y"
        cluster = swarm.leader.store.view.cluster
        assert cluster is not None
        assert await fetch_root_certificate(address, JoinToken.parse(cluster.join_tokens.worker).digest)
        lane.close()
        await lane.closed


async def test_a_wrong_ticket_is_hung_up_on(swarm: Swarm) -> None:
    async with door(swarm, swarm.leader.identity, Lanes()) as address:
        with pytest.raises(OSError):
            await lane_to(address, b"t" * 32, swarm.leader.identity)


async def test_a_ticket_is_shown_to_nobody_but_a_manager(swarm: Swarm) -> None:
    """A worker's certificate does not carry the name that is verified."""
    lanes = Lanes()
    offer = lanes.offer(Stream())
    assert offer is not None
    async with door(swarm, make_identity(swarm.root, "x" * 25, NodeRole.WORKER), lanes) as address:
        with pytest.raises(OSError):
            await lane_to(address, offer.ticket, swarm.leader.identity)


async def test_where_no_lanes_are_served_none_opens(swarm: Swarm) -> None:
    async with door(swarm, swarm.leader.identity, None) as address:
        with pytest.raises((OSError, TimeoutError)):
            await lane_to(address, b"t" * 32, swarm.leader.identity)


async def test_an_address_that_is_none_opens_no_lane(swarm: Swarm) -> None:
    with pytest.raises(OSError):
        await lane_to("nonsense", b"t" * 32, swarm.leader.identity)
