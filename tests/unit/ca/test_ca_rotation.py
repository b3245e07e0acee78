"""The root replaced: step by step, with nodes away, a second target, new leaders, and in any order of events."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pyswarm.v1 import security_pb2
from pyswarm_common.errors import FailedPrecondition, InvalidArgument
from pyswarm_common.identity import (
    JoinToken,
    RootAuthority,
    bundle,
    generate_key,
    make_csr,
    read_bundle,
    root_digest,
    roots_of,
)
from pyswarm_common.identity.authority import key_identifier
from pyswarm_common.ids import id_from_bits
from pyswarm_common.model import (
    CertificateStatus,
    Cluster,
    JoinTokens,
    LimitedJoinToken,
    Node,
    NodeDescription,
    NodeRole,
    NodeState,
    NodeStatus,
)
from pyswarm_manager.ca import rotation
from pyswarm_manager.ca.certificates import _told
from pyswarm_manager.ca.issuing import sign
from pyswarm_manager.ca.tokens import grant_of
from pyswarm_manager.removed import removal
from pyswarm_manager.store.apply import Applied, apply
from pyswarm_manager.store.changes import Change, ChangeSet, Create, Update
from pyswarm_manager.store.encoding import decode_change_set, encode_change_set
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.trust import present_authority, signing_authority, token_root, trusted_roots

NOW = time.time()
CLUSTER = "c" * 25
CSR = make_csr(generate_key())


@dataclass
class Machine:
    """A node as it is out there: what it has on disk, and whether it is up."""

    certificate: bytes
    roots: bytes
    is_up: bool = True


@dataclass
class World:
    """The managers' tables, changed as the store would, and the machines."""

    view: Tables = field(default_factory=Tables)
    machines: dict[str, Machine] = field(default_factory=dict)

    @classmethod
    def founded(cls, count: int) -> World:
        world, root = cls(), RootAuthority.create(CLUSTER, NOW)
        tokens = JoinTokens(*(str(JoinToken.generate(root.cert_pem)) for _ in range(2)))
        world.commit(
            Create(Cluster(id=CLUSTER, root_ca_cert=root.cert_pem, root_ca_key=root.key_pem, join_tokens=tokens))
        )
        for number in range(count):
            world.join(id_from_bits(number))
        return world

    @property
    def cluster(self) -> Cluster:
        cluster = self.view.cluster
        assert cluster is not None
        return cluster

    def commit(self, *changes: Change) -> None:
        change_set = decode_change_set(encode_change_set(ChangeSet(changes, NOW)))
        result = apply(self.view, self.view.index + 1, change_set)
        assert isinstance(result, Applied), result

    def join(self, node_id: str) -> None:
        certificate = self.signed(node_id)
        self.machines[node_id] = Machine(certificate, trusted_roots(self.cluster))
        issuer = signing_authority(self.cluster).issuer
        status, description = NodeStatus(state=NodeState.READY), NodeDescription(hostname=f"host-{node_id}")
        known = CertificateStatus(issuer=issuer, expires_at=NOW + 3600)
        self.commit(Create(Node(id=node_id, status=status, description=description, certificate=known)))

    def signed(self, node_id: str) -> bytes:
        return sign(self.cluster, CSR, node_id, NodeRole.WORKER, NOW)

    def rotate(self, target: RootAuthority | None = None) -> None:
        target = target or rotation.new_target(self.cluster, b"", b"", NOW)
        self.commit(Update(rotation.begun(self.cluster, target, NOW)))

    def step(self) -> bool:
        """What the leader's loop does next, whichever leader."""
        changes = rotation.next_changes(self.view)
        if changes:
            self.commit(*changes)
        return bool(changes)

    def tell_trust(self, node_id: str) -> None:
        """Through the node's session."""
        if self.machines[node_id].is_up:
            self.machines[node_id].roots = trusted_roots(self.cluster)

    def renew(self, node_id: str, *, is_answer_lost: bool = False, opens_session: bool = True) -> None:
        """The node fetches a certificate; it is known when the node opens a session with it."""
        machine = self.machines[node_id]
        certificate, roots = self.signed(node_id), trusted_roots(self.cluster)
        if not machine.is_up or is_answer_lost:
            return
        machine.certificate, machine.roots = certificate, roots
        if opens_session:
            self.open_session(node_id)

    def open_session(self, node_id: str) -> None:
        own = read_bundle(self.machines[node_id].certificate)[0]
        known = _told(self.view, node_id, (issuer_key(own).hex(), own.not_valid_after_utc.timestamp()))
        if known is not None:
            self.commit(Update(known))

    def set_up(self, node_id: str, *, is_up: bool) -> None:
        self.machines[node_id].is_up = is_up
        state = NodeState.READY if is_up else NodeState.DOWN
        node = self.view.nodes[node_id]
        self.commit(Update(replace(node, status=replace(node.status, state=state))))

    def remove(self, node_id: str) -> None:
        del self.machines[node_id]
        self.commit(*removal(self.view, self.view.nodes[node_id], NOW))

    def asked(self) -> list[str]:
        target = signing_authority(self.cluster).issuer
        return [node.id for node in self.view.nodes.values() if node.certificate.renew_from == target]

    def finish(self) -> None:
        """Everybody up, everything delivered, until nothing is left to do."""
        for node_id, machine in self.machines.items():
            if not machine.is_up:
                self.set_up(node_id, is_up=True)
        for _ in range(len(self.machines) + 5):
            self.step()
            for node_id in self.asked():
                self.renew(node_id)
        for node_id in self.machines:
            self.tell_trust(node_id)


def issuer_key(certificate: x509.Certificate) -> bytes:
    found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return found or b""


def believes(machine: Machine, other: Machine) -> bool:
    """Whether a path leads from the other's certificate to a root that the machine trusts, as TLS would find it."""
    trusted = {key_identifier(root) for root in read_bundle(machine.roots)}
    own, *sent = read_bundle(other.certificate)
    wanted = issuer_key(own)
    for _ in range(len(sent) + 1):
        if wanted in trusted:
            return True
        following = next((certificate for certificate in sent if key_identifier(certificate) == wanted), None)
        if following is None:
            return False
        wanted = issuer_key(following)
    return False


def assert_all_can_talk(world: World) -> None:
    for one, machine in world.machines.items():
        for other, peer in world.machines.items():
            assert believes(machine, peer), f"{one} does not believe {other}"


def test_a_rotation_from_beginning_to_end() -> None:
    world = World.founded(70)
    old, old_tokens = world.cluster, world.cluster.join_tokens
    world.rotate()
    assert len(roots_of(trusted_roots(world.cluster))) == 2
    assert world.cluster.root_ca_cert == old.root_ca_cert
    seen = 0
    while world.cluster.root_rotation is not None:
        assert world.step()
        asked = world.asked()
        assert len(asked) <= rotation.BATCH
        for node_id in asked:
            world.renew(node_id)
            seen += 1
        assert_all_can_talk_to_first(world)
    assert seen == 70
    cluster = world.cluster
    assert cluster.root_ca_cert != old.root_ca_cert
    assert cluster.root_ca_key != old.root_ca_key
    assert roots_of(trusted_roots(cluster)) == (cluster.root_ca_cert,)
    for text, before in zip(
        (cluster.join_tokens.worker, cluster.join_tokens.manager), vars_of(old_tokens), strict=True
    ):
        assert JoinToken.parse(text).digest == root_digest(cluster.root_ca_cert)
        assert JoinToken.parse(text).secret != JoinToken.parse(before).secret
    assert not world.step()
    world.finish()
    assert_all_can_talk(world)


def vars_of(tokens: JoinTokens) -> tuple[str, str]:
    return tokens.worker, tokens.manager


def assert_all_can_talk_to_first(world: World) -> None:
    first = next(iter(world.machines.values()))
    assert all(believes(first, machine) and believes(machine, first) for machine in world.machines.values())


def test_a_node_that_is_down_keeps_it_open_and_is_named() -> None:
    world = World.founded(3)
    away = id_from_bits(1)
    world.set_up(away, is_up=False)
    world.rotate()
    for _ in range(5):
        world.step()
        for node_id in world.asked():
            world.renew(node_id)
    status = rotation.status(world.view, world.cluster)
    assert (status.nodes_total, status.nodes_rotated) == (3, 2)
    assert [(node.node_id, node.hostname) for node in status.waiting] == [(away, f"host-{away}")]
    assert away not in world.asked()
    assert_all_can_talk(world)  # it may come back at any time
    world.set_up(away, is_up=True)
    world.step()
    assert away in world.asked()
    world.renew(away)
    world.step()
    assert world.cluster.root_rotation is None


def test_removing_the_node_that_holds_it_up_ends_it() -> None:
    world = World.founded(2)
    world.set_up(id_from_bits(1), is_up=False)
    world.rotate()
    world.step()
    world.renew(id_from_bits(0))
    assert not world.step()
    world.remove(id_from_bits(1))
    assert world.step()
    assert world.cluster.root_rotation is None


def test_a_node_that_left_holds_nothing_up() -> None:
    world = World.founded(2)
    left = id_from_bits(1)
    world.commit(Update(replace(world.view.nodes[left], certificate=CertificateStatus(is_void=True))))
    world.rotate()
    world.step()
    world.renew(id_from_bits(0))
    world.step()
    assert world.cluster.root_rotation is None
    assert rotation.status(world.view, world.cluster).nodes_total == 1


def test_a_lost_answer_is_no_rotated_node() -> None:
    """What counts is a session opened with the new certificate."""
    world = World.founded(1)
    (node_id,) = world.machines
    world.rotate()
    world.step()
    world.renew(node_id, is_answer_lost=True)
    assert not world.step()
    world.renew(node_id, opens_session=False)
    assert not world.step()
    world.open_session(node_id)
    assert world.step()
    assert world.cluster.root_rotation is None


def test_a_second_rotation_replaces_the_target() -> None:
    world = World.founded(4)
    world.rotate()
    first_target = signing_authority(world.cluster).issuer
    world.step()
    for node_id in list(world.machines)[:2]:
        world.renew(node_id)
    world.rotate()
    second = world.cluster.root_rotation
    assert second is not None
    assert signing_authority(world.cluster).issuer != first_target
    assert_all_can_talk(world)
    world.finish()
    assert world.cluster.root_ca_cert == second.root_ca_cert
    assert all(node.certificate.issuer == present_authority(world.cluster).issuer for node in world.view.nodes.values())
    assert_all_can_talk(world)


def test_tokens_of_both_roots_are_good_while_it_lasts() -> None:
    world = World.founded(1)
    old_token = world.cluster.join_tokens.worker
    world.rotate()
    fresh = JoinToken.generate(token_root(world.cluster))
    kept = LimitedJoinToken(id="k" * 25, secret_hash=fresh.secret_hash, root_digest=fresh.digest)
    stale_token = JoinToken.parse(old_token)
    stale = LimitedJoinToken(id="s" * 25, secret_hash=b"x" * 32, root_digest=stale_token.digest)
    world.commit(Create(kept), Create(stale))
    assert grant_of(world.view, world.cluster, old_token).role is NodeRole.WORKER
    assert grant_of(world.view, world.cluster, str(fresh)).limited is not None
    other = JoinToken.generate(RootAuthority.create("d" * 25, NOW).cert_pem)
    with pytest.raises(InvalidArgument, match="another cluster"):
        grant_of(world.view, world.cluster, str(other))
    world.finish()
    assert list(world.view.join_tokens) == [kept.id]  # the other could never be used again
    assert grant_of(world.view, world.cluster, str(fresh)).limited is not None
    with pytest.raises(InvalidArgument, match="another cluster"):
        grant_of(world.view, world.cluster, old_token)


def test_what_cannot_be_a_target() -> None:
    world = World.founded(1)
    present = world.cluster
    with pytest.raises(InvalidArgument, match="needs a new key"):
        rotation.new_target(present, present.root_ca_cert, present.root_ca_key, NOW)
    with pytest.raises(InvalidArgument, match="not an unencrypted private key"):
        rotation.new_target(present, present.root_ca_cert, b"", NOW)
    with pytest.raises(FailedPrecondition, match="kept elsewhere"):
        rotation.new_target(replace(present, root_ca_key=b""), b"", b"", NOW)


def test_status_of_a_cluster_at_rest() -> None:
    world = World.founded(2)
    status = rotation.status(world.view, world.cluster)
    assert (status.nodes_total, status.nodes_rotated, status.target_ca_cert) == (2, 2, b"")
    assert status == security_pb2.RootStatus.FromString(status.SerializeToString())


EVENTS = ("step", "renew", "lost", "quiet", "session", "trust", "down", "up", "rotate", "join", "remove")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_in_any_order_nobody_is_cut_off_and_it_ends(seed: int, events: int) -> None:
    """Renewals that are lost or not shown yet, nodes away, new targets, joins, removals, trust told late: whatever
    happens, at every moment every machine believes every other; and when all are up again, one root remains."""
    chance, world = random.Random(seed), World.founded(3)
    for number in range(events):
        event, node_id = chance.choice(EVENTS), chance.choice(list(world.machines))
        happen(world, event, node_id, id_from_bits(1000 + number))
        assert_all_can_talk(world)
    world.finish()
    assert world.cluster.root_rotation is None
    assert {machine.roots for machine in world.machines.values()} == {bundle(world.cluster.root_ca_cert)}
    assert_all_can_talk(world)


def happen(world: World, event: str, node_id: str, new_id: str) -> None:
    machine = world.machines[node_id]
    match event:
        case "step":
            world.step()
        case "renew" | "lost" | "quiet":
            world.renew(node_id, is_answer_lost=event == "lost", opens_session=event == "renew")
        case "session" if machine.is_up:
            world.open_session(node_id)
            world.tell_trust(node_id)
        case "trust":
            world.tell_trust(node_id)
        case "down" if machine.is_up:
            world.set_up(node_id, is_up=False)
        case "up" if not machine.is_up:
            world.set_up(node_id, is_up=True)
        case "rotate":
            world.rotate()
        case "join":
            world.join(new_id)
        case "remove" if len(world.machines) > 1:
            world.remove(node_id)
