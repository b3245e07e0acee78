"""What a node does about its certificate and its trust when the cluster's root is replaced."""

from __future__ import annotations

import time

import pytest

from pyswarm.v1 import node_pb2
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.identity import NodeIdentity, RootAuthority, bundle, generate_key, issuer_of, key_to_pem, make_csr
from pyswarm_common.model import Availability, CertificateStatus, ClusterSpec, Node, NodeDescription, NodeRole
from pyswarm_node.founding import cluster_root, cluster_spec, found
from pyswarm_node.roles import Step, next_step
from pyswarm_node.trust import TrustWishes

CLUSTER = "c" * 25
OLD, NEW, NEWER = (RootAuthority.create(CLUSTER, time.time()) for _ in range(3))


def identity(authority: RootAuthority, roots: bytes = b"") -> NodeIdentity:
    key = generate_key()
    certificate = authority.issue(
        make_csr(key), node_id="n" * 25, cluster_id=CLUSTER, role=NodeRole.WORKER, now=time.time(), lifetime_s=3600
    )
    return NodeIdentity(certificate, key_to_pem(key), roots or authority.cert_pem)


def asked(authority: RootAuthority) -> Node:
    return Node(id="n" * 25, certificate=CertificateStatus(renew_from=authority.issuer))


def test_other_roots_are_trusted_once_they_are_told() -> None:
    wishes, own = TrustWishes(), identity(OLD)
    assert not wishes.has_new_roots(own)
    both = bundle(OLD.cert_pem, NEW.cert_pem)
    wishes.on_roots(both)
    assert wishes.has_new_roots(own)
    changed = wishes.with_new_roots(own)
    assert (changed.root_cert_pem, changed.cert_pem, changed.key_pem) == (both, own.cert_pem, own.key_pem)
    assert not wishes.has_new_roots(changed)


def test_what_is_no_certificate_is_not_trusted() -> None:
    wishes = TrustWishes()
    wishes.on_roots(b"rubbish")
    with pytest.raises(InvalidArgument):
        wishes.with_new_roots(identity(OLD))
    assert not wishes.has_new_roots(identity(OLD))  # said once, and not for ever


def test_a_new_certificate_is_fetched_when_it_is_asked_for_and_only_then() -> None:
    wishes, before = TrustWishes(), identity(OLD)
    assert not wishes.is_asked_to_renew(before, None)
    assert not wishes.is_asked_to_renew(before, Node(id="n" * 25))
    assert not wishes.is_asked_to_renew(before, asked(OLD))
    assert wishes.is_asked_to_renew(before, asked(NEW))
    after = identity(NEW)
    wishes.renewed(before, after, asked(NEW))
    assert not wishes.is_asked_to_renew(after, asked(NEW))


def test_an_old_question_that_a_newer_ca_answered_is_not_asked_for_ever() -> None:
    wishes, before, after = TrustWishes(), identity(OLD), identity(NEWER)
    wishes.renewed(before, after, asked(NEW))
    assert not wishes.is_asked_to_renew(after, asked(NEW))
    assert not wishes.is_asked_to_renew(after, asked(NEWER))


def test_a_leader_that_did_not_know_yet_is_asked_again() -> None:
    wishes, before = TrustWishes(), identity(OLD)
    after = identity(OLD)
    wishes.renewed(before, after, asked(NEW))
    assert wishes.is_asked_to_renew(after, asked(NEW))


def test_the_roots_of_a_renewal_count_more_than_what_was_told_before() -> None:
    wishes, before = TrustWishes(), identity(OLD)
    wishes.on_roots(OLD.cert_pem)
    after = identity(NEW, bundle(OLD.cert_pem, NEW.cert_pem))
    wishes.renewed(before, after, None)
    assert not wishes.has_new_roots(after)


def test_trust_goes_before_everything_else_and_renewal_when_asked() -> None:
    fields = {"is_manager_set_up": False, "renew_at": 100.0, "now": 0.0}
    assert next_step(None, NodeRole.WORKER, **fields, has_new_roots=True) is Step.TRUST  # type: ignore[arg-type]
    assert next_step(None, NodeRole.WORKER, **fields, is_asked_to_renew=True) is Step.RENEW  # type: ignore[arg-type]


def test_a_cluster_with_a_ca_of_its_own() -> None:
    now = time.time()
    request = node_pb2.InitRequest(root_ca_cert=OLD.cert_pem, root_ca_key=OLD.key_pem, node_cert_expiry_s=7200)
    spec = cluster_spec(request)
    founding = found(
        spec,
        address="192.0.2.1",
        manager_address="192.0.2.1:2377",
        description=NodeDescription(),
        availability=Availability.ACTIVE,
        now=now,
        root=cluster_root(request, now),
    )
    cluster, node = founding.bootstrap.cluster, founding.bootstrap.node
    assert (cluster.root_ca_cert, cluster.root_ca_chain) == (OLD.cert_pem, b"")
    assert issuer_of(founding.identity.cert_pem) == OLD.issuer == node.certificate.issuer
    assert founding.identity.validity[1] == pytest.approx(now + 7200, abs=2)


def test_inits_refusals_about_certificates() -> None:
    with pytest.raises(InvalidArgument, match="minimum certificate expiry time must be 1h"):
        cluster_spec(node_pb2.InitRequest(node_cert_expiry_s=60))
    with pytest.raises(InvalidArgument, match="unencrypted private key"):
        cluster_root(node_pb2.InitRequest(root_ca_cert=OLD.cert_pem), time.time())
    with pytest.raises(InvalidArgument, match="does not fit"):
        cluster_root(node_pb2.InitRequest(root_ca_cert=OLD.cert_pem, root_ca_key=NEW.key_pem), time.time())
    assert cluster_root(node_pb2.InitRequest(), time.time()) is None
    assert cluster_spec(node_pb2.InitRequest()) == ClusterSpec()
