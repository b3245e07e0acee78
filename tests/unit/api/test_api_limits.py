"""What is too large or too much is refused with RESOURCE_EXHAUSTED, all the way to the client."""

from __future__ import annotations

import asyncio
import itertools
import threading

import grpc
import msgspec
from manager_harness import Swarm, service_spec, wire

from pyswarm.v1 import control_pb2 as pb
from pyswarm_manager.raft.waiting import Proposals


async def _create(swarm: Swarm, name: str) -> grpc.StatusCode:
    try:
        await swarm.control().CreateService(pb.CreateServiceRequest(spec=wire(service_spec(name))))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_more_changes_than_may_wait_are_refused_and_those_that_wait_are_made(swarm: Swarm) -> None:
    loop = swarm.leader.raft._loop
    loop.proposals = Proposals(max_count=2, max_bytes=1 << 20)
    disk_goes_on = threading.Event()
    save = loop.disk._storage.save
    loop.disk._storage.save = lambda *what: (disk_goes_on.wait(20), save(*what))[1]
    creating = [asyncio.create_task(_create(swarm, f"web{n}")) for n in range(20)]
    refused: list[grpc.StatusCode] = []
    for answer in itertools.islice(asyncio.as_completed(creating), 18):
        refused.append(await answer)
    assert set(refused) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    disk_goes_on.set()
    codes = await asyncio.gather(*creating)
    assert codes.count(grpc.StatusCode.OK) == 2 == len(swarm.leader.store.view.services)
    assert await _create(swarm, "later") is grpc.StatusCode.OK


async def test_a_change_that_is_too_large_for_an_entry_is_refused(swarm: Swarm) -> None:
    loop = swarm.leader.raft._loop
    loop.config = msgspec.structs.replace(loop.config, max_entry_bytes=100)
    assert await _create(swarm, "web") is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not swarm.leader.store.view.services
