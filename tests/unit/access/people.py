"""People with certificates and tokens, and the door for tokens without its TLS."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from manager_harness import Manager, Swarm

from pyswarm.v1 import access_pb2, access_pb2_grpc
from pyswarm_common.identity import NodeIdentity, generate_key, key_to_pem, make_csr
from pyswarm_common.model.states import PersonRole
from pyswarm_common.rpc import open_channel
from pyswarm_manager.store.recording import asked_by

pb = access_pb2
ROLES = {PersonRole.VIEWER: "viewer", PersonRole.OPERATOR: "operator", PersonRole.ADMIN: "admin"}


def access(swarm: Swarm, manager: Manager | None = None, identity: NodeIdentity | None = None) -> Any:
    return access_pb2_grpc.AccessStub(swarm.channel(manager or swarm.leader, identity))


async def make_person(swarm: Swarm, role: PersonRole, name: str = "alice", lifetime_s: float = 0.0) -> NodeIdentity:
    """With a certificate from the managers."""
    key = generate_key()
    request = pb.CreateClientCertificateRequest(name=name, role=int(role), csr=make_csr(key), lifetime_s=lifetime_s)  # type: ignore[arg-type]
    made = await access(swarm).CreateClientCertificate(request)
    await swarm.settle()
    return NodeIdentity(made.certificate, key_to_pem(key), made.root_ca_cert)


async def make_token(swarm: Swarm, role: PersonRole, name: str = "ci", lifetime_s: float = 0.0) -> str:
    request = pb.CreateTokenRequest(name=name, role=int(role), lifetime_s=lifetime_s)  # type: ignore[arg-type]
    made = await access(swarm).CreateToken(request)
    await swarm.settle()
    return str(made.token)


def stub_of(swarm: Swarm, stub: Any, identity: NodeIdentity, manager: Manager | None = None) -> Any:
    channel = open_channel((manager or swarm.leader).address, identity, "swarm-manager")
    swarm.channels.append(channel)
    return stub(channel)


class Door:
    """The HTTPS door of one manager, by plain HTTP."""

    def __init__(self, server: TestServer, session: aiohttp.ClientSession) -> None:
        self._server, self._session = server, session

    def post(
        self, method: str, body: bytes, token: str, content_type: str = "application/proto", **headers: str
    ) -> Any:
        sent = {"Content-Type": content_type, **headers}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        return self._session.post(self._server.make_url(f"/pyswarm.v1.{method}"), data=body, headers=sent)

    async def call(self, method: str, request: Any, token: str) -> tuple[int, bytes]:
        async with self.post(method, request.SerializeToString(), token) as response:
            return response.status, await response.read()

    async def call_json(self, method: str, request: Any, token: str) -> tuple[int, Any]:
        async with self.post(method, json.dumps(request).encode(), token, "application/json") as response:
            return response.status, json.loads(await response.read())


@contextlib.asynccontextmanager
async def open_door(manager: Manager) -> AsyncIterator[Door]:
    app = web.Application()

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await manager.people.handle(request)
        finally:
            assert asked_by() is None, "what the connection serves next would be done in this caller's name"

    app.router.add_post("/{service}/{method}", handle)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield Door(server, session)


def enveloped(payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(payload)) + payload


async def read_envelope(content: aiohttp.StreamReader) -> tuple[int, bytes]:
    flags, length = struct.unpack(">BI", await content.readexactly(5))
    return flags, await content.readexactly(length)
