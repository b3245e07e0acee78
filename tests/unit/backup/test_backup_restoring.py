"""A cluster made of a backup: what stays, who is dropped, and a manager that starts on it."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path

import pytest
from backup_state import CLUSTER, CLUSTER_ID, tables
from msgspec.structs import replace

from pyswarm_common.backup.container import SALT_BYTES, Header, write
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import Availability, NodeDescription, NodeRole, NodeState
from pyswarm_manager.at_rest import AtRest
from pyswarm_manager.backup.contents import capture, pieces, summary
from pyswarm_manager.backup.restoring import INDEX_GAP, TERM_GAP, Place, Verified, lay_log, read_backup, restored
from pyswarm_manager.config import ManagerPaths
from pyswarm_manager.raft.driver import RaftNode
from pyswarm_manager.raft.memory_transport import MemoryTransport, Switchboard
from pyswarm_manager.raft.ports import RaftConfig
from pyswarm_manager.store.changes import Delete
from pyswarm_manager.store.store import Store
from pyswarm_manager.store.tables import Kind

KEY = b"k" * 32
OWN = 99
PLACE = Place("192.0.2.9", "192.0.2.9:2377", NodeDescription(hostname="new"), Availability.ACTIVE, OWN)


def backup(cluster: object = CLUSTER) -> Verified:
    state = tables()
    state.put(cluster)  # type: ignore[arg-type]
    captured = capture(state, CLUSTER, index=80, term=7)
    header = Header(cluster_id=CLUSTER_ID, index=80, term=7, created_at=1.0, salt=b"s" * SALT_BYTES)
    parts = write(header, summary(captured), KEY, (piece for piece, _ in pieces(captured)))
    return read_backup(io.BytesIO(b"".join(parts)), KEY)


def test_the_cluster_its_tokens_and_all_that_users_made_stay() -> None:
    made, before = restored(backup(), PLACE, time.time()).tables, tables()
    assert made.cluster == CLUSTER
    for kind in (Kind.SERVICE, Kind.TASK, Kind.NETWORK):
        assert dict(made.table(kind)) == dict(before.table(kind))
    assert made.nodes["node4"] == before.nodes["node4"]
    assert list(made.audit)[:-1] == list(before.audit)
    assert made.audit[-1].method == "Daemon/Restore"


def test_managers_of_before_are_workers_that_are_down_and_their_raft_ids_never_come_back() -> None:
    state = restored(backup(), PLACE, time.time())
    for number in (1, 2, 3):
        node = state.tables.nodes[f"node{number}"]
        assert (node.role, node.spec.role, node.manager_status) == (NodeRole.WORKER, NodeRole.WORKER, None)
        assert node.status.state is NodeState.DOWN
        assert node.spec.labels == {"n": str(number)}
        assert node.meta.version == state.tables.index
    assert set(state.configuration.removed) == {1, 2, 3}
    assert set(state.configuration.members) == {OWN}


def test_this_machine_is_a_new_node_with_a_certificate_of_the_same_root() -> None:
    state = restored(backup(), PLACE, time.time())
    own = state.tables.nodes[state.identity.node_id]
    assert (state.identity.cluster_id, state.identity.role) == (CLUSTER_ID, NodeRole.MANAGER)
    assert state.identity.root_cert_pem == CLUSTER.root_ca_cert
    assert own.manager_status is not None
    assert (own.manager_status.raft_id, own.manager_status.address) == (OWN, PLACE.manager_address)


def test_index_and_term_begin_beyond_everything_the_old_managers_wrote() -> None:
    state = restored(backup(), PLACE, time.time())
    assert (state.tables.index, state.term) == (80 + INDEX_GAP, 7 + TERM_GAP)


def test_a_swarm_whose_root_key_is_kept_elsewhere_cannot_be_made_of_its_backup_alone() -> None:
    with pytest.raises(FailedPrecondition, match="root key"):
        restored(backup(replace(CLUSTER, root_ca_key=b"")), PLACE, time.time())


async def test_a_manager_that_starts_on_it_leads_alone_and_takes_writes(tmp_path: Path) -> None:
    paths = ManagerPaths(tmp_path / "state", tmp_path / "run")
    lay_log(paths, None, restored(backup(), PLACE, time.time()), OWN)
    store = Store(time.time)
    storage = AtRest.open(paths, None, time.time()).storage
    config = RaftConfig(raft_id=OWN, address=PLACE.manager_address, tick_s=0.01)
    raft = await RaftNode.open(config, storage, MemoryTransport(OWN, Switchboard()), store, None)
    store.connect(raft)
    async with asyncio.TaskGroup() as group:
        group.create_task(raft.run())
        async for leadership in raft.subscribe_leadership():
            if leadership.is_leader:
                break
        index = await store.propose([Delete(Kind.TASK, "task1")])
        assert index > 80 + INDEX_GAP
        assert raft.is_removed(1)
        assert raft.is_removed(3)
        await raft.close()


def test_a_log_is_never_laid_over_another(tmp_path: Path) -> None:
    paths = ManagerPaths(tmp_path / "state", tmp_path / "run")
    lay_log(paths, None, restored(backup(), PLACE, time.time()), OWN)
    with pytest.raises(FailedPrecondition, match="holds a manager's log"):
        lay_log(paths, None, restored(backup(), PLACE, time.time()), OWN)
