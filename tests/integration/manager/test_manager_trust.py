"""The root replaced under real managers whose leaders are killed, and removed nodes refused by all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from manager_cluster import START_TIMEOUT_S, ManagerCluster, ManagerProcess, manager_cluster

from pyswarm.v1 import (
    ca_pb2,
    ca_pb2_grpc,
    control_pb2,
    dispatcher_pb2,
    dispatcher_pb2_grpc,
    raft_pb2,
    raft_pb2_grpc,
    security_pb2_grpc,
)
from pyswarm.v1 import security_pb2 as pb
from pyswarm_common.errors import NODE_REMOVED_KEY
from pyswarm_common.identity import NodeIdentity, generate_key, issuer_of, key_to_pem, make_csr, root_digest
from pyswarm_common.identity.tokens import JoinToken
from pyswarm_common.model import NodeRole
from pyswarm_common.rpc import open_channel
from pyswarm_manager.api.authorisation import TABLE

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ManagerCluster]:
    async with manager_cluster(tmp_path) as cluster:
        yield cluster


class Member:
    """What pyswarmd and its agent do about certificates: a session, trust, a new certificate when one is asked for."""

    def __init__(self, cluster: ManagerCluster, identity: NodeIdentity, manager: ManagerProcess | None = None) -> None:
        self.cluster, self.identity, self.manager = cluster, identity, manager
        self.certificates = [identity.cert_pem]
        self.may_renew = asyncio.Event()
        self.may_renew.set()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            for manager in self.cluster.managers:
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
                    await self._session(manager.address)
            await asyncio.sleep(0.05)

    async def _session(self, address: str) -> None:
        async with open_channel(address, self.identity, "swarm-manager") as channel:
            call: Any = dispatcher_pb2_grpc.DispatcherStub(channel).Session()  # type: ignore[call-arg]
            beats: asyncio.Task[None] | None = None
            try:
                async with asyncio.timeout(3.0):
                    await call.write(dispatcher_pb2.AgentMessage(hello=dispatcher_pb2.Hello(address="127.0.0.1")))
                    message = await call.read()
                beats = asyncio.create_task(_beat(call))
                while message is not grpc.aio.EOF:  # type: ignore[attr-defined]
                    if await self._obey(message, address):
                        return
                    message = await call.read()
            finally:
                call.cancel()
                if beats is not None:
                    beats.cancel()

    async def _obey(self, message: dispatcher_pb2.ManagerMessage, address: str) -> bool:
        """Whether the certificate is a new one, so that another session is due."""
        kind = message.WhichOneof("message")
        if kind == "trust" and message.trust.root_ca_certs:
            self._take(NodeIdentity(self.identity.cert_pem, self.identity.key_pem, message.trust.root_ca_certs))
        node = message.node if kind == "node" else message.started.node
        wanted = node.certificate.renew_from if kind in ("node", "started") else ""
        if wanted in ("", issuer_of(self.identity.cert_pem)):
            return False
        await self.may_renew.wait()
        key = generate_key()
        async with open_channel(address, self.identity, "swarm-manager") as channel:
            stub: Any = ca_pb2_grpc.CAStub(channel)
            request = ca_pb2.RenewCertificateRequest(csr=make_csr(key))
            answer = await stub.RenewCertificate(request, timeout=5)
        self._take(NodeIdentity(answer.certificate, key_to_pem(key), answer.root_ca_cert))
        return True

    def _take(self, identity: NodeIdentity) -> None:
        self.identity = identity
        self.certificates.append(identity.cert_pem)
        manager = self.manager
        if manager is not None:
            identity.save(manager.paths.certificates)
            if manager.process is not None and manager.process.returncode is None:
                manager.process.send_signal(1)


async def _beat(call: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            await asyncio.sleep(0.5)
            await call.write(dispatcher_pb2.AgentMessage(heartbeat=dispatcher_pb2.Heartbeat()))


@contextlib.asynccontextmanager
async def members(cluster: ManagerCluster, workers: int) -> AsyncIterator[list[Member]]:
    """Every manager's own node, and some workers."""
    found: list[Member] = []
    try:
        for manager in cluster.managers:
            identity = NodeIdentity.load(manager.paths.certificates)
            assert identity is not None
            found.append(Member(cluster, identity, manager))
        for _ in range(workers):
            found.append(Member(cluster, await cluster.obtain(cluster.managers[0], cluster.tokens.worker)))
        yield found
    finally:
        for member in found:
            await member.stop()


async def root_status(cluster: ManagerCluster) -> pb.RootStatus:
    """As any manager that answers says."""
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
    while True:
        for manager in cluster.managers:
            if manager.process is not None and manager.process.returncode is None:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    stub: Any = security_pb2_grpc.SecurityStub(manager.channel)
                    return (await stub.GetRoot(pb.GetRootRequest(), timeout=3)).root
        assert asyncio.get_running_loop().time() < deadline, "no manager answers"
        await asyncio.sleep(0.1)


async def wait_root(cluster: ManagerCluster, condition: Any) -> pb.RootStatus:
    deadline = asyncio.get_running_loop().time() + 90
    while not condition(status := await root_status(cluster)):
        assert asyncio.get_running_loop().time() < deadline, status
        await asyncio.sleep(0.1)
    return status


async def test_a_rotation_survives_its_leaders(cluster: ManagerCluster) -> None:
    await cluster.start_three()
    async with members(cluster, workers=4) as nodes:
        before = await wait_root(cluster, lambda root: root.nodes_total == 7)
        nodes[-1].may_renew.clear()  # or it might all be over before a leader is killed
        stub: Any = security_pb2_grpc.SecurityStub(cluster.managers[-1].channel)
        await stub.RotateRoot(pb.RotateRootRequest(), timeout=10)
        for killed in range(2):
            await wait_root(cluster, lambda root, rotated=killed: root.nodes_rotated > rotated)
            leader = await cluster.leader()
            await leader.kill()
            await leader.start()
            await leader.wait_votes()
        assert (await root_status(cluster)).target_ca_cert
        nodes[-1].may_renew.set()
        after = await wait_root(cluster, lambda root: not root.target_ca_cert)
        assert after.root_ca_cert != before.root_ca_cert
        assert (after.nodes_total, after.nodes_rotated) == (7, 7)
        issuers = {issuer_of(node.identity.cert_pem) for node in nodes}
        assert len(issuers) == 1
        # The old root is trusted no more: a certificate of it opens nothing, and the new ones open everything.
        await wait_only_root(nodes, after.root_ca_cert)
        leader = await cluster.leader()
        stranger = cluster.issue("s" * 25, NodeRole.MANAGER)
        index = (await leader.health()).applied_index
        for manager in cluster.managers:
            await manager.wait_health(lambda health: health.applied_index >= index)
            await wait_refused(manager.address, stranger)
            async with open_channel(manager.address, nodes[0].identity, "swarm-manager") as channel:
                root_stub: Any = ca_pb2_grpc.CAStub(channel)
                answer = await root_stub.GetRootCertificate(ca_pb2.GetRootCertificateRequest(), timeout=5)
                assert answer.root_ca_cert == after.root_ca_cert
        token = (await leader.control.GetCluster(control_pb2.GetClusterRequest())).cluster.join_tokens.worker
        assert JoinToken.parse(token).digest == root_digest(after.root_ca_cert)


async def wait_only_root(nodes: list[Member], root: bytes) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while any(node.identity.root_cert_pem != root for node in nodes):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def wait_refused(address: str, who: NodeIdentity) -> None:
    """Until the manager's handshake refuses it: its daemon tells it the roots a moment after the leader knows."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            async with open_channel(address, who, "swarm-manager") as channel:
                stub: Any = ca_pb2_grpc.CAStub(channel)
                try:
                    await stub.GetRootCertificate(ca_pb2.GetRootCertificateRequest(), timeout=5)
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        return
            await asyncio.sleep(0.1)


async def is_removed(call: Any) -> bool:
    """Whether a call ends because the caller's node was removed."""
    try:
        while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
            pass
    except grpc.aio.AioRpcError as error:
        keys = {key for key, _ in error.trailing_metadata() or ()}
        return NODE_REMOVED_KEY in keys or error.code() is grpc.StatusCode.NOT_FOUND
    return False


async def test_a_removed_node_is_cut_off_and_refused_by_every_manager(cluster: ManagerCluster) -> None:
    managers = await cluster.start_three()
    identity = await cluster.obtain(managers[0], cluster.tokens.worker)
    leader = await cluster.leader()
    channels = [open_channel(manager.address, identity, "swarm-manager") for manager in managers]
    try:
        session: Any = dispatcher_pb2_grpc.DispatcherStub(channels[managers.index(leader)]).Session()  # type: ignore[call-arg]
        await session.write(dispatcher_pb2.AgentMessage(hello=dispatcher_pb2.Hello(address="127.0.0.1")))
        assert (await session.read()).started.node.id == identity.node_id
        await leader.control.RemoveNode(control_pb2.RemoveNodeRequest(node=identity.node_id, force=True))
        assert await asyncio.wait_for(is_removed(session), 10)
        index = (await leader.health()).applied_index
        for manager, channel in zip(managers, channels, strict=True):
            await manager.wait_health(lambda health: health.applied_index >= index)
            for method, callers in TABLE.items():
                if not any(caller.value == "worker" for caller in callers):
                    continue
                question: Any = channel.stream_stream(method)
                call = question(iter([b""]), timeout=10)
                assert await is_removed(call), (manager.name, method)
    finally:
        for channel in channels:
            await channel.close(None)


async def test_a_removed_manager_is_cut_off_from_raft(cluster: ManagerCluster) -> None:
    """By its certificate: whatever raft id it claims, and on a stream that was open when it was removed."""
    managers = await cluster.start_three()
    follower, leader = managers[2], await cluster.leader()
    identity = NodeIdentity.load(follower.paths.certificates)
    assert identity is not None
    async with open_channel(leader.address, identity, "swarm-manager") as channel:
        call: Any = raft_pb2_grpc.RaftStub(channel).Exchange()  # type: ignore[call-arg]
        peers = raft_pb2.RaftPeers(
            cluster_id=cluster.cluster_id,
            sender=follower.raft_id,
            receiver=leader.raft_id,
            sender_address=follower.address,
        )
        await call.write(raft_pb2.RaftBatch(peers=peers))
        await call.initial_metadata()
        node = (await leader.control.GetNode(control_pb2.GetNodeRequest(node=identity.node_id))).node
        node.spec.role = 0
        update = control_pb2.UpdateNodeRequest(node_id=node.id, version=node.meta.version, spec=node.spec)
        await leader.control.UpdateNode(update)
        await wait_removed(leader, node.id)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(call, 10)
        assert ended.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION)
        peers.sender = managers[1].raft_id  # as if it were another one
        again: Any = raft_pb2_grpc.RaftStub(channel).Exchange(iter([raft_pb2.RaftBatch(peers=peers)]))
        with pytest.raises(grpc.aio.AioRpcError, match="was removed from the swarm"):
            await again


async def wait_removed(leader: ManagerProcess, node_id: str) -> None:
    """Once it is demoted it may be removed."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            try:
                await leader.control.RemoveNode(control_pb2.RemoveNodeRequest(node=node_id, force=True))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
            else:
                return
