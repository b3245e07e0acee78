"""The real HTTPS door: people beside joining machines, and who may stay how long."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
from manager_harness import Swarm, new_id, worker_node
from people import enveloped, make_token, read_envelope

from pyswarm.v1 import ca_pb2, control_pb2, watch_pb2
from pyswarm_common.identity import generate_key, make_csr
from pyswarm_common.model.states import PersonRole
from pyswarm_manager.ca import https
from pyswarm_manager.ca.https import JoinServer


@contextlib.asynccontextmanager
async def listening(swarm: Swarm) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    leader = swarm.leader
    server = JoinServer(leader.ca, lambda: leader.identity, leader.people)
    context = ssl.create_default_context(cadata=swarm.root.cert_pem.decode())
    try:
        yield await server.start("127.0.0.1", 0), context
    finally:
        await server.close()


def post(
    session: aiohttp.ClientSession, port: int, context: ssl.SSLContext, method: str, body: bytes, **headers: str
) -> aiohttp.client._RequestContextManager:
    url = f"https://127.0.0.1:{port}/pyswarm.v1.{method}"
    return session.post(url, data=body, headers=headers, ssl=context, server_hostname="swarm-manager")


async def test_machines_join_and_people_call_at_the_same_port(swarm: Swarm) -> None:
    token = await make_token(swarm, PersonRole.VIEWER)
    cluster = swarm.leader.store.view.cluster
    assert cluster is not None
    issue = ca_pb2.IssueCertificateRequest(
        csr=make_csr(generate_key()), token=cluster.join_tokens.worker, hostname="new"
    )
    kind = {"Content-Type": "application/proto"}
    async with listening(swarm) as (port, context), aiohttp.ClientSession() as session:
        async with post(session, port, context, "CA/IssueCertificate", issue.SerializeToString(), **kind) as response:
            assert response.status == 200
        record = swarm.leader.store.view.audit[-1]
        assert (record.actor_kind, record.source, record.method) == ("machine", "127.0.0.1", "CA/IssueCertificate")
        assert record.targets[0].name == "new"
        kind["Authorization"] = f"Bearer {token}"
        async with post(session, port, context, "Control/ListNodes", b"", **kind) as response:
            nodes = control_pb2.ListNodesResponse.FromString(await response.read()).nodes
        assert {node.description.hostname for node in nodes} == {"manager1", "new"}


async def test_whoever_proves_nothing_is_gone_soon_and_a_person_stays(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "CONNECTION_TIMEOUT_S", 0.3)
    token = await make_token(swarm, PersonRole.VIEWER)
    headers = {"Content-Type": "application/connect+proto", "Authorization": f"Bearer {token}"}
    async with listening(swarm) as (port, context), aiohttp.ClientSession() as session:
        body = enveloped(watch_pb2.WatchRequest().SerializeToString())
        async with post(session, port, context, "Watch/Watch", body, **headers) as response:
            await read_envelope(response.content)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="swarm-manager"
            )
            writer.write(b"POST /pyswarm.v1.CA/GetRootCertificate HTTP/1.1\r\n")
            assert await reader.read() == b""
            writer.close()
            node = worker_node(new_id(), "w1")
            await swarm.create(node)
            _, payload = await read_envelope(response.content)
            assert watch_pb2.WatchResponse.FromString(payload).events[0].node.id == node.id


async def test_a_wrong_token_lifts_no_deadline(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "CONNECTION_TIMEOUT_S", 0.3)
    async with listening(swarm) as (port, context):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="swarm-manager")
        writer.write(
            b"POST /pyswarm.v1.Control/ListNodes HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\n"
            b"Authorization: Bearer no\r\nContent-Length: 0\r\n\r\n"
        )
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"WWW-Authenticate: Bearer" in answer
        writer.close()
