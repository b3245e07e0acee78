"""A cluster made anew of a backup: one manager, a fresh Raft log that begins with the backup's state.

Decides what becomes of the objects: the cluster with its root, its tokens and everything users made stay as they are;
managers of before are no longer managers (their Raft ids can never come back, and their nodes are workers that are
down until they report); this machine is a new node and the only manager. Term and index begin well beyond the
backup's, so that nothing the old managers wrote after it can be taken for the new cluster's.

Pure but for `lay_log` and the fresh key. Nothing is written before the whole backup was verified. The daemon starts the
manager next.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from pyswarm_common.backup.container import Header, Readable, Reader, Summary
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.identity import NodeIdentity, generate_key, key_from_pem, key_to_pem, make_csr
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.model import (
    Availability,
    Cluster,
    ManagerStatus,
    Meta,
    Node,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeState,
    NodeStatus,
)
from pyswarm_manager.at_rest import AtRest
from pyswarm_manager.backup.contents import tables_of
from pyswarm_manager.ca.issuing import id_of_key, sign
from pyswarm_manager.config import ManagerPaths
from pyswarm_manager.raft.core.configuration import MAX_REMOVED
from pyswarm_manager.raft.core.types import NOBODY, Configuration, HardState, Member, MemberRole, Snapshot
from pyswarm_manager.store.audit import by_local_root, recorded
from pyswarm_manager.store.encoding import encode_snapshot
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.trust import trusted_roots

INDEX_GAP = 1_000_000
TERM_GAP = 1_000
"""More than the lost managers can have gone on after the backup: they would have to write for days."""
DROPPED = "its manager was lost: let this node leave the swarm and join again, or promote it once it is ready"


@dataclass(frozen=True, slots=True)
class Verified:
    """A backup that was read to its end with the right key."""

    header: Header
    summary: Summary
    tables: Tables

    @property
    def cluster(self) -> Cluster:
        cluster = self.tables.cluster
        assert cluster is not None, "a verified backup holds its cluster"
        return cluster


@dataclass(frozen=True, slots=True)
class Place:
    """This machine, as the new manager."""

    address: str
    manager_address: str
    description: NodeDescription
    availability: Availability
    raft_id: int
    identity: NodeIdentity | None = None
    """Of a node of the same cluster, which it stays."""


@dataclass(frozen=True, slots=True, repr=False)
class Restored:
    """What the new manager starts with."""

    tables: Tables
    identity: NodeIdentity
    configuration: Configuration
    term: int


def read_backup(file: Readable, key: bytes) -> Verified:
    """Everything in the file, verified. Blocks. Raises what the reader raises."""
    reader = Reader(file)
    summary = reader.summary(key)
    return Verified(reader.header, summary, tables_of(reader.pieces()))


def restored(backup: Verified, place: Place, now: float) -> Restored:
    """The state of the new cluster's first moment, and the identity of its only node so far."""
    cluster = backup.cluster
    if not cluster.root_ca_key:
        raise FailedPrecondition("the backup's swarm keeps its root key elsewhere: no manager can be made of it alone")
    index = backup.header.index + INDEX_GAP
    identity = _identity(cluster, place.identity, now)
    tables = backup.tables
    removed = _raft_ids(backup)
    for node in tuple(tables.nodes.values()):
        if node.role is NodeRole.MANAGER or node.spec.role is NodeRole.MANAGER or node.manager_status is not None:
            tables.put(touched(dropped(node, now), index, now))
    tables.put(_own_node(backup.tables.nodes.get(identity.node_id), identity, place, index, now))
    tables.index = index
    tables.audit.append(recorded(by_local_root("Daemon/Restore"), index, now, ()))
    members = {place.raft_id: Member(place.manager_address, MemberRole.VOTER)}
    return Restored(tables, identity, Configuration(members, removed), backup.header.term + TERM_GAP)


def dropped(node: Node, now: float) -> Node:
    """A manager of before, as what it is now."""
    return replace(
        node,
        spec=replace(node.spec, role=NodeRole.WORKER),
        role=NodeRole.WORKER,
        manager_status=None,
        status=NodeStatus(state=NodeState.DOWN, message=DROPPED, address=node.status.address, changed_at=now),
    )


def touched(node: Node, index: int, now: float) -> Node:
    """Changed outside of a change set: with the version that `apply` would have given it."""
    return replace(node, meta=replace(node.meta, version=index, updated_at=now))


def lay_log(paths: ManagerPaths, master: LockKey | None, state: Restored, raft_id: int) -> None:
    """Write the log of a member that has just received this state as a snapshot. Blocks. Its directory must be new."""
    paths.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    storage = AtRest.open(paths, master, time.time()).storage
    try:
        if storage.load() is not None:
            raise FailedPrecondition(f"{paths.database} holds a manager's log already: leave that swarm first")
        index = state.tables.index
        snapshot = Snapshot(index, state.term, state.configuration, encode_snapshot(state.tables))
        hard_state = HardState(state.term, NOBODY, index)
        storage.initialise(raft_id, HardState(), ())
        storage.save(hard_state, (), snapshot)
    finally:
        storage.close()


def _raft_ids(backup: Verified) -> tuple[int, ...]:
    """Of every manager that was, as far as the backup knows."""
    known: Iterable[int] = (
        *(manager.raft_id for manager in backup.summary.managers),
        *(node.manager_status.raft_id for node in backup.tables.nodes.values() if node.manager_status is not None),
    )
    return tuple(dict.fromkeys(known))[-MAX_REMOVED:]


def _identity(cluster: Cluster, known: NodeIdentity | None, now: float) -> NodeIdentity:
    """A new key makes a new node. A known node keeps its key, and gets a certificate that this root stands for."""
    key = generate_key() if known is None else key_from_pem(known.key_pem)
    csr = make_csr(key)
    node_id = id_of_key(csr) if known is None else known.node_id
    certificate = sign(cluster, csr, node_id, NodeRole.MANAGER, now)
    return NodeIdentity(certificate, key_to_pem(key), trusted_roots(cluster))


def _own_node(before: Node | None, identity: NodeIdentity, place: Place, index: int, now: float) -> Node:
    """As it was in the backup, where it is in it; a manager in any case."""
    spec = before.spec if before is not None else NodeSpec(availability=place.availability)
    meta = before.meta if before is not None else Meta(created_at=now)
    return replace(
        before if before is not None else Node(id=identity.node_id),
        meta=replace(meta, version=index, updated_at=now),
        spec=replace(spec, role=NodeRole.MANAGER),
        description=place.description,
        status=NodeStatus(address=place.address, changed_at=now),
        manager_status=ManagerStatus(raft_id=place.raft_id, address=place.manager_address),
        role=NodeRole.MANAGER,
    )
