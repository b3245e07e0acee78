"""A log rewritten for its manager alone: nothing of it is lost, everybody else is out, and twice is as good as once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from backup_state import NOW, Log, three_managers
from msgspec.structs import replace

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import NodeRole, NodeState
from pyswarm_manager.at_rest import AtRest
from pyswarm_manager.backup.forcing import held, lost, read_held, rewrite_log, rewritten
from pyswarm_manager.config import ManagerPaths
from pyswarm_manager.raft.core.types import ConfOperation, HardState, MemberRole
from pyswarm_manager.raft.driver import RaftNode
from pyswarm_manager.raft.memory_transport import MemoryTransport, Switchboard
from pyswarm_manager.raft.ports import RaftConfig
from pyswarm_manager.raft.storage.port import Stored
from pyswarm_manager.store.changes import Delete
from pyswarm_manager.store.store import Store
from pyswarm_manager.store.tables import Kind

OWN = 3
ADDRESS = "192.0.2.3:2377"


def after(stored: Stored, address: str = ADDRESS) -> Stored:
    """What is on disk after the rewrite."""
    rewrite = rewritten(stored, held(stored), address, NOW)
    if rewrite is None:
        return stored
    kept = tuple(entry for entry in stored.entries if entry.index < rewrite.entries[0].index)
    return replace(stored, hard_state=rewrite.hard_state, entries=(*kept, *rewrite.entries))


def test_it_is_alone_with_everything_its_log_held() -> None:
    log = three_managers()
    before, state = held(log.stored()), held(after(log.stored()))
    assert set(state.configuration.members) == {OWN}
    assert set(state.configuration.removed) == {1, 2}
    for kind in (Kind.CLUSTER, Kind.SERVICE, Kind.TASK, Kind.NETWORK):
        assert dict(state.tables.table(kind)) == dict(before.tables.table(kind))
    assert state.commit_index == state.last_index > before.last_index
    assert state.last_term > before.last_term


def test_lost_managers_become_workers_that_are_down_and_its_own_node_stays_a_manager() -> None:
    nodes = held(after(three_managers().stored())).tables.nodes
    for number in (1, 2):
        node = nodes[f"node{number}"]
        assert (node.role, node.spec.role, node.manager_status) == (NodeRole.WORKER, NodeRole.WORKER, None)
        assert node.status.state is NodeState.DOWN
    assert nodes["node3"].role is nodes["node3"].spec.role is NodeRole.MANAGER
    assert nodes["node4"].status.state is NodeState.READY


def test_who_is_lost_is_known_by_name_and_address() -> None:
    log = three_managers()
    log.member(ConfOperation.ADD_LEARNER, 8, "192.0.2.8:2377")
    told = [(other.raft_id, other.address, other.node and other.node.id) for other in lost(held(log.stored()), OWN)]
    assert told == [
        (1, "192.0.2.1:2377", "node1"),
        (2, "192.0.2.2:2377", "node2"),
        (8, "192.0.2.8:2377", None),
    ]


def test_a_node_that_was_to_become_a_manager_and_is_no_member_yet_stays_out() -> None:
    log = Log(OWN, {1: "192.0.2.1:2377", 3: ADDRESS})
    log.entries += [replace(e, index=e.index - 1) for e in three_managers().entries[3:]]
    assert "node2" in {other.node.id for other in lost(held(log.stored()), OWN) if other.node}
    assert held(after(log.stored())).tables.nodes["node2"].spec.role is NodeRole.WORKER


def test_entries_that_nobody_may_have_committed_are_kept() -> None:
    log = three_managers()
    log.write(Delete(Kind.TASK, "task1"))
    state = held(after(log.stored(commit=len(log.entries) - 1)))
    assert "task1" not in state.tables.tasks


def test_doing_it_again_changes_nothing() -> None:
    once = after(three_managers().stored())
    assert rewritten(once, held(once), ADDRESS, NOW) is None


def test_it_moves_to_another_address() -> None:
    moved = "198.51.100.1:2377"
    state = held(after(three_managers().stored(), moved))
    assert state.configuration.members[OWN].address == moved
    status = state.tables.nodes["node3"].manager_status
    assert status is not None
    assert (status.raft_id, status.address) == (OWN, moved)


def test_a_learner_becomes_the_voter() -> None:
    log = Log(8, {1: "192.0.2.1:2377"})
    log.member(ConfOperation.ADD_LEARNER, 8, ADDRESS)
    log.entries += [replace(e, index=e.index - 1) for e in three_managers().entries[3:]]
    assert held(after(log.stored())).configuration.members[8].role is MemberRole.VOTER


def test_a_manager_that_was_removed_is_refused_since_others_know_better() -> None:
    log = three_managers()
    log.member(ConfOperation.REMOVE, OWN)
    with pytest.raises(FailedPrecondition, match="was removed"):
        held(log.stored())


def test_a_removal_that_may_not_be_committed_ends_what_counts() -> None:
    log = three_managers()
    whole = len(log.entries)
    log.member(ConfOperation.REMOVE, OWN)
    log.write(Delete(Kind.TASK, "task1"))
    state = held(after(log.stored(commit=whole)))
    assert set(state.configuration.members) == {OWN}
    assert "task1" in state.tables.tasks


def test_a_manager_that_never_joined_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="has not joined"):
        held(Log(OWN, {}).stored())


async def test_on_disk_it_leads_alone_and_goes_on(tmp_path: Path) -> None:
    paths = ManagerPaths(tmp_path / "state", tmp_path / "run")
    paths.directory.mkdir(parents=True)
    log = three_managers()
    storage = AtRest.open(paths, None, time.time()).storage
    storage.initialise(OWN, HardState(2, 1, 3), log.entries)
    storage.close()
    for _ in range(2):  # as after a crash
        rewrite_log(paths, None, ADDRESS)
    assert set(read_held(paths, None)[1].configuration.members) == {OWN}
    store = Store(time.time)
    storage = AtRest.open(paths, None, time.time()).storage
    config = RaftConfig(raft_id=OWN, address=ADDRESS, tick_s=0.01)
    raft = await RaftNode.open(config, storage, MemoryTransport(OWN, Switchboard()), store, None)
    store.connect(raft)
    async with asyncio.TaskGroup() as group:
        group.create_task(raft.run())
        async for leadership in raft.subscribe_leadership():
            if leadership.is_leader:
                break
        await store.propose([Delete(Kind.TASK, "task1")])
        assert set(store.view.tasks) == {"task2"}
        assert store.view.nodes["node1"].role is NodeRole.WORKER
        assert raft.is_removed(1)
        await raft.close()
