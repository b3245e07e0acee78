"""People's client certificates: what they open, what they never open, and how they end."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from manager_harness import CLUSTER_ID, Swarm, asked, make_identity, new_id, service_spec, wire, worker_node
from msgspec.structs import replace
from people import access, make_person, stub_of

from pyswarm.v1 import (
    access_pb2,
    ca_pb2,
    ca_pb2_grpc,
    control_pb2,
    control_pb2_grpc,
    types_pb2,
    watch_pb2,
    watch_pb2_grpc,
)
from pyswarm_common import errors
from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.identity.people import person_subject
from pyswarm_common.model import JoinTokens, NodeRole
from pyswarm_common.model.objects import Credential
from pyswarm_common.model.states import CredentialKind, PersonRole
from pyswarm_common.rpc import open_channel
from pyswarm_manager.api.authorisation import TABLE

pb = control_pb2
VIEWER, OPERATOR, ADMIN = PersonRole.VIEWER, PersonRole.OPERATOR, PersonRole.ADMIN


def forged(
    root: RootAuthority, role: PersonRole, name: str, credential_id: str, cluster_id: str = CLUSTER_ID
) -> NodeIdentity:
    """Signed by the cluster's own root, but not made by its managers."""
    key = generate_key()
    subject = person_subject(role, name, cluster_id, credential_id)
    cert = root.issue_person(make_csr(key), subject, now=time.time(), lifetime_s=3600)
    return NodeIdentity(cert, key_to_pem(key), root.cert_pem)


def control(swarm: Swarm, person: NodeIdentity) -> Any:
    return stub_of(swarm, control_pb2_grpc.ControlStub, person)


def credential_id(person: NodeIdentity) -> str:
    subject = x509.load_pem_x509_certificate(person.cert_pem).subject
    return str(subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)[0].value)


CALLS = {
    "ListServices": (VIEWER, pb.ListServicesRequest()),
    "GetCluster": (VIEWER, pb.GetClusterRequest()),
    "CreateService": (OPERATOR, pb.CreateServiceRequest(spec=wire(service_spec("made")))),
    "CreateNetwork": (OPERATOR, pb.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="net"))),
    "UpdateCluster": (ADMIN, pb.UpdateClusterRequest(rotate_worker_token=True)),
    "RemoveNode": (ADMIN, pb.RemoveNodeRequest(node="gone")),
}


@pytest.mark.parametrize("role", list(PersonRole))
async def test_each_role_does_what_it_may_and_nothing_else(swarm: Swarm, role: PersonRole) -> None:
    await swarm.create(worker_node(new_id(), "gone", status=replace(worker_node("x", "x").status, state=0)))
    stub = control(swarm, await make_person(swarm, role))
    version = (await stub.GetCluster(pb.GetClusterRequest())).cluster.meta.version
    for method, (least, request) in CALLS.items():
        if method == "UpdateCluster":
            request.version = version
        call = asked(getattr(stub, method)(request))
        if role < least:
            with pytest.raises(errors.Forbidden, match="may not call"):
                await call
        elif method == "RemoveNode":  # let in; what is done to that node is the method's own affair
            with contextlib.suppress(errors.FailedPrecondition):
                await call
        else:
            await call


async def test_no_person_can_do_what_a_node_does(swarm: Swarm) -> None:
    person = await make_person(swarm, ADMIN)
    stub = stub_of(swarm, ca_pb2_grpc.CAStub, person)
    for call in (
        stub.RenewCertificate(ca_pb2.RenewCertificateRequest(csr=make_csr(generate_key()))),
        stub.JoinRaft(ca_pb2.JoinRaftRequest(raft_id=7, address="127.0.0.1:1")),
        stub.Leave(ca_pb2.LeaveRequest()),
        stub.IssueCertificate(ca_pb2.IssueCertificateRequest()),
    ):
        with pytest.raises(errors.Forbidden):
            await asked(call)


async def test_a_workers_certificate_is_no_persons(swarm: Swarm) -> None:
    node_id = new_id()
    await swarm.create(worker_node(node_id, "w1"))
    stub = control(swarm, make_identity(swarm.root, node_id, NodeRole.WORKER))
    with pytest.raises(errors.Forbidden, match="a worker may not call"):
        await asked(stub.ListServices(pb.ListServicesRequest()))


async def test_a_removed_certificate_is_refused_and_its_streams_end(swarm: Swarm) -> None:
    person = await make_person(swarm, VIEWER)
    stub = control(swarm, person)
    await stub.ListServices(pb.ListServicesRequest())
    watch: Any = stub_of(swarm, watch_pb2_grpc.WatchStub, person).Watch(watch_pb2.WatchRequest())
    await watch.read()
    request = access_pb2.RemoveClientCertificateRequest(certificate="alice")
    await access(swarm).RemoveClientCertificate(request)
    with pytest.raises(errors.Unauthenticated, match="removed"):
        await asked(stub.ListServices(pb.ListServicesRequest()))
    await swarm.create(worker_node(new_id(), "w1"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await watch.read()
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_certificate_that_the_managers_do_not_know_is_refused(swarm: Swarm) -> None:
    with pytest.raises(errors.Unauthenticated):
        await asked(control(swarm, forged(swarm.root, ADMIN, "eve", new_id())).GetCluster(pb.GetClusterRequest()))


@pytest.mark.parametrize("change", ["key", "role", "name"])
async def test_a_certificate_must_be_the_one_that_was_made(swarm: Swarm, change: str) -> None:
    known = credential_id(await make_person(swarm, VIEWER))
    role = ADMIN if change == "role" else VIEWER
    name = "root" if change == "name" else "alice"
    with pytest.raises(errors.Unauthenticated):
        await asked(control(swarm, forged(swarm.root, role, name, known)).ListNodes(pb.ListNodesRequest()))


async def test_another_clusters_certificate_is_refused(swarm: Swarm) -> None:
    known = credential_id(await make_person(swarm, VIEWER))
    stranger = forged(swarm.root, VIEWER, "alice", known, cluster_id="d" * 25)
    with pytest.raises(errors.Forbidden, match="another cluster"):
        await asked(control(swarm, stranger).ListNodes(pb.ListNodesRequest()))


async def test_what_has_expired_in_the_store_is_refused(swarm: Swarm) -> None:
    key = generate_key()
    old = Credential(
        id=new_id(), kind=CredentialKind.TOKEN, name="old", role=VIEWER, digest=b"x", expires_at=time.time() - 1
    )
    await swarm.create(old)
    subject = person_subject(VIEWER, "old", CLUSTER_ID, old.id)
    cert = swarm.root.issue_person(make_csr(key), subject, now=time.time(), lifetime_s=3600)
    stub = control(swarm, NodeIdentity(cert, key_to_pem(key), swarm.root.cert_pem))
    with pytest.raises(errors.Unauthenticated, match="expired"):
        await asked(stub.ListNodes(pb.ListNodesRequest()))


async def test_a_new_certificate_is_known_at_once_on_every_manager(swarm3: Swarm) -> None:
    key = generate_key()
    request = access_pb2.CreateClientCertificateRequest(
        name="alice", role=access_pb2.PERSON_ROLE_VIEWER, csr=make_csr(key)
    )
    follower = swarm3.followers[0]
    made = await access(swarm3, swarm3.leader).CreateClientCertificate(request)
    person = NodeIdentity(made.certificate, key_to_pem(key), made.root_ca_cert)
    stub = stub_of(swarm3, control_pb2_grpc.ControlStub, person, follower)
    await stub.ListNodes(pb.ListNodesRequest(options=pb.ListOptions(consistency=pb.CONSISTENCY_LOCAL)))


async def test_a_person_cannot_be_taken_for_a_server(swarm: Swarm) -> None:
    """Not even one who is called as managers are."""
    person = await make_person(swarm, ADMIN, name="swarm-manager")
    certificate = x509.load_pem_x509_certificate(person.cert_pem)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    impostor = grpc.aio.server()
    port = impostor.add_secure_port("127.0.0.1:0", person.server_credentials())
    await impostor.start()
    channel = open_channel(f"127.0.0.1:{port}", swarm.leader.identity, "swarm-manager")
    try:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await control_pb2_grpc.ControlStub(channel).GetCluster(pb.GetClusterRequest(), timeout=5.0)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await channel.close(None)
        await impostor.stop(None)


# ---------------------------------------------------------------- what a role sees and may change inside a method


@pytest.mark.parametrize(("role", "sees"), [(VIEWER, False), (OPERATOR, False), (ADMIN, True)])
async def test_only_an_admin_sees_join_tokens(swarm: Swarm, role: PersonRole, sees: bool) -> None:
    person = await make_person(swarm, role)
    cluster = (await control(swarm, person).GetCluster(pb.GetClusterRequest())).cluster
    assert bool(cluster.join_tokens.worker) is sees
    kept = swarm.leader.store.view.cluster
    assert kept is not None
    assert isinstance(kept.join_tokens, JoinTokens)
    for secret in (kept.root_ca_key, kept.join_tokens.worker.encode(), kept.join_tokens.manager.encode()):
        assert (secret in cluster.SerializeToString()) is (sees and secret != kept.root_ca_key)


async def test_a_viewers_watch_shows_no_tokens(swarm: Swarm) -> None:
    person = await make_person(swarm, VIEWER)
    watch: Any = stub_of(swarm, watch_pb2_grpc.WatchStub, person).Watch(watch_pb2.WatchRequest())
    await watch.read()
    cluster = swarm.leader.store.view.cluster
    assert cluster is not None
    request = pb.UpdateClusterRequest(version=cluster.meta.version, rotate_worker_token=True)
    await swarm.control().UpdateCluster(request)
    seen = (await watch.read()).events[0].cluster
    assert seen.id == cluster.id
    assert not seen.HasField("join_tokens")


async def test_an_operator_drains_a_node_and_promotes_none(swarm: Swarm) -> None:
    node = worker_node(new_id(), "w1")
    await swarm.create(node)
    stub = control(swarm, await make_person(swarm, OPERATOR))
    found = (await stub.GetNode(pb.GetNodeRequest(node="w1"))).node
    found.spec.availability = types_pb2.AVAILABILITY_DRAIN
    request = pb.UpdateNodeRequest(node_id=node.id, version=found.meta.version, spec=found.spec)
    changed = (await stub.UpdateNode(request)).node
    assert changed.spec.availability == types_pb2.AVAILABILITY_DRAIN
    request.version, request.spec.role = changed.meta.version, types_pb2.NODE_ROLE_MANAGER
    with pytest.raises(errors.Forbidden, match="ask an admin"):
        await asked(stub.UpdateNode(request))


# ---------------------------------------------------------------- forged metadata


FORGED = (
    ("pyswarm-forwarded-by", "m" * 25),
    ("pyswarm-caller", "local"),
    ("pyswarm-caller-name", "root"),
)


async def test_what_a_person_says_of_itself_is_not_read(swarm: Swarm) -> None:
    stub = control(swarm, await make_person(swarm, VIEWER))
    with pytest.raises(errors.Forbidden, match="a viewer may not call"):
        await asked(stub.CreateService(CALLS["CreateService"][1], metadata=FORGED))
    cluster = (await stub.GetCluster(pb.GetClusterRequest(), metadata=FORGED)).cluster
    assert not cluster.join_tokens.worker


async def test_a_manager_passes_nothing_on_that_its_caller_may_not_do(swarm: Swarm) -> None:
    await make_person(swarm, VIEWER)
    credential = next(iter(swarm.leader.store.view.credentials.values()))
    told = (
        ("pyswarm-forwarded-by", swarm.leader.node_id),
        ("pyswarm-caller", "viewer"),
        ("pyswarm-caller-name", "alice"),
        ("pyswarm-caller-credential", credential.id),
        ("pyswarm-caller-fingerprint", credential.digest.hex()),
    )
    await swarm.control().ListServices(pb.ListServicesRequest(), metadata=told)
    with pytest.raises(errors.Forbidden, match="may not make it"):
        await asked(swarm.control().CreateService(CALLS["CreateService"][1], metadata=told))
    unknown = (*told[:3], ("pyswarm-caller-credential", new_id()))
    with pytest.raises(errors.Unauthenticated):
        await asked(swarm.control().ListServices(pb.ListServicesRequest(), metadata=unknown))
    for kind in ("anyone", "worker", "nobody"):
        hop = (("pyswarm-forwarded-by", swarm.leader.node_id), ("pyswarm-caller", kind))
        with pytest.raises(errors.Forbidden):
            await asked(swarm.control().CreateService(CALLS["CreateService"][1], metadata=hop))


def test_every_call_tried_here_is_one_of_the_tables() -> None:
    assert all(f"/pyswarm.v1.Control/{method}" in TABLE for method in CALLS)
