"""Three real manager processes over mTLS on loopback: writes, failover, restart, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from manager_cluster import (
    ManagerCluster,
    ManagerProcess,
    manager_cluster,
    new_id,
    scale,
    service_spec,
)

from pyswarm.v1 import ca_pb2, control_pb2, control_pb2_grpc, types_pb2, watch_pb2, watch_pb2_grpc
from pyswarm_common.identity import RootAuthority
from pyswarm_common.model import NodeRole
from pyswarm_common.rpc import open_channel

pytestmark = pytest.mark.timeout(180)

WRITE_TIMEOUT_S = 20.0


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ManagerCluster]:
    async with manager_cluster(tmp_path) as cluster:
        yield cluster


async def create_network(manager: ManagerProcess, name: str) -> types_pb2.Network:
    request = control_pb2.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name=name, driver="overlay"))
    return (await manager.control.CreateNetwork(request)).network  # type: ignore[no-any-return]


async def create_service(manager: ManagerProcess, spec: types_pb2.ServiceSpec) -> types_pb2.Service:
    request = control_pb2.CreateServiceRequest(spec=spec)
    return (await manager.control.CreateService(request)).service  # type: ignore[no-any-return]


async def running_tasks(manager: ManagerProcess, service: str) -> list[types_pb2.Task]:
    """Tasks of the service that are wanted and run, as this manager has them."""
    options = control_pb2.ListOptions(consistency=control_pb2.CONSISTENCY_LOCAL)
    services = (await manager.control.ListServices(control_pb2.ListServicesRequest(options=options))).services
    ids = [found.id for found in services if found.spec.name == service]
    request = control_pb2.ListTasksRequest(
        options=options, service_ids=ids, desired_states=[types_pb2.TASK_STATE_RUNNING]
    )
    tasks = (await manager.control.ListTasks(request)).tasks
    return [task for task in tasks if ids and task.status.state == types_pb2.TASK_STATE_RUNNING]


async def wait_running(manager: ManagerProcess, service: str, count: int) -> list[types_pb2.Task]:
    deadline = time.monotonic() + WRITE_TIMEOUT_S
    while True:
        tasks = await running_tasks(manager, service)
        if len(tasks) == count:
            return tasks
        assert time.monotonic() < deadline, f"{len(tasks)} of {count} run\n{manager.log.read_text()[-3000:]}"
        await asyncio.sleep(0.02)


async def wait_ready(manager: ManagerProcess, *node_ids: str) -> None:
    """Until tasks can be placed on all of them: an agent hears its assignments before that is committed."""
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        while True:
            nodes = (await manager.control.ListNodes(control_pb2.ListNodesRequest())).nodes
            ready = {node.id for node in nodes if node.status.state == types_pb2.NODE_STATE_READY}
            if ready.issuperset(node_ids):
                return
            await asyncio.sleep(0.02)


async def write_soon(manager: ManagerProcess, name: str) -> None:
    """A write, as often as it takes while nobody leads."""
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        while (code := await _try_write(manager, name)) is not None:
            assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)
            await asyncio.sleep(0.05)


async def _try_write(manager: ManagerProcess, name: str) -> grpc.StatusCode | None:
    try:
        await create_network(manager, name)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


async def test_three_managers_scale_a_service_and_survive_their_leader(cluster: ManagerCluster) -> None:
    await cluster.start_three()
    first, second, third = cluster.managers
    agents = [await cluster.agent() for _ in range(2)]
    for agent in agents:
        await agent.wait(lambda agent=agent: agent.sessions == 1 and bool(agent.networks))
    network = await create_network(second, "web")
    await create_service(third, service_spec("web", 3, network.id, published_port=8080))
    tasks = await wait_running(first, "web", 3)
    assert {task.node_id for task in tasks} <= {agent.node_id for agent in agents}
    await scale(second, "web", 5)
    before = {task.id for task in await wait_running(second, "web", 5)}
    addresses = [address for task in tasks for net in task.networks for address in net.addresses]
    assert len(set(addresses)) == len(addresses)

    leader = await cluster.leader()
    survivors = [manager for manager in cluster.managers if manager is not leader]
    await leader.kill()
    await write_soon(survivors[0], "after")
    assert {task.id for task in await wait_running(survivors[1], "web", 5)} == before, "nothing restarts"
    for agent in agents:
        await agent.wait(lambda agent=agent: agent.sessions >= 2)
    await scale(survivors[0], "web", 6)
    assert before <= {task.id for task in await wait_running(survivors[1], "web", 6)}
    assert sum(len(agent.started_tasks) for agent in agents) == 6, "no container was started twice"

    await leader.start()
    new_leader = await cluster.leader()
    index = (await new_leader.health()).applied_index
    await leader.wait_follows(new_leader, index)
    assert len(await running_tasks(leader, "web")) == 6


async def test_a_lost_worker_has_its_tasks_elsewhere(cluster: ManagerCluster) -> None:
    manager = await cluster.start()
    lost, kept = await cluster.agent(), await cluster.agent()
    await wait_ready(manager, lost.node_id, kept.node_id)
    spec = service_spec("web", 4)
    spec.task.placement.constraints.append("node.role==worker")
    await create_service(manager, spec)
    await wait_running(manager, "web", 4)
    assert len(lost.running()) == 2
    await lost.stop()
    await kept.wait(lambda: len(kept.running()) == 4)
    nodes = {node.id: node for node in (await manager.control.ListNodes(control_pb2.ListNodesRequest())).nodes}
    assert nodes[lost.node_id].status.state == types_pb2.NODE_STATE_DOWN
    lost.start()
    await lost.wait(lambda: not lost.tasks)


async def test_a_leader_that_stands_still_is_replaced_and_costs_no_task(cluster: ManagerCluster) -> None:
    """Its connections stay open, so agents find out by their keepalive alone."""
    await cluster.start_three()
    agent = await cluster.agent()
    await agent.wait(lambda: bool(agent.networks))
    spec = service_spec("web", 2)
    spec.task.placement.constraints.append("node.role==worker")
    leader = await cluster.leader()
    await create_service(leader, spec)
    before = {task.id for task in await wait_running(leader, "web", 2)}
    assert leader.process is not None
    survivor = next(manager for manager in cluster.managers if manager is not leader)
    os.kill(leader.process.pid, signal.SIGSTOP)
    try:
        await write_soon(survivor, "after")
        await agent.wait(lambda: agent.sessions == 2)
        assert {task.id for task in await wait_running(survivor, "web", 2)} == before
    finally:
        os.kill(leader.process.pid, signal.SIGCONT)
    await leader.wait_health(lambda health: health.leader_raft_id not in (0, leader.raft_id))
    assert {task.id for task in await wait_running(leader, "web", 2)} == before
    assert sorted(agent.started_tasks) == sorted(before)


async def test_a_restarting_agent_keeps_its_tasks(cluster: ManagerCluster) -> None:
    manager = await cluster.start()
    agent, other = await cluster.agent(), await cluster.agent()
    for each in (agent, other):
        await each.wait(lambda each=each: bool(each.networks))
    spec = service_spec("web", 2)
    spec.task.placement.constraints.append("node.role==worker")
    await create_service(manager, spec)
    before = {task.id for task in await wait_running(manager, "web", 2)}
    await agent.stop()
    await asyncio.sleep(1.0)  # a daemon's restart
    agent.start()
    await agent.wait(lambda: agent.sessions == 2)
    assert {task.id for task in await wait_running(manager, "web", 2)} == before


async def test_all_three_restart_with_everything(cluster: ManagerCluster) -> None:
    await cluster.start_three()
    for i in range(5):
        await create_network(cluster.managers[i % 3], f"net{i}")
    for manager in cluster.managers:
        await manager.kill()
    for manager in cluster.managers:
        await manager.start()
    leader = await cluster.leader()
    networks = (await leader.control.ListNetworks(control_pb2.ListNetworksRequest())).networks
    assert {network.spec.name for network in networks} == {"ingress", *(f"net{i}" for i in range(5))}
    assert all(network.subnets and network.vni for network in networks)
    await create_network(leader, "more")


async def test_a_stopped_leader_hands_over(cluster: ManagerCluster) -> None:
    await cluster.start_three()
    leader = await cluster.leader()
    other = next(manager for manager in cluster.managers if manager is not leader)
    assert await leader.kill(signal.SIGTERM) == 0
    assert "Traceback" not in leader.log.read_text()
    await write_soon(other, "after")


async def test_without_a_majority_writes_are_refused_and_local_reads_served(cluster: ManagerCluster) -> None:
    await cluster.start_three()
    survivor = cluster.managers[1]
    for manager in (cluster.managers[0], cluster.managers[2]):
        await manager.kill()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await create_network(survivor, "lost")
    assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)
    options = control_pb2.ListOptions(consistency=control_pb2.CONSISTENCY_LOCAL)
    assert len((await survivor.control.ListNodes(control_pb2.ListNodesRequest(options=options))).nodes) == 3
    assert (await survivor.health()).cluster_id == cluster.cluster_id


async def test_certificates_decide_who_may_call(cluster: ManagerCluster) -> None:
    manager = await cluster.start()
    worker = await cluster.obtain(manager, cluster.tokens.worker)
    stranger = cluster.issue(new_id(), NodeRole.MANAGER, RootAuthority.create(cluster.cluster_id, time.time()))
    channels = [open_channel(manager.address, identity, "swarm-manager") for identity in (worker, stranger)]
    request: Any = control_pb2.ListNodesRequest()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await control_pb2_grpc.ControlStub(channels[0]).ListNodes(request)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await control_pb2_grpc.ControlStub(channels[1]).ListNodes(request, timeout=5.0)
        assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    finally:
        for channel in channels:
            await channel.close(None)


async def test_wrong_tokens_get_no_certificate(cluster: ManagerCluster) -> None:
    manager = await cluster.start()
    wrong = cluster.tokens.worker[:-5] + "00000"
    with pytest.raises(AssertionError, match="unauthenticated"):
        await cluster.obtain(manager, wrong)


async def test_a_renewed_certificate_is_served_without_a_restart(cluster: ManagerCluster) -> None:
    manager = await cluster.start()
    assert manager.process is not None
    before = await _served_certificate(manager)
    node_id = (await manager.health()).node_id
    renewed = cluster.issue(node_id, NodeRole.MANAGER)
    renewed.save(manager.paths.certificates)
    os.kill(manager.process.pid, signal.SIGHUP)
    deadline = time.monotonic() + 10.0
    while (served := await _served_certificate(manager)) == before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert served.strip() == renewed.cert_pem.strip()
    await create_network(manager, "still-here")


async def _served_certificate(manager: ManagerProcess) -> bytes:
    """As a new TLS connection to the gRPC port gets it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, port = manager.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return ssl.DER_cert_to_PEM_cert(der).encode()
    finally:
        del reader
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_taken_port_is_named(cluster: ManagerCluster) -> None:
    manager = await cluster.start()
    await manager.kill()
    host, port = manager.address.split(":")
    for taken in (int(port), int(port) + 1):
        with socket.socket() as blocker:
            blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            blocker.bind((host, taken))
            blocker.listen()
            await manager.start()
            assert manager.process is not None
            assert await asyncio.wait_for(manager.process.wait(), 20.0) == 1
        last = manager.log.read_text().splitlines()[-1]
        assert f"cannot listen on {host}:{taken}" in last


async def test_a_full_disk_ends_the_manager_and_loses_nothing(cluster: ManagerCluster) -> None:
    manager = await cluster.start()
    await create_network(manager, "before")
    assert manager.process is not None
    # Room for the log to say what is wrong; the Raft log is beyond it already.
    limit = manager.log.stat().st_size + 8192
    resource.prlimit(manager.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    with pytest.raises(grpc.aio.AioRpcError):
        await create_network(manager, "lost")
    assert await asyncio.wait_for(manager.process.wait(), 20.0) == 1
    log = manager.log.read_text()
    assert "look at its disk" in log.splitlines()[-1]
    assert "Traceback" not in log
    await manager.close_channel()
    await manager.start()
    await create_network(await cluster.leader(), "after")
    names = {n.spec.name for n in (await manager.control.ListNetworks(control_pb2.ListNetworksRequest())).networks}
    assert {"before", "after"} <= names


async def test_a_removed_manager_ends(cluster: ManagerCluster) -> None:
    await cluster.start_three()
    first, removed = cluster.managers[0], cluster.managers[2]
    node_id = (await removed.health()).node_id
    await _demote(first, node_id)
    assert removed.process is not None
    assert await asyncio.wait_for(removed.process.wait(), 20.0) == 3
    await create_network(first, "after")
    assert len((await first.health()).members) == 2


async def test_a_manager_that_was_away_when_it_was_removed_ends(cluster: ManagerCluster) -> None:
    await cluster.start_three()
    first, away = cluster.managers[0], cluster.managers[2]
    node_id = (await away.health()).node_id
    await away.kill()
    await _demote(first, node_id)
    await first.wait_health(lambda health: len(health.members) == 2)
    await away.start()
    assert away.process is not None
    assert await asyncio.wait_for(away.process.wait(), 20.0) == 3


async def _demote(manager: ManagerProcess, node_id: str) -> None:
    node = (await manager.control.GetNode(control_pb2.GetNodeRequest(node=node_id))).node
    node.spec.role = types_pb2.NODE_ROLE_WORKER
    request = control_pb2.UpdateNodeRequest(node_id=node_id, version=node.meta.version, spec=node.spec)
    await manager.control.UpdateNode(request)


async def test_watch_and_root_certificate_over_the_socket(cluster: ManagerCluster) -> None:
    manager = await cluster.start()
    stub: Any = watch_pb2_grpc.WatchStub(manager.channel)
    call = stub.Watch(watch_pb2.WatchRequest(kinds=[watch_pb2.OBJECT_KIND_NETWORK]))
    start = await call.read()
    assert start.version > 0
    network = await create_network(manager, "seen")
    seen = await call.read()
    assert seen.events[0].network.id == network.id
    call.cancel()
    root = manager.channel.unary_unary(
        "/pyswarm.v1.CA/GetRootCertificate",
        request_serializer=ca_pb2.GetRootCertificateRequest.SerializeToString,
        response_deserializer=ca_pb2.GetRootCertificateResponse.FromString,
    )
    answer: Any = root(ca_pb2.GetRootCertificateRequest())
    assert (await answer).root_ca_cert == cluster.authority.cert_pem
