"""A cluster's state with something of everything, and logs that hold it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from pyswarm_common.identity import JoinToken, RootAuthority
from pyswarm_common.model import (
    Cluster,
    ClusterSpec,
    ContainerSpec,
    JoinTokens,
    ManagerStatus,
    Network,
    NetworkSpec,
    Node,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeState,
    NodeStatus,
    Service,
    ServiceSpec,
    Task,
    TaskSpec,
)
from pyswarm_common.model.audit import AuditRecord
from pyswarm_manager.raft.core.configuration import encode_change
from pyswarm_manager.raft.core.types import (
    ConfChange,
    ConfOperation,
    Entry,
    EntryKind,
    HardState,
    Snapshot,
)
from pyswarm_manager.raft.storage.port import Stored
from pyswarm_manager.store.changes import Change, ChangeSet, Create
from pyswarm_manager.store.encoding import encode_change_set
from pyswarm_manager.store.tables import Tables

CLUSTER_ID = "c" * 25
NOW = time.time()
ROOT = RootAuthority.create(CLUSTER_ID, NOW)
TOKENS = JoinTokens(worker=str(JoinToken.generate(ROOT.cert_pem)), manager=str(JoinToken.generate(ROOT.cert_pem)))
CLUSTER = Cluster(
    id=CLUSTER_ID,
    spec=ClusterSpec(name="test"),
    root_ca_cert=ROOT.cert_pem,
    root_ca_key=ROOT.key_pem,
    join_tokens=TOKENS,
    backup_key=b"b" * 32,
)


def node(number: int, role: NodeRole, raft_id: int = 0) -> Node:
    status = ManagerStatus(raft_id=raft_id, address=f"192.0.2.{number}:2377") if raft_id else None
    return Node(
        id=f"node{number}",
        spec=NodeSpec(role=role, labels={"n": str(number)}),
        description=NodeDescription(hostname=f"n{number}"),
        status=NodeStatus(state=NodeState.READY, address=f"192.0.2.{number}"),
        manager_status=status,
        role=role,
    )


NODES = [*(node(n, NodeRole.MANAGER, n) for n in (1, 2, 3)), node(4, NodeRole.WORKER)]
SERVICE = Service(id="web", spec=ServiceSpec(name="web", task=TaskSpec(container=ContainerSpec(image="web:1"))))
NETWORK = Network(id="net", spec=NetworkSpec(name="net", driver="overlay"), vni=4097)


def task(number: int) -> Task:
    return Task(
        id=f"task{number}",
        service_id="web",
        service_name="web",
        slot=number,
        node_id="node4",
        spec=SERVICE.spec.task,
    )


def tables(tasks: int = 5, records: int = 3) -> Tables:
    made = Tables(index=77)
    for item in (CLUSTER, *NODES, SERVICE, NETWORK, *map(task, range(1, tasks + 1))):
        made.put(item)
    made.audit.extend(AuditRecord(index=n) for n in range(records))
    return made


class Log:
    """Builds what a member has on disk."""

    def __init__(self, own: int, voters: Mapping[int, str]) -> None:
        self.own, self.entries = own, list[Entry]()
        for raft_id, address in sorted(voters.items()):
            self.member(ConfOperation.ADD_VOTER, raft_id, address)

    def add(self, kind: EntryKind, data: bytes) -> None:
        self.entries.append(Entry(len(self.entries) + 1, 1, kind, data))

    def member(self, operation: ConfOperation, raft_id: int, address: str = "") -> None:
        self.add(EntryKind.CONFIG, encode_change(ConfChange(operation, raft_id, address)))

    def write(self, *changes: Change) -> None:
        self.add(EntryKind.NORMAL, encode_change_set(ChangeSet(changes, NOW)))

    def stored(self, commit: int | None = None, entries: Sequence[Entry] | None = None) -> Stored:
        all_of_it = tuple(self.entries if entries is None else entries)
        last = all_of_it[-1].index if all_of_it else 0
        return Stored(self.own, HardState(2, 0, last if commit is None else commit), Snapshot(), all_of_it)


def three_managers(own: int = 3) -> Log:
    """A log with the whole state in it."""
    log = Log(own, {n: f"192.0.2.{n}:2377" for n in (1, 2, 3)})
    log.write(Create(CLUSTER))
    log.write(*map(Create, NODES))
    log.write(Create(NETWORK), Create(SERVICE))
    log.write(*(Create(task(n)) for n in (1, 2)))
    return log
