"""Managers that come back: without their log, with a damaged or an older one, from another address, after their
certificates have expired, and with another's certificate. Real processes on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import msgspec
import pytest
from manager_cluster import ManagerCluster, ManagerProcess, free_port_pair, manager_cluster

from pyswarm.v1 import control_pb2, health_pb2, raft_pb2, raft_pb2_grpc, types_pb2
from pyswarm_common.identity import NodeIdentity, key_from_pem, make_csr
from pyswarm_common.model import NodeRole
from pyswarm_common.rpc import open_channel
from pyswarm_manager.config import ManagerConfig
from pyswarm_manager.main import EXIT_REMOVED

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ManagerCluster]:
    async with manager_cluster(tmp_path) as cluster:
        await cluster.start_three()
        yield cluster


async def write(manager: ManagerProcess, name: str) -> None:
    """A network, tried until it is there."""
    request = control_pb2.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name=name, driver="overlay"))
    async with asyncio.timeout(40.0):
        while True:
            try:
                await manager.control.CreateNetwork(request, timeout=5.0)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                    return
            await asyncio.sleep(0.05)


async def names(manager: ManagerProcess) -> set[str]:
    answer = await manager.control.ListNetworks(control_pb2.ListNetworksRequest(), timeout=5.0)
    return {network.spec.name for network in answer.networks}


def follower_of(cluster: ManagerCluster, leader: ManagerProcess) -> ManagerProcess:
    return next(manager for manager in cluster.managers if manager is not leader)


async def demote(via: ManagerProcess, target: ManagerProcess) -> None:
    nodes = await via.control.ListNodes(control_pb2.ListNodesRequest(), timeout=10.0)
    (node,) = (node for node in nodes.nodes if node.manager_status.address == target.address)
    request = control_pb2.UpdateNodeRequest(node_id=node.id, version=node.meta.version, spec=node.spec)
    request.spec.role = types_pb2.NODE_ROLE_WORKER
    await via.control.UpdateNode(request, timeout=10.0)


def raft_id_on_disk(manager: ManagerProcess) -> int:
    return ManagerConfig.load(manager.paths).raft_id


async def came_back_as_another(cluster: ManagerCluster, manager: ManagerProcess) -> None:
    """It votes under a new raft id, and the old one is out of Raft for good."""
    old = manager.raft_id
    await manager.start()
    await manager.wait_votes()
    manager.raft_id = raft_id_on_disk(manager)
    assert manager.raft_id != old
    leader = await cluster.leader()

    def replaced(health: health_pb2.GetHealthResponse) -> bool:
        ids = {member.raft_id for member in health.members}
        return len(ids) == 3 and manager.raft_id in ids and old not in ids

    await leader.wait_health(replaced)
    (kept,) = manager.paths.directory.glob("damaged-*")
    assert (kept / "reason.txt").read_text()


@pytest.mark.parametrize("loss", ["missing", "damaged"])
async def test_a_manager_that_lost_its_log_comes_back_as_a_new_member(cluster: ManagerCluster, loss: str) -> None:
    leader = await cluster.leader()
    lost = follower_of(cluster, leader)
    await write(leader, "before")
    await lost.kill()
    if loss == "missing":
        for path in lost.paths.directory.glob("raft.db*"):
            path.unlink()
    else:
        for path in lost.paths.directory.glob("raft.db-*"):
            path.unlink()
        lost.paths.database.write_bytes(secrets.token_bytes(8192))
    await write(leader, "meanwhile")
    await came_back_as_another(cluster, lost)
    assert {"before", "meanwhile"} <= await names(lost)
    await write(lost, "afterwards")


async def test_a_log_that_was_replaced_by_an_older_copy_is_not_used(cluster: ManagerCluster, tmp_path: Path) -> None:
    leader = await cluster.leader()
    old = follower_of(cluster, leader)
    await old.kill()
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in old.paths.directory.glob("raft.db*"):
        shutil.copy2(path, copy)
    standing = (old.paths.directory / "standing.json").read_bytes()
    await old.start()
    await old.wait_votes()
    for number in range(20):
        await write(leader, f"n{number}")
    await old.wait_follows(leader, (await leader.health()).applied_index)
    await old.kill()
    for path in old.paths.directory.glob("raft.db*"):
        path.unlink()
    for path in copy.iterdir():
        shutil.copy2(path, old.paths.directory)
    # As old as the log, so that only the leader knows better.
    (old.paths.directory / "standing.json").write_bytes(standing)
    await old.start()
    assert old.process is not None
    assert await asyncio.wait_for(old.process.wait(), 30.0) == 1  # the daemon would start it again
    await came_back_as_another(cluster, old)
    assert {f"n{number}" for number in range(20)} <= await names(old)


async def test_an_older_log_is_told_by_what_the_manager_remembers(cluster: ManagerCluster) -> None:
    leader = await cluster.leader()
    old = follower_of(cluster, leader)
    await old.kill()
    path = old.paths.standing
    standing = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**standing, "index": standing["index"] + 1_000}))
    await came_back_as_another(cluster, old)


async def test_who_was_removed_hears_it_from_managers_that_came_later(cluster: ManagerCluster) -> None:
    """It was away while it was demoted, and of those it knew nobody is left."""
    leader = await cluster.leader()
    away = follower_of(cluster, leader)
    await away.kill()
    later = await cluster.join()
    await later.wait_votes()
    await demote(leader, away)
    await later.wait_health(lambda health: away.raft_id not in {member.raft_id for member in health.members})
    for manager in cluster.managers[:3]:
        if manager is not away:
            await manager.kill()
    await away.start()
    await away.wait_health(lambda health: len(health.members) == 3)
    config = ManagerConfig.load(away.paths)
    msgspec.structs.replace(config, join_addresses=(later.address,)).save(away.paths)
    assert await away.kill(signal.SIGHUP) == EXIT_REMOVED  # told of the other, as its daemon does, it asks and ends


async def test_the_only_manager_does_not_begin_anew(tmp_path: Path) -> None:
    async with manager_cluster(tmp_path) as cluster:
        only = await cluster.start()
        await write(only, "precious")
        await only.kill()
        for path in only.paths.directory.glob("raft.db-*"):
            path.unlink()
        only.paths.database.write_bytes(secrets.token_bytes(8192))
        await only.start()
        assert only.process is not None
        assert await asyncio.wait_for(only.process.wait(), 30.0) == 1
        assert "pyswarm restore" in only.log.read_text().splitlines()[-1]
        assert raft_id_on_disk(only) == only.raft_id
        assert not list(only.paths.directory.glob("damaged-*"))


def move(manager: ManagerProcess, seeds: tuple[str, ...]) -> None:
    """Another port stands for another address."""
    manager.address = f"127.0.0.1:{free_port_pair()}"
    config = ManagerConfig.load(manager.paths)
    moved = msgspec.structs.replace(
        config, advertise_address=manager.address, listen_address=manager.address, seeds=seeds
    )
    moved.save(manager.paths)


def has_addresses(cluster: ManagerCluster, health: health_pb2.GetHealthResponse) -> bool:
    return {member.address for member in health.members} == {manager.address for manager in cluster.managers}


async def test_one_manager_moves(cluster: ManagerCluster) -> None:
    moved = follower_of(cluster, await cluster.leader())
    await moved.kill()
    move(moved, ())
    await moved.start()
    await (await cluster.leader()).wait_health(lambda health: has_addresses(cluster, health))
    await write(moved, "after")
    nodes = (await moved.control.ListNodes(control_pb2.ListNodesRequest())).nodes
    assert {node.manager_status.address for node in nodes} == {manager.address for manager in cluster.managers}


async def test_all_managers_move_at_once_and_one_seed_leads_to_one_of_them(cluster: ManagerCluster) -> None:
    await write(await cluster.leader(), "before")
    raft_ids = {manager.raft_id for manager in cluster.managers}
    await asyncio.gather(*(manager.kill() for manager in cluster.managers))
    host = f"localhost:{free_port_pair()}"
    first, *others = cluster.managers
    for manager in cluster.managers:
        move(manager, ())
    first.address = host.replace("localhost", "127.0.0.1")
    config = ManagerConfig.load(first.paths)
    msgspec.structs.replace(config, advertise_address=first.address, listen_address=first.address).save(first.paths)
    for manager in others:
        config = ManagerConfig.load(manager.paths)
        msgspec.structs.replace(config, seeds=(host,)).save(manager.paths)
    await asyncio.gather(*(manager.start() for manager in cluster.managers))
    leader = await cluster.leader()
    await leader.wait_health(lambda health: has_addresses(cluster, health))
    assert {member.raft_id for member in (await leader.health()).members} == raft_ids
    for manager in cluster.managers:
        await write(manager, f"from-{manager.name}")
    await first.wait_follows(leader) if first is not leader else None
    assert {"before", "from-m1", "from-m2", "from-m3"} <= await names(first)


def expire(cluster: ManagerCluster, manager: ManagerProcess) -> None:
    """Its certificate ended yesterday; the key is the same."""
    identity = NodeIdentity.load(manager.paths.certificates)
    assert identity is not None
    day = 86_400.0
    certificate = cluster.authority.issue(
        make_csr(key_from_pem(identity.key_pem)),
        node_id=identity.node_id,
        cluster_id=cluster.cluster_id,
        role=NodeRole.MANAGER,
        now=time.time() - 2 * day,
        lifetime_s=day,
    )
    NodeIdentity(certificate, identity.key_pem, identity.root_cert_pem).save(manager.paths.certificates)


async def test_all_managers_slept_through_the_end_of_their_certificates(cluster: ManagerCluster) -> None:
    await write(await cluster.leader(), "before")
    await asyncio.gather(*(manager.kill() for manager in cluster.managers))
    for manager in cluster.managers:
        expire(cluster, manager)
    await asyncio.gather(*(manager.start() for manager in cluster.managers))
    leader = await cluster.leader()
    await write(leader, "after")
    for manager in cluster.managers:
        identity = NodeIdentity.load(manager.paths.certificates)
        assert identity is not None
        assert identity.validity[1] > time.time() + 86_400.0
        await write(manager, f"from-{manager.name}")


async def refused_as(identity: NodeIdentity, cluster: ManagerCluster, speaker: int, to: ManagerProcess) -> str:
    """What a manager answers to a vote request under that raft id."""
    names = raft_pb2.RaftPeers(
        cluster_id=cluster.cluster_id, sender=speaker, receiver=to.raft_id, sender_address="127.0.0.1:1"
    )
    vote = raft_pb2.RaftMessage(term=1_000_000, vote_request=raft_pb2.RaftVoteRequest(last_index=1 << 40))
    async with open_channel(to.address, identity, "swarm-manager") as channel:
        call = raft_pb2_grpc.RaftStub(channel).Exchange(iter([raft_pb2.RaftBatch(peers=names, messages=[vote])]))
        with contextlib.suppress(asyncio.InvalidStateError):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            return caught.value.details() or ""
    raise AssertionError("not refused")


async def test_a_managers_certificate_speaks_for_its_own_raft_id_only(cluster: ManagerCluster) -> None:
    leader = await cluster.leader()
    one, other = [manager for manager in cluster.managers if manager is not leader]
    identity = NodeIdentity.load(one.paths.certificates)
    assert identity is not None
    term = (await leader.health()).term
    assert "of another node" in await refused_as(identity, cluster, leader.raft_id, other)
    assert "no manager has raft id" in await refused_as(identity, cluster, secrets.randbits(62) + 1, other)
    stranger = cluster.issue("a" * 25, NodeRole.MANAGER)
    assert "no manager has raft id" in await refused_as(stranger, cluster, secrets.randbits(62) + 1, other)
    assert (await leader.health()).term == term
