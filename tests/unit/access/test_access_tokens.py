"""API tokens over the HTTPS door: Connect's unary calls and streams, what is refused, and what is bounded."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from typing import Any

import pytest
from google.rpc import error_details_pb2
from manager_harness import Swarm, asked, new_id, service_spec, wire, worker_node
from people import Door, access, enveloped, make_token, open_door, read_envelope, stub_of

from pyswarm.v1 import access_pb2, control_pb2, control_pb2_grpc, types_pb2, watch_pb2
from pyswarm_common import errors
from pyswarm_common.identity import NodeIdentity, generate_key, key_to_pem, make_csr
from pyswarm_common.identity.people import ApiToken, read_person
from pyswarm_common.model.objects import Credential
from pyswarm_common.model.states import CredentialKind, PersonRole
from pyswarm_manager.access import connect
from pyswarm_manager.access.connect import MAX_BODY_BYTES, MAX_CALLS_PER_TOKEN
from pyswarm_manager.access.tokens import WRONG_TOKENS, network_of

pb = control_pb2
VIEWER, OPERATOR, ADMIN = PersonRole.VIEWER, PersonRole.OPERATOR, PersonRole.ADMIN


async def refusal(door: Door, method: str, request: Any, token: str) -> tuple[int, str]:
    status, body = await door.call(method, request, token)
    return status, json.loads(body)["code"]


async def test_a_token_opens_what_its_role_may(swarm: Swarm) -> None:
    viewer, operator = await make_token(swarm, VIEWER, "v"), await make_token(swarm, OPERATOR, "o")
    create = pb.CreateServiceRequest(spec=wire(service_spec("web")))
    async with open_door(swarm.leader) as door:
        assert await refusal(door, "Control/CreateService", create, viewer) == (403, "permission_denied")
        status, body = await door.call("Control/CreateService", create, operator)
        assert status == 200
        made = pb.CreateServiceResponse.FromString(body).service
        status, body = await door.call("Control/GetService", pb.GetServiceRequest(service="web"), viewer)
        assert pb.GetServiceResponse.FromString(body).service.id == made.id
        assert await refusal(door, "Access/ListTokens", access_pb2.ListTokensRequest(), operator) == (
            403,
            "permission_denied",
        )


async def test_json_for_people_with_curl(swarm: Swarm) -> None:
    token = await make_token(swarm, OPERATOR)
    async with open_door(swarm.leader) as door:
        status, made = await door.call_json("Control/CreateNetwork", {"spec": {"name": "net"}}, token)
        assert (status, made["network"]["spec"]["name"]) == (200, "net")
        status, refused = await door.call_json("Control/CreateNetwork", {"spec": {"name": "net"}}, token)
        assert (status, refused["code"]) == (409, "already_exists")
        status, refused = await door.call_json("Control/CreateNetwork", {"spec": {"name": "-", "no": 1}}, token)
        assert (status, refused["code"]) == (400, "invalid_argument")


async def test_wrong_fields_come_as_details(swarm: Swarm) -> None:
    token = await make_token(swarm, OPERATOR)
    async with open_door(swarm.leader) as door:
        _, refused = await door.call_json("Control/CreateNetwork", {"spec": {"name": ""}}, token)
    (detail,) = refused["details"]
    assert detail["type"] == "google.rpc.BadRequest"
    found = error_details_pb2.BadRequest.FromString(base64.b64decode(detail["value"] + "=="))
    assert [violation.field for violation in found.field_violations] == ["name"]


async def test_a_follower_serves_tokens_too(swarm3: Swarm) -> None:
    token = await make_token(swarm3, OPERATOR)
    create = pb.CreateServiceRequest(spec=wire(service_spec("web")))
    async with open_door(swarm3.followers[0]) as door:
        status, _ = await door.call("Control/CreateService", create, token)
        assert status == 200
    record = swarm3.leader.store.view.audit[-1]
    assert (record.actor_kind, record.actor, record.source) == ("token", "ci", "127.0.0.1")
    assert record.manager_id == swarm3.followers[0].node_id


async def test_only_a_hash_of_the_token_is_kept(swarm: Swarm) -> None:
    token = await make_token(swarm, VIEWER)
    assert token.startswith("PSWT-1-")
    secret = token.rpartition("-")[2].encode()
    assert secret not in swarm.leader.store.capture()()
    (kept,) = swarm.leader.store.view.credentials.values()
    assert kept.digest == hashlib.sha256(token.encode()).digest()
    listed = await access(swarm).ListTokens(access_pb2.ListTokensRequest())
    assert listed.credentials[0].name == "ci"
    assert kept.digest not in listed.SerializeToString()


async def test_what_is_no_token_is_refused(swarm: Swarm) -> None:
    good = await make_token(swarm, VIEWER)
    other = str(ApiToken.generate(ApiToken.parse(good).id))
    async with open_door(swarm.leader) as door:
        for token in ("", "nonsense", other, str(ApiToken.generate(new_id()))):
            found = await refusal(door, "Control/ListNodes", pb.ListNodesRequest(), token)
            assert found == (401, "unauthenticated")
        assert (await door.call("Control/ListNodes", pb.ListNodesRequest(), good))[0] == 200


async def test_a_certificates_id_is_no_token(swarm: Swarm) -> None:
    token = ApiToken.generate(new_id())
    await swarm.create(Credential(id=token.id, kind=CredentialKind.CERTIFICATE, name="a", digest=token.digest))
    async with open_door(swarm.leader) as door:
        found = await refusal(door, "Control/ListNodes", pb.ListNodesRequest(), str(token))
        assert found == (401, "unauthenticated")


async def test_removed_and_expired_tokens_are_refused(swarm: Swarm) -> None:
    removed = await make_token(swarm, VIEWER, "removed")
    await access(swarm).RemoveToken(access_pb2.RemoveTokenRequest(token="removed"))
    expired = ApiToken.generate(new_id())
    await swarm.create(Credential(id=expired.id, name="old", digest=expired.digest, expires_at=time.time() - 1))
    async with open_door(swarm.leader) as door:
        for token in (removed, str(expired)):
            found = await refusal(door, "Control/ListNodes", pb.ListNodesRequest(), token)
            assert found == (401, "unauthenticated")


async def test_nobody_can_guess_on(swarm: Swarm) -> None:
    good = await make_token(swarm, VIEWER)
    async with open_door(swarm.leader) as door:
        for _ in range(WRONG_TOKENS):
            wrong = str(ApiToken.generate(new_id()))
            assert (await door.call("Control/ListNodes", pb.ListNodesRequest(), wrong))[0] == 401
        found = await refusal(door, "Control/ListNodes", pb.ListNodesRequest(), good)
        assert found == (429, "resource_exhausted")


def test_who_has_many_addresses_is_counted_once() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("10.0.0.1") != network_of("10.0.0.2")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")


# ---------------------------------------------------------------- streams


async def test_a_watch_by_stream_until_the_token_is_removed(swarm: Swarm) -> None:
    token = await make_token(swarm, VIEWER)
    body = enveloped(watch_pb2.WatchRequest().SerializeToString())
    async with (
        open_door(swarm.leader) as door,
        door.post("Watch/Watch", body, token, "application/connect+proto") as response,
    ):
        assert response.headers["Content-Type"] == "application/connect+proto"
        flags, payload = await read_envelope(response.content)
        assert (flags, watch_pb2.WatchResponse.FromString(payload).version) == (0, swarm.leader.store.view.index)
        node = worker_node(new_id(), "w1")
        await swarm.create(node)
        _, payload = await read_envelope(response.content)
        assert watch_pb2.WatchResponse.FromString(payload).events[0].node.id == node.id
        await access(swarm).RemoveToken(access_pb2.RemoveTokenRequest(token="ci"))
        await swarm.create(worker_node(new_id(), "w2"))
        flags, payload = await read_envelope(response.content)
        assert flags == 2
        assert json.loads(payload)["error"]["code"] == "unauthenticated"
        assert await response.content.read() == b""


async def test_a_stream_says_how_it_ends(swarm: Swarm) -> None:
    token = await make_token(swarm, VIEWER)
    body = enveloped(b'{"kinds": [77]}')
    async with (
        open_door(swarm.leader) as door,
        door.post("Watch/Watch", body, token, "application/connect+json") as response,
    ):
        flags, payload = await read_envelope(response.content)
        assert (flags, json.loads(payload)["error"]["code"]) == (2, "invalid_argument")


async def test_a_stream_ends_in_the_time_that_was_asked_for(swarm: Swarm) -> None:
    token = await make_token(swarm, VIEWER)
    headers = {"Connect-Timeout-Ms": "50"}
    async with (
        open_door(swarm.leader) as door,
        door.post("Watch/Watch", enveloped(b""), token, "application/connect+proto", **headers) as response,
    ):
        await read_envelope(response.content)
        flags, payload = await read_envelope(response.content)
        assert (flags, json.loads(payload)["error"]["code"]) == (2, "deadline_exceeded")


async def test_whoever_hangs_up_leaves_nothing_open(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_GONE_CHECK_S", 0.02)
    token = await make_token(swarm, VIEWER)
    async with open_door(swarm.leader) as door:
        async with door.post("Watch/Watch", enveloped(b""), token, "application/connect+proto") as response:
            await read_envelope(response.content)
            assert swarm.leader.people._calls.total() == 1
            response.close()
        await swarm.wait(lambda: swarm.leader.people._calls.total() == 0)


# ---------------------------------------------------------------- bounds and forms


async def test_a_body_that_is_too_large_is_refused(swarm: Swarm) -> None:
    token = await make_token(swarm, OPERATOR)
    async with (
        open_door(swarm.leader) as door,
        door.post("Control/CreateService", bytes(MAX_BODY_BYTES + 1), token) as response,
    ):
        assert response.status == 429
        assert (await response.json())["code"] == "resource_exhausted"


async def test_one_token_has_only_so_many_calls(swarm: Swarm) -> None:
    token, other = await make_token(swarm, VIEWER), await make_token(swarm, VIEWER, "other")
    async with open_door(swarm.leader) as door:
        watches = [
            await door.post("Watch/Watch", enveloped(b""), token, "application/connect+proto")
            for _ in range(MAX_CALLS_PER_TOKEN)
        ]
        try:
            found = await refusal(door, "Control/ListNodes", pb.ListNodesRequest(), token)
            assert found == (429, "resource_exhausted")
            assert (await door.call("Control/ListNodes", pb.ListNodesRequest(), other))[0] == 200
        finally:
            for watch in watches:
                watch.close()


@pytest.mark.parametrize(
    ("method", "content_type", "headers", "status"),
    [
        ("Control/NoSuchMethod", "application/proto", {}, 501),
        ("Raft/Exchange", "application/proto", {}, 501),
        ("CA/RenewCertificate", "application/proto", {}, 501),
        ("Control/ListNodes", "text/plain", {}, 400),
        ("Control/ListNodes", "application/connect+proto", {}, 400),
        ("Watch/Watch", "application/proto", {}, 400),
        ("Control/ListNodes", "application/proto", {"Content-Encoding": "gzip"}, 501),
        ("Control/ListNodes", "application/proto", {"Connect-Timeout-Ms": "soon"}, 400),
    ],
)
async def test_other_forms_are_refused(
    swarm: Swarm, method: str, content_type: str, headers: dict[str, str], status: int
) -> None:
    token = await make_token(swarm, ADMIN)
    async with open_door(swarm.leader) as door, door.post(method, b"", token, content_type, **headers) as response:
        assert response.status == status
        assert set(await response.json()) == {"code", "message"}


# ---------------------------------------------------------------- exchange


async def exchange(door: Door, token: str, lifetime_s: float = 0.0) -> tuple[NodeIdentity, Any]:
    key = generate_key()
    request = access_pb2.ExchangeTokenRequest(csr=make_csr(key), lifetime_s=lifetime_s)
    status, body = await door.call("Access/ExchangeToken", request, token)
    assert status == 200, body
    answer = access_pb2.ExchangeTokenResponse.FromString(body)
    return NodeIdentity(answer.certificate, key_to_pem(key), answer.root_ca_cert), answer


async def test_a_token_becomes_a_certificate_that_ends_with_it(swarm: Swarm) -> None:
    token = await make_token(swarm, OPERATOR)
    async with open_door(swarm.leader) as door:
        person, answer = await exchange(door, token)
    named = read_person(person.cert_pem)
    assert named is not None
    assert (named.role, named.name) == (OPERATOR, "ci")
    assert named.expires_at <= time.time() + 3600
    assert swarm.leader.address in answer.manager_addresses
    stub = stub_of(swarm, control_pb2_grpc.ControlStub, person)
    await stub.CreateNetwork(pb.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="net")))
    record = swarm.leader.store.view.audit[-1]
    assert (record.actor_kind, record.actor, record.credential_id) == ("certificate", "ci", named.credential_id)
    with pytest.raises(errors.Forbidden):
        await asked(stub.RemoveNode(pb.RemoveNodeRequest(node="x")))
    await access(swarm).RemoveToken(access_pb2.RemoveTokenRequest(token="ci"))
    with pytest.raises(errors.Unauthenticated):
        await asked(stub.ListNodes(pb.ListNodesRequest()))


async def test_a_certificate_made_from_a_token_ends_before_the_token(swarm: Swarm) -> None:
    token = await make_token(swarm, VIEWER, lifetime_s=120.0)
    async with open_door(swarm.leader) as door:
        person, _ = await exchange(door, token, lifetime_s=3000.0)
    named = read_person(person.cert_pem)
    assert named is not None
    assert named.expires_at <= time.time() + 120


async def test_only_a_token_can_be_exchanged(swarm: Swarm) -> None:
    token = await make_token(swarm, ADMIN)
    async with open_door(swarm.leader) as door:
        person, _ = await exchange(door, token)
    request = access_pb2.ExchangeTokenRequest(csr=make_csr(generate_key()))
    for identity in (person, None):  # None: a manager for itself
        with pytest.raises(errors.FailedPrecondition):
            await asked(access(swarm, identity=identity).ExchangeToken(request))


async def test_a_token_is_exchanged_so_often_and_no_more(swarm: Swarm) -> None:
    token = await make_token(swarm, VIEWER)
    request = access_pb2.ExchangeTokenRequest(csr=make_csr(generate_key()))
    async with open_door(swarm.leader) as door:
        calls = [door.call("Access/ExchangeToken", request, token) for _ in range(11)]
        found = [status for status, _ in await asyncio.gather(*calls)]
    assert sorted(found) == [200] * 10 + [429]


# ---------------------------------------------------------------- making them


@pytest.mark.parametrize(
    ("name", "role", "lifetime_s", "field"),
    [
        ("", 1, 0.0, "name"),
        ("a b", 1, 0.0, "name"),
        ("a\n", 1, 0.0, "name"),
        ("x" * 65, 1, 0.0, "name"),
        ("ok", 0, 0.0, "role"),
        ("ok", 4, 0.0, "role"),
        ("ok", 1, 1.0, "lifetime_s"),
        ("ok", 1, -1.0, "lifetime_s"),
        ("ok", 1, float("nan"), "lifetime_s"),
        ("ok", 1, 1e12, "lifetime_s"),
    ],
)
async def test_what_a_credential_cannot_be(swarm: Swarm, name: str, role: int, lifetime_s: float, field: str) -> None:
    calls = [
        access(swarm).CreateToken(access_pb2.CreateTokenRequest(name=name, role=role, lifetime_s=lifetime_s)),  # type: ignore[arg-type]
        access(swarm).CreateClientCertificate(
            access_pb2.CreateClientCertificateRequest(name=name, role=role, lifetime_s=lifetime_s)  # type: ignore[arg-type]
        ),
    ]
    for call in calls:
        with pytest.raises(errors.InvalidArgument) as refused:
            await asked(call)
        assert [path for path, _ in refused.value.violations] == [field]


async def test_names_are_unique_until_what_has_them_has_expired(swarm: Swarm) -> None:
    await make_token(swarm, VIEWER)
    with pytest.raises(errors.AlreadyExists):
        await asked(make_token(swarm, VIEWER))
    await swarm.create(Credential(id=new_id(), name="old", digest=b"x", expires_at=time.time() - 1))
    await make_token(swarm, VIEWER, "old")
    assert len(swarm.leader.store.view.credentials) == 2
