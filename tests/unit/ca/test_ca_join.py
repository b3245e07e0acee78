"""How a machine becomes a node: over real HTTPS, with everything that can be wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manager_harness import CLUSTER_ID, Swarm, asked, make_identity
from msgspec.structs import replace

from pyswarm.v1 import ca_pb2, types_pb2
from pyswarm_common import errors
from pyswarm_common.identity import (
    JoinToken,
    NodeIdentity,
    RootAuthority,
    generate_key,
    issuer_of,
    key_to_pem,
    make_csr,
    root_digest,
)
from pyswarm_common.identity.join_client import fetch_root_certificate, join_address, request_certificate
from pyswarm_common.model import Availability, NodeRole, NodeState
from pyswarm_manager.ca import issuing, rotation
from pyswarm_manager.ca.https import MAX_BODY_BYTES, WRONG_TOKENS, JoinServer, WrongTokens
from pyswarm_manager.store.changes import Update
from pyswarm_manager.trust import signing_authority, token_root, trusted_roots
from pyswarm_manager.writes import Writer


@contextlib.asynccontextmanager
async def door(swarm: Swarm, manager: Any = None) -> AsyncIterator[str]:
    """The HTTPS server of a manager; gives the address as a user types it (the gRPC port is one less)."""
    manager = manager or swarm.leader
    server = JoinServer(manager.ca, lambda: manager.identity)
    port = await server.start("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{port - 1}"
    finally:
        await server.close()


def tokens(swarm: Swarm) -> types_pb2.JoinTokens:
    return swarm.leader.store.view.cluster.join_tokens


def request(token: str, **changes: Any) -> ca_pb2.IssueCertificateRequest:
    fields = {"csr": make_csr(generate_key()), "token": token, "hostname": "host1", "address": "10.0.0.9"}
    return ca_pb2.IssueCertificateRequest(**{**fields, **changes})


async def join(address: str, token: str, **changes: Any) -> ca_pb2.IssueCertificateResponse:
    root = await fetch_root_certificate(address, JoinToken.parse(token).digest)
    return await request_certificate(address, root, request(token, **changes))


@pytest.mark.parametrize("role", [NodeRole.WORKER, NodeRole.MANAGER])
async def test_a_machine_becomes_a_node_by_the_role_of_its_token(swarm: Swarm, role: NodeRole) -> None:
    token = tokens(swarm).manager if role is NodeRole.MANAGER else tokens(swarm).worker
    key = generate_key()
    async with door(swarm) as address:
        answer = await join(address, token, csr=make_csr(key), availability=types_pb2.AVAILABILITY_PAUSE)
    identity = NodeIdentity(answer.certificate, key_to_pem(key), answer.root_ca_cert)
    assert (identity.node_id, identity.cluster_id, identity.role) == (answer.node_id, CLUSTER_ID, role)
    assert list(answer.manager_addresses) == [swarm.leader.address]
    node = swarm.leader.store.view.nodes[answer.node_id]
    assert (node.role, node.spec.role, node.spec.availability) == (role, role, Availability.PAUSE)
    assert (node.description.hostname, node.status.address) == ("host1", "10.0.0.9")
    assert node.status.state is NodeState.UNKNOWN


async def test_a_follower_takes_machines_in_too(swarm3: Swarm) -> None:
    follower = swarm3.followers[0]
    async with door(swarm3, follower) as address:
        answer = await join(address, tokens(swarm3).worker)
    assert answer.node_id in swarm3.leader.store.view.nodes
    assert len(answer.manager_addresses) == 3


async def test_asking_again_with_the_same_key_is_the_same_node(swarm: Swarm) -> None:
    csr = make_csr(generate_key())
    async with door(swarm) as address:
        answers = [await join(address, tokens(swarm).worker, csr=csr) for _ in range(2)]
        both = await asyncio.gather(*(join(address, tokens(swarm).worker, csr=csr) for _ in range(2)))
        with pytest.raises(errors.AlreadyExists, match="another role"):
            await join(address, tokens(swarm).manager, csr=csr)
    assert len({answer.node_id for answer in [*answers, *both]}) == 1
    assert len(swarm.leader.store.view.nodes) == 2


async def test_a_wrong_secret(swarm: Swarm) -> None:
    async with door(swarm) as address:
        with pytest.raises(errors.Unauthenticated, match="invalid join token"):
            await join(address, str(JoinToken.generate(swarm.root.cert_pem)))
    assert len(swarm.leader.store.view.nodes) == 1


async def test_a_token_that_was_rotated_is_wrong(swarm: Swarm) -> None:
    cluster = swarm.leader.store.view.cluster
    old = cluster.join_tokens.worker
    fresh = replace(cluster.join_tokens, worker=str(JoinToken.generate(swarm.root.cert_pem)))
    await swarm.leader.store.propose([Update(replace(cluster, join_tokens=fresh))])
    async with door(swarm) as address:
        with pytest.raises(errors.Unauthenticated, match="invalid join token"):
            await join(address, old)
        await join(address, fresh.worker)


async def test_a_token_of_another_cluster(swarm: Swarm) -> None:
    other = RootAuthority.create("d" * 25, time.time())
    token = str(JoinToken.generate(other.cert_pem))
    async with door(swarm) as address:
        # The joining machine finds out before it sends the token …
        with pytest.raises(errors.FailedPrecondition, match="remote CA does not match fingerprint"):
            await join(address, token)
        # … and a machine that does not look is told.
        with pytest.raises(errors.InvalidArgument, match="belongs to another cluster"):
            await request_certificate(address, swarm.root.cert_pem, request(token))


async def test_an_impostor_gets_no_token(swarm: Swarm) -> None:
    """A server with a certificate of another root, which claims to have ours."""
    impostor = RootAuthority.create(CLUSTER_ID, time.time())
    seen: list[bytes] = []

    async def fake(manager_request: aiohttp.web.Request) -> aiohttp.web.Response:
        seen.append(await manager_request.read())
        answer = ca_pb2.GetRootCertificateResponse(root_ca_cert=swarm.root.cert_pem)
        return aiohttp.web.Response(body=answer.SerializeToString(), content_type="application/proto")

    leader = swarm.leader
    server = JoinServer(leader.ca, lambda: make_identity(impostor, "x" * 25, NodeRole.MANAGER))
    server._get_root_certificate = server._issue_certificate = fake  # type: ignore[method-assign]
    port = await server.start("127.0.0.1", 0)
    try:
        with pytest.raises(errors.FailedPrecondition, match="does not prove to be one of this cluster"):
            await join(f"127.0.0.1:{port - 1}", tokens(swarm).worker)
    finally:
        await server.close()
    assert seen == [b""]


async def test_a_workers_certificate_is_no_managers(swarm: Swarm) -> None:
    """Any node could listen on that port; only a manager's certificate carries the name that is verified."""
    server = JoinServer(swarm.leader.ca, lambda: make_identity(swarm.root, "x" * 25, NodeRole.WORKER))
    port = await server.start("127.0.0.1", 0)
    try:
        with pytest.raises(errors.FailedPrecondition, match="does not prove to be one of this cluster"):
            await join(f"127.0.0.1:{port - 1}", tokens(swarm).worker)
    finally:
        await server.close()


async def test_a_managers_certificate_that_expired(swarm: Swarm) -> None:
    key = generate_key()
    cert = swarm.root.issue(
        make_csr(key),
        node_id="x" * 25,
        cluster_id=CLUSTER_ID,
        role=NodeRole.MANAGER,
        now=time.time() - 9000,
        lifetime_s=60,
    )
    server = JoinServer(swarm.leader.ca, lambda: NodeIdentity(cert, key_to_pem(key), swarm.root.cert_pem))
    port = await server.start("127.0.0.1", 0)
    try:
        with pytest.raises(errors.FailedPrecondition, match="expired"):
            await join(f"127.0.0.1:{port - 1}", tokens(swarm).worker)
    finally:
        await server.close()


async def test_a_renewed_certificate_serves_the_next_connection(swarm: Swarm) -> None:
    present = [make_identity(swarm.root, "x" * 25, NodeRole.WORKER)]
    server = JoinServer(swarm.leader.ca, lambda: present[0])
    port = await server.start("127.0.0.1", 0)
    try:
        present[0] = swarm.leader.identity
        server.reload()
        await join(f"127.0.0.1:{port - 1}", tokens(swarm).worker)
    finally:
        await server.close()


async def test_nobody_there(swarm: Swarm, unused_tcp_port: int) -> None:
    with pytest.raises(errors.Unavailable) as refused:
        await join(f"127.0.0.1:{unused_tcp_port - 1}", tokens(swarm).worker)
    assert str(refused.value) == (
        f"could not reach a manager at 127.0.0.1:{unused_tcp_port - 1} (connection refused): "
        f"check the address and that port {unused_tcp_port} is open"
    )


async def test_somebody_else_there(swarm: Swarm) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises((errors.Unavailable, errors.FailedPrecondition)):
            await join(f"127.0.0.1:{port - 1}", tokens(swarm).worker)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"csr": b"rubbish"}, "not a certificate signing request"),
        ({"csr": b"-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n"}, "signing request"),
        ({"csr": b"x" * 20_000}, "too large"),
        ({"token": "SWMTKN-1-x-y"}, "invalid join token"),
        ({"hostname": "a b"}, "invalid host name"),
        ({"address": "nowhere"}, "is not an IP address"),
        ({"availability": 9}, "availability must be"),
    ],
)
async def test_bad_requests(swarm: Swarm, changes: dict[str, Any], message: str) -> None:
    async with door(swarm) as address:
        with pytest.raises(errors.InvalidArgument, match=message):
            await request_certificate(
                address, swarm.root.cert_pem, request(**{"token": tokens(swarm).worker, **changes})
            )


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def raw(address: str, body: bytes, **options: Any) -> tuple[int, bytes]:
    host, port = join_address(address)
    context = trusting()
    headers = {"Content-Type": options.get("content_type", "application/proto")}
    url = f"https://{host}:{port}/pyswarm.v1.CA/{options.get('method', 'IssueCertificate')}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=headers, ssl=context) as response,
    ):
        return response.status, await response.read()


async def test_the_door_refuses_what_is_too_large_or_of_another_kind(swarm: Swarm) -> None:
    async with door(swarm) as address:
        assert (await raw(address, b"x" * (MAX_BODY_BYTES + 1)))[0] == 413
        assert (await raw(address, b"{}", content_type="application/json"))[0] == 415
        assert (await raw(address, b"", method="Leave"))[0] == 404
        status, body = await raw(address, b"\xff\xff\xff")
        assert (status, json.loads(body)["code"]) == (400, "invalid_argument")


async def test_idle_connections_are_bounded(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyswarm_manager.ca.https.MAX_CONNECTIONS", 2)
    context = trusting()
    async with door(swarm) as address:
        host, port = join_address(address)
        idle = [await asyncio.open_connection(host, port, ssl=context) for _ in range(2)]
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        assert await reader.read() == b""  # closed, while the others stay
        writer.close()
        for _, other in idle:
            assert not other.is_closing()
            other.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(swarm: Swarm) -> None:
    async with door(swarm) as address:
        host, port = join_address(address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(host, port, ssl=context)


async def test_guessing_tokens_is_slow(swarm: Swarm) -> None:
    wrong = request(str(JoinToken.generate(swarm.root.cert_pem)))
    async with door(swarm) as address:
        for _ in range(WRONG_TOKENS):
            with pytest.raises(errors.Unauthenticated):
                await request_certificate(address, swarm.root.cert_pem, wrong)
        with pytest.raises(errors.Exhausted, match="too many wrong join tokens from this address"):
            await request_certificate(address, swarm.root.cert_pem, request(tokens(swarm).worker))


def test_wrong_tokens_are_forgotten_after_a_while_and_bounded() -> None:
    now = [0.0]
    wrong = WrongTokens(lambda: now[0])
    for _ in range(WRONG_TOKENS):
        wrong.add("a")
    with pytest.raises(errors.Exhausted):
        wrong.require_few("a")
    wrong.require_few("b")
    now[0] = 61.0
    wrong.require_few("a")
    for number in range(5000):
        wrong.add(str(number))
    assert len(wrong._seen) == 4096


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", ("10.0.0.1", 2378)),
        ("10.0.0.1:4000", ("10.0.0.1", 4001)),
        ("manager.example", ("manager.example", 2378)),
        ("[::1]:4000", ("::1", 4001)),
        ("[::1]", ("::1", 2378)),
        ("::1", ("::1", 2378)),
    ],
)
def test_addresses_of_managers(text: str, expected: tuple[str, int]) -> None:
    assert join_address(text) == expected


@pytest.mark.parametrize("text", ["", ":2377", "a:b", "a:0", "a:65535", "a:999999999", "a/b", "a@b", "[::1", "[::1]x"])
def test_no_addresses_of_managers(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="invalid manager address"):
        join_address(text)


async def test_random_requests_are_refusals(swarm: Swarm) -> None:
    """Whatever arrives, the answer is a refusal with a meaning, and the store does not change."""
    leader = swarm.leader
    writer = Writer(leader.store, leader.raft, lambda: "x" * 25, time.time)
    good = tokens(swarm).worker
    cases: list[ca_pb2.IssueCertificateRequest] = []

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=300), st.one_of(st.just(good), st.text(max_size=90)), st.text(max_size=20))
    def collect(csr: bytes, token: str, hostname: str) -> None:
        cases.append(ca_pb2.IssueCertificateRequest(csr=csr, token=token, hostname=hostname))

    collect()
    index = leader.store.view.index
    for case in cases:
        with pytest.raises(errors.PyswarmError):
            await issuing.issue(writer, case, asyncio.Lock())
    assert leader.store.view.index == index


async def test_random_bytes_over_https(swarm: Swarm) -> None:
    bodies: list[bytes] = []

    @settings(max_examples=40, deadline=None)
    @given(st.binary(max_size=500))
    def collect(body: bytes) -> None:
        bodies.append(body)

    collect()
    async with door(swarm) as address:
        for body in bodies:
            status, answer = await raw(address, body)
            assert status in (400, 401), answer
            assert json.loads(answer)["code"] in ("invalid_argument", "unauthenticated")


async def test_the_digest_is_the_one_in_the_token(swarm: Swarm) -> None:
    async with door(swarm) as address:
        assert await fetch_root_certificate(address, root_digest(swarm.root.cert_pem)) == swarm.root.cert_pem


async def test_the_root_certificate_by_grpc(swarm: Swarm) -> None:
    worker = make_identity(swarm.root, "w" * 25, NodeRole.WORKER)
    answer = await asked(swarm.ca(identity=worker).GetRootCertificate(ca_pb2.GetRootCertificateRequest()))
    assert answer.root_ca_cert == swarm.root.cert_pem


async def test_joining_while_the_root_is_replaced(swarm: Swarm) -> None:
    """With a token of the old root and with one of the new: the manager proves itself to both, and both trust both."""
    leader, now = swarm.leader, time.time()
    old_token = tokens(swarm).worker
    cluster = leader.store.view.cluster
    await leader.store.propose([Update(rotation.begun(cluster, RootAuthority.create(CLUSTER_ID, now), now))])
    cluster = leader.store.view.cluster
    fresh = str(JoinToken.generate(token_root(cluster)))
    await leader.store.propose([Update(replace(cluster, join_tokens=replace(cluster.join_tokens, manager=fresh)))])
    authority = signing_authority(cluster)
    leader.identity = replace_roots(make_identity(authority, leader.node_id, NodeRole.MANAGER), trusted_roots(cluster))
    async with door(swarm) as address:
        for token, role in ((old_token, NodeRole.WORKER), (fresh, NodeRole.MANAGER)):
            key = generate_key()
            answer = await join(address, token, csr=make_csr(key))
            identity = NodeIdentity(answer.certificate, key_to_pem(key), answer.root_ca_cert)
            assert (identity.role, issuer_of(identity.cert_pem)) == (role, authority.issuer)
            assert answer.root_ca_cert == trusted_roots(cluster)
        other = str(JoinToken.generate(RootAuthority.create(CLUSTER_ID, now).cert_pem))
        with pytest.raises(errors.FailedPrecondition, match="remote CA does not match fingerprint"):
            await join(address, other)


def replace_roots(identity: NodeIdentity, roots: bytes) -> NodeIdentity:
    return NodeIdentity(identity.cert_pem, identity.key_pem, roots)
