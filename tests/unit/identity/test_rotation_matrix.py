"""Every stage of a root's replacement against every other, as client and as server, by real gRPC and mTLS."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from ca_makers import CLUSTER, bridged, identity, make_ca, rsa_key
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pyswarm_common.identity import NodeIdentity, RootAuthority, ServedIdentity, bundle, read_authority
from pyswarm_common.rpc import open_channel


@dataclass(frozen=True)
class Stage:
    """A node's certificate (by whom it can be believed) and whom it believes."""

    identity: NodeIdentity
    believable_by: frozenset[str]
    trusts: frozenset[str]

    def can_talk_to(self, other: Stage) -> bool:
        return bool(self.believable_by & other.trusts) and bool(other.believable_by & self.trusts)


def stage(authority: RootAuthority, believable_by: str, roots: dict[str, RootAuthority], trusts: str) -> Stage:
    trusted = bundle(*(roots[name].cert_pem for name in trusts.split()))
    return Stage(identity(authority, trusted), frozenset(believable_by.split()), frozenset(trusts.split()))


def stages_of(old: RootAuthority, new: RootAuthority, newer: RootAuthority) -> dict[str, Stage]:
    roots = {"old": old, "new": new, "newer": newer}
    on_the_way, other_target = bridged(new, old), bridged(newer, old)
    return {
        "untouched": stage(old, "old", roots, "old"),
        "told of the new root": stage(old, "old", roots, "old new"),
        "certificate of the new root": stage(on_the_way, "old new", roots, "old new"),
        "old root dropped": stage(on_the_way, "old new", roots, "new"),
        "renewed afterwards": stage(new, "new", roots, "new"),
        "certificate of a second target": stage(other_target, "old newer", roots, "old newer"),
    }


def generated() -> RootAuthority:
    return RootAuthority.create(CLUSTER, time.time())


def by_rsa() -> RootAuthority:
    made = make_ca("rsa", key=rsa_key())
    return read_authority(made.pem, made.key_pem, time.time())


def by_intermediate() -> RootAuthority:
    """A P-384 root, an intermediate, and the CA that signs."""
    root = make_ca("top", key=ec.generate_private_key(ec.SECP384R1()))
    middle = make_ca("middle", root)
    signing = make_ca("signing", middle, ec.generate_private_key(ec.SECP384R1()))
    return read_authority(signing.pem + middle.pem + root.pem, signing.key_pem, time.time())


MAKERS = {"generated": generated, "RSA": by_rsa, "intermediates": by_intermediate}


async def serving(who: NodeIdentity) -> AsyncIterator[str]:
    server = grpc.aio.server()

    class Health(health_pb2_grpc.HealthServicer):
        async def Check(self, request: Any, context: Any) -> Any:
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    port = server.add_secure_port("127.0.0.1:0", ServedIdentity(who).credentials())
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def can_call(address: str, who: NodeIdentity) -> bool:
    async with open_channel(address, who, "swarm-manager") as channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)  # type: ignore[misc]
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True


@pytest.mark.parametrize("make_old", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("make_new", MAKERS.values(), ids=MAKERS)
async def test_whoever_is_to_understand_each_other_does(
    make_old: Callable[[], RootAuthority], make_new: Callable[[], RootAuthority]
) -> None:
    stages = stages_of(make_old(), make_new(), generated())
    for server_name, server in stages.items():
        async for address in serving(server.identity):
            for client_name, client in stages.items():
                expected = client.can_talk_to(server)
                assert await can_call(address, client.identity) is expected, f"{client_name} to {server_name}"


def test_the_stages_that_meet_in_a_cluster_can_all_talk() -> None:
    """What the rotation relies on: none of its stages is cut off from one that it can meet."""
    stages = stages_of(generated(), generated(), generated())
    underway = ["untouched", "told of the new root", "certificate of the new root", "certificate of a second target"]
    ending = ["certificate of the new root", "old root dropped", "renewed afterwards"]
    for together in (underway, ending):
        for one in together:
            assert all(stages[one].can_talk_to(stages[other]) for other in together), one
