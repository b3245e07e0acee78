"""A node whose certificate has expired proves itself by its key, over real HTTPS; and a manager helps itself."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace as replaced

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manager_harness import CLUSTER_ID, Swarm
from msgspec.structs import replace
from test_ca_join import door

from pyswarm.v1 import ca_pb2
from pyswarm_common import errors
from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_from_pem, key_to_pem, make_csr
from pyswarm_common.identity.join_client import renew_expired
from pyswarm_common.identity.renewal import expired_request, read_expired_request
from pyswarm_common.identity.verification import claimed_node_id, key_digest
from pyswarm_common.model import Node, NodeRole, NodeSpec, RemovedNode
from pyswarm_manager.ca.renewal import own_certificate
from pyswarm_manager.store.changes import Update, delete
from pyswarm_node.certificates import removal

DAY = 86_400.0
NODE_ID = "n0slept00through00its00end"[:25]


def expired(root: RootAuthority, node_id: str = NODE_ID, role: NodeRole = NodeRole.WORKER) -> NodeIdentity:
    """Valid until yesterday."""
    key = generate_key()
    certificate = root.issue(
        make_csr(key),
        node_id=node_id,
        cluster_id=CLUSTER_ID,
        role=role,
        now=time.time() - 91 * DAY,
        lifetime_s=90 * DAY,
    )
    return NodeIdentity(certificate, key_to_pem(key), root.cert_pem)


def root_of(swarm: Swarm) -> RootAuthority:
    cluster = swarm.leader.store.view.cluster
    assert cluster is not None
    return RootAuthority(cluster.root_ca_cert, cluster.root_ca_key)


def digest(identity: NodeIdentity) -> str:
    return key_digest(key_from_pem(identity.key_pem).public_key())


async def asked(swarm: Swarm, identity: NodeIdentity, now: float | None = None) -> ca_pb2.RenewCertificateResponse:
    async with door(swarm) as address:
        request = expired_request(identity, now or time.time())
        return await renew_expired(address, root_of(swarm).cert_pem, request)


async def test_a_node_that_slept_through_its_expiry_comes_back(swarm: Swarm) -> None:
    identity = expired(root_of(swarm))
    await swarm.create(Node(id=NODE_ID, key_digests=(digest(identity),)))
    answer = await asked(swarm, identity)
    renewed = NodeIdentity(answer.certificate, identity.key_pem, answer.root_ca_cert)
    assert (renewed.node_id, renewed.role) == (NODE_ID, NodeRole.WORKER)
    assert renewed.validity[1] > time.time() + DAY
    assert digest(renewed) == digest(identity)


async def test_it_gets_the_role_that_is_wanted_now(swarm: Swarm) -> None:
    identity = expired(root_of(swarm))
    await swarm.create(Node(id=NODE_ID, spec=NodeSpec(role=NodeRole.MANAGER)))
    answer = await asked(swarm, identity)
    assert NodeIdentity(answer.certificate, identity.key_pem, answer.root_ca_cert).role is NodeRole.MANAGER
    node = swarm.leader.store.view.nodes[NODE_ID]
    assert node.role is NodeRole.MANAGER
    assert node.key_digests == (digest(identity),)


async def test_a_removed_node_stays_removed(swarm: Swarm) -> None:
    identity = expired(root_of(swarm))
    await swarm.create(Node(id=NODE_ID))
    await swarm.leader.store.propose([delete(swarm.leader.store.view.nodes[NODE_ID])])
    with pytest.raises(errors.Forbidden):
        await asked(swarm, identity)


def unexpired(root: RootAuthority) -> NodeIdentity:
    key, now = generate_key(), time.time()
    certificate = root.issue(
        make_csr(key),
        node_id=NODE_ID,
        cluster_id=CLUSTER_ID,
        role=NodeRole.WORKER,
        now=now,
        lifetime_s=90 * DAY,
    )
    return NodeIdentity(certificate, key_to_pem(key), root.cert_pem)


async def test_whoever_was_removed_hears_it_though_its_root_has_been_replaced(swarm: Swarm) -> None:
    """It trusts the new root already, and its own certificate is of the old one: no TLS lets it in."""
    old = RootAuthority.create(CLUSTER_ID, time.time() - 100 * DAY)
    identity = replaced(unexpired(old), root_cert_pem=old.cert_pem + b"\n" + root_of(swarm).cert_pem)
    await swarm.create(Node(id=NODE_ID))
    async with door(swarm) as address:
        assert not await removal(identity, [address]), "it is there, and gets nothing this way"
        await swarm.leader.store.propose([delete(swarm.leader.store.view.nodes[NODE_ID])])
        assert not await removal(identity, [address]), "nobody knows the node, nor who it is"
        await swarm.create(RemovedNode(id=NODE_ID, expires_at=time.time() + DAY))
        said = await removal(identity, ["127.0.0.1:1", address])
    assert said == f"{address}: node {NODE_ID} was removed from the swarm: leave, then join again"


CERTIFICATE = unexpired(RootAuthority.create(CLUSTER_ID, time.time())).cert_pem


@given(at=st.integers(0, len(CERTIFICATE)), cut=st.integers(0, 40), put=st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_whatever_is_shown_as_a_certificate_claims_a_node_or_is_refused(at: int, cut: int, put: bytes) -> None:
    with contextlib.suppress(errors.InvalidArgument):
        assert isinstance(claimed_node_id(CERTIFICATE[:at] + put + CERTIFICATE[at + cut :]), str)
    assert claimed_node_id(CERTIFICATE) == NODE_ID
    with pytest.raises(errors.InvalidArgument):
        claimed_node_id(put)


async def test_what_has_not_expired_is_not_renewed_through_the_door(swarm: Swarm) -> None:
    identity = unexpired(root_of(swarm))
    await swarm.create(Node(id=NODE_ID))
    before = swarm.leader.store.view.index
    with pytest.raises(errors.FailedPrecondition, match="has not expired"):
        await asked(swarm, identity)
    assert swarm.leader.store.view.index == before


async def test_an_old_key_of_the_node_is_not_enough(swarm: Swarm) -> None:
    identity = expired(root_of(swarm))
    await swarm.create(Node(id=NODE_ID, key_digests=("newest", "before")))
    with pytest.raises(errors.Forbidden, match="newer certificates"):
        await asked(swarm, identity)


async def test_another_root_another_key_and_another_time_are_refused(swarm: Swarm) -> None:
    await swarm.create(Node(id=NODE_ID))
    root = root_of(swarm)
    stranger = expired(RootAuthority.create(CLUSTER_ID, time.time() - 100 * DAY))
    with pytest.raises(errors.InvalidArgument, match="not issued by this cluster"):
        await asked(swarm, stranger)
    with pytest.raises(errors.InvalidArgument, match="signature"):
        await asked(swarm, NodeIdentity(expired(root).cert_pem, key_to_pem(generate_key()), root.cert_pem))
    with pytest.raises(errors.InvalidArgument, match="clocks"):
        await asked(swarm, expired(root), time.time() - 2 * 3600)
    request = expired_request(expired(root), time.time())
    request.csr = make_csr(generate_key())
    with pytest.raises(errors.InvalidArgument):
        read_expired_request(request, root.cert_pem, time.time())


async def test_a_follower_passes_it_on(swarm3: Swarm) -> None:
    identity = expired(root_of(swarm3))
    await swarm3.create(Node(id=NODE_ID))
    await swarm3.settle()
    async with door(swarm3, swarm3.followers[0]) as address:
        answer = await renew_expired(address, root_of(swarm3).cert_pem, expired_request(identity, time.time()))
    assert NodeIdentity(answer.certificate, identity.key_pem, answer.root_ca_cert).node_id == NODE_ID


async def test_a_manager_issues_itself_a_certificate_by_its_own_store(swarm: Swarm) -> None:
    manager = swarm.leader
    view, now = manager.store.view, time.time()
    answer = own_certificate(view, manager.identity, now + 100 * DAY)
    renewed = NodeIdentity(answer.certificate, manager.identity.key_pem, answer.root_ca_cert)
    assert (renewed.node_id, renewed.role) == (manager.identity.node_id, NodeRole.MANAGER)
    assert renewed.validity[1] > now + 100 * DAY
    node = view.nodes[manager.identity.node_id]
    await manager.store.propose([Update(replace(node, key_digests=("another",)))])
    with pytest.raises(errors.FailedPrecondition, match="key"):
        own_certificate(manager.store.view, manager.identity, now)
    node = manager.store.view.nodes[manager.identity.node_id]
    await manager.store.propose([Update(replace(node, key_digests=(), role=NodeRole.WORKER))])
    with pytest.raises(errors.FailedPrecondition, match="not to be a manager"):
        own_certificate(manager.store.view, manager.identity, now)


async def test_each_renewal_is_remembered_by_its_key(swarm: Swarm) -> None:
    keys = [generate_key() for _ in range(3)]
    for key in keys:
        await swarm.ca(identity=swarm.leader.identity).RenewCertificate(
            ca_pb2.RenewCertificateRequest(csr=make_csr(key))
        )
    node = swarm.leader.store.view.nodes[swarm.leader.identity.node_id]
    assert node.key_digests == tuple(key_digest(key.public_key()) for key in reversed(keys[1:]))


ROOT = RootAuthority.create(CLUSTER_ID, time.time() - 100 * DAY)
VALID = expired_request(expired(ROOT), time.time())


@given(
    certificate=st.one_of(st.just(VALID.certificate), st.binary(max_size=300), st.text(max_size=300).map(str.encode)),
    csr=st.one_of(st.just(VALID.csr), st.binary(max_size=300)),
    signature=st.one_of(st.just(VALID.signature), st.binary(max_size=80)),
    flip=st.integers(0, len(VALID.certificate) * 8 - 1),
)
@settings(max_examples=150, deadline=None)
def test_a_request_is_believed_or_refused_in_a_sentence(
    certificate: bytes, csr: bytes, signature: bytes, flip: int
) -> None:
    flipped = bytearray(certificate)
    if flip // 8 < len(flipped):
        flipped[flip // 8] ^= 1 << flip % 8
    request = ca_pb2.RenewExpiredRequest(
        certificate=bytes(flipped), csr=csr, asked_at_ms=VALID.asked_at_ms, signature=signature
    )
    with contextlib.suppress(errors.InvalidArgument):
        assert read_expired_request(request, ROOT.cert_pem, time.time()).node_id == NODE_ID
