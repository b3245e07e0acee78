"""After lost quorum: a log rewritten so that its manager is the only one, with everything the log holds.

Decides what is added to the log: the removal of every other member, the manager's new address if it has one, and the
change of the lost managers' Node objects, all marked as committed. What the log held and may not have been committed is
kept, since somebody may have been told that it was. It goes to disk in one transaction, so a crash leaves the log as it
was or as it is to be, and doing it again then changes nothing.

Must never run beside the manager itself, nor while the other managers can elect a leader: those would be two clusters.
`rewritten` is pure but for the store's own `apply`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from msgspec.structs import replace

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.model import ManagerStatus, Node, NodeRole
from pyswarm_manager.at_rest import AtRest
from pyswarm_manager.backup.restoring import dropped
from pyswarm_manager.config import ManagerPaths
from pyswarm_manager.raft.core.configuration import apply_change, decode_change, encode_change
from pyswarm_manager.raft.core.types import (
    NOBODY,
    ConfChange,
    Configuration,
    ConfOperation,
    Entry,
    EntryKind,
    HardState,
    MemberRole,
)
from pyswarm_manager.raft.storage.port import Stored
from pyswarm_manager.store.audit import by_local_root
from pyswarm_manager.store.changes import Change, ChangeSet, Update
from pyswarm_manager.store.encoding import encode_change_set, split_changes
from pyswarm_manager.store.store import Store
from pyswarm_manager.store.tables import Tables

_REMOVED = (
    "this manager was removed from its swarm: what it knows is out of date. Force a new cluster on another manager, or "
    "restore a backup"
)


@dataclass(frozen=True, slots=True)
class Held:
    """What one manager's log comes to when all of it counts."""

    tables: Tables
    configuration: Configuration
    commit_index: int
    last_index: int
    last_term: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A manager that will not be one any more. `node` is None when no object claims the member."""

    raft_id: int
    address: str
    node: Node | None = None


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One `save`."""

    hard_state: HardState
    entries: tuple[Entry, ...]


@dataclass(slots=True)
class _Draft:
    """Entries that are added one by one."""

    index: int
    term: int
    entries: list[Entry] = field(default_factory=list)

    def add(self, kind: EntryKind, data: bytes) -> None:
        self.index += 1
        self.entries.append(Entry(self.index, self.term, kind, data))

    def change(self, operation: ConfOperation, raft_id: int, address: str = "") -> None:
        self.add(EntryKind.CONFIG, encode_change(ConfChange(operation, raft_id, address)))


def held(stored: Stored) -> Held:
    """Replay the log. An entry that would remove this manager itself, and may not be committed, ends it."""
    store = Store(time.time)
    snapshot = stored.snapshot
    if snapshot.index:
        store.restore(snapshot.index, snapshot.data)
    configuration, last = snapshot.configuration, (snapshot.index, snapshot.term)
    for entry in stored.entries:
        if entry.kind is EntryKind.CONFIG:
            changed = apply_change(configuration, decode_change(entry.data))
            if stored.raft_id in configuration.members and stored.raft_id not in changed.members:
                if entry.index <= stored.hard_state.commit:
                    raise FailedPrecondition(_REMOVED)
                break
            configuration = changed
        elif entry.kind is EntryKind.NORMAL:
            store.apply(entry.index, entry.term, entry.data)
        last = (entry.index, entry.term)
    if stored.raft_id not in configuration.members:
        raise FailedPrecondition(_REMOVED if configuration.members else "this manager has not joined its swarm yet")
    return Held(store.view, configuration, min(stored.hard_state.commit, last[0]), *last)


def lost(state: Held, own: int) -> tuple[Lost, ...]:
    """Who would no longer be a manager: the other members, and nodes that are to be managers and are no members."""
    claimed = {node.manager_status.raft_id: node for node in state.tables.nodes.values() if node.manager_status}
    members = [Lost(i, m.address, claimed.get(i)) for i, m in sorted(state.configuration.members.items()) if i != own]
    known = {own, *(member.raft_id for member in members)}
    others = [
        Lost(node.manager_status.raft_id if node.manager_status else NOBODY, node.status.address, node)
        for node in state.tables.nodes.values()
        if NodeRole.MANAGER in (node.role, node.spec.role)
        and (node.manager_status is None or node.manager_status.raft_id not in known)
    ]
    return (*members, *others)


def rewritten(stored: Stored, state: Held, address: str, now: float) -> Rewrite | None:
    """What is to be written; None if this manager is alone already and has that address."""
    own = stored.raft_id
    others = lost(state, own)
    member = state.configuration.members[own]
    if not others and member.address == address and member.role is MemberRole.VOTER:
        return None
    draft = _Draft(state.last_index, max(stored.hard_state.term, state.last_term) + 1)
    if member.role is not MemberRole.VOTER:
        draft.change(ConfOperation.ADD_VOTER, own, address)
    elif member.address != address:
        draft.change(ConfOperation.UPDATE_ADDRESS, own, address)
    for other in sorted(state.configuration.members):
        if other != own:
            draft.change(ConfOperation.REMOVE, other)
    changes: list[Change] = [Update(dropped(other.node, now)) for other in others if other.node is not None]
    changes += _own_change(state, own, address)
    for part in split_changes(changes):
        draft.add(
            EntryKind.NORMAL, encode_change_set(ChangeSet(tuple(part), now, by_local_root("Daemon/ForceNewCluster")))
        )
    return Rewrite(HardState(draft.term, NOBODY, draft.index), tuple(draft.entries))


def _own_change(state: Held, own: int, address: str) -> list[Change]:
    for node in state.tables.nodes.values():
        status = node.manager_status
        if status is not None and status.raft_id == own and status.address != address:
            return [Update(replace(node, manager_status=ManagerStatus(raft_id=own, address=address)))]
    return []


def read_held(paths: ManagerPaths, master: LockKey | None) -> tuple[Stored, Held]:
    """What this machine's manager holds. Blocks; the manager must not run."""
    storage = AtRest.open(paths, master, time.time()).storage
    try:
        stored = _load(storage.load())
        return stored, held(stored)
    finally:
        storage.close()


def rewrite_log(paths: ManagerPaths, master: LockKey | None, address: str) -> None:
    """Make this machine's manager the only one. Blocks; the manager must not run. May be done again after a crash."""
    storage = AtRest.open(paths, master, time.time()).storage
    try:
        stored = _load(storage.load())
        rewrite = rewritten(stored, held(stored), address, time.time())
        if rewrite is not None:
            storage.save(rewrite.hard_state, rewrite.entries, None)
    finally:
        storage.close()


def _load(stored: Stored | None) -> Stored:
    if stored is None:
        raise FailedPrecondition("this manager's log is empty: restore a backup instead")
    return stored
