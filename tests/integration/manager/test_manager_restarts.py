"""One, a majority or all of the managers die at any moment, again and again, while clients write. What was acknowledged
is there afterwards, on every manager alike. `RESTART_SEED` gives a failed run's order again (not its timing)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from manager_cluster import ManagerCluster, ManagerProcess, manager_cluster

from pyswarm.v1 import control_pb2, operator_pb2, operator_pb2_grpc, types_pb2

pytestmark = pytest.mark.timeout(180)

KILLING_S = 25.0
CLIENTS = 3
PAUSES_S = (0.0, 0.02, 0.1, 0.4, 1.2)
"""Between death and return, and until the next death: in the middle of starting, of an election, of catching up."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ManagerCluster]:
    async with manager_cluster(tmp_path) as cluster:
        await cluster.start_three()
        yield cluster


class Writer:
    """Writes one name after the other, each until some manager says that it is there."""

    def __init__(self, number: int, managers: list[ManagerProcess], chance: random.Random) -> None:
        self._number, self._managers, self._chance = number, managers, chance
        self.acknowledged: list[str] = []

    async def run(self, end: asyncio.Event) -> None:
        while not end.is_set():
            name = f"w{self._number}-{len(self.acknowledged)}"
            if await self._try(name):
                self.acknowledged.append(name)
            else:
                await asyncio.sleep(0.02)

    async def _try(self, name: str) -> bool:
        manager = self._chance.choice(self._managers)
        request = control_pb2.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name=name, driver="overlay"))
        try:
            await manager.control.CreateNetwork(request, timeout=3.0)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.ALREADY_EXISTS  # an earlier try came through after all
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            return False  # its channel was closed: that manager was killed
        return True


async def kill_and_start(cluster: ManagerCluster, chance: random.Random) -> int:
    """Random ones, at random moments, until the time is over. How many deaths there were."""
    deaths, managers = 0, cluster.managers
    ends_at = time.monotonic() + KILLING_S
    while time.monotonic() < ends_at:
        victims = chance.sample(managers, chance.choice((1, 1, 2, 3)))
        await asyncio.gather(*(victim.kill() for victim in victims))
        deaths += len(victims)
        await asyncio.sleep(chance.choice(PAUSES_S))
        await asyncio.gather(*(victim.start() for victim in victims))
        if chance.random() < 0.6:
            await cluster.leader()
        await asyncio.sleep(chance.choice(PAUSES_S))
    return deaths


async def compared(leader: ManagerProcess) -> operator_pb2.CheckReplicasResponse:
    """Every manager's digest at one index."""
    deadline = time.monotonic() + 40.0
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            stub = operator_pb2_grpc.OperatorStub(leader.channel)
            answer: operator_pb2.CheckReplicasResponse = await stub.CheckReplicas(
                operator_pb2.CheckReplicasRequest(), timeout=15.0
            )
            if len(answer.replicas) == 3 and all(replica.digest for replica in answer.replicas):
                return answer
        assert time.monotonic() < deadline, leader.log.read_text()[-4000:]
        await asyncio.sleep(0.2)


async def names_of_networks(manager: ManagerProcess) -> set[str]:
    """All of them, page by page."""
    names: set[str] = set()
    request = control_pb2.ListNetworksRequest()
    while True:
        page = await manager.control.ListNetworks(request, timeout=10.0)
        names.update(network.spec.name for network in page.networks)
        if not page.next_page_token:
            return names
        request.options.page_token = page.next_page_token


async def test_nothing_acknowledged_is_lost_whoever_dies_when(cluster: ManagerCluster) -> None:
    seed = int(os.environ.get("RESTART_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"RESTART_SEED={seed}")
    chance = random.Random(seed)
    writers = [Writer(number, cluster.managers, random.Random(seed + number)) for number in range(CLIENTS)]
    end = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.run(end))
        deaths = await kill_and_start(cluster, chance)
        end.set()
    for manager in cluster.managers:
        await manager.wait_votes()
        assert not list(manager.paths.directory.glob("damaged-*")), "a killed manager is no reason to doubt its log"
    answer = await compared(await cluster.leader())
    assert len({replica.digest for replica in answer.replicas}) == 1, answer
    acknowledged = {name for writer in writers for name in writer.acknowledged}
    assert len(acknowledged) > deaths, "hardly anything was written"
    for manager in cluster.managers:
        assert acknowledged <= await names_of_networks(manager)
