"""What one node is to do, and the message that brings it there from what it was told before.

A node's assignments are its tasks that have a place there, the secrets and configs that those need, the tables of their
networks, and always the ingress network's table with the published ports. The first message of a session names
everything; later ones hold differences, found by looking only at what changed. A task that is to stop stays assigned,
with that desired state. One that has ended stays as well, for as long as it is in the history, when its container is
left on the node: with the container go its log and its files. It has no networks, secrets and configs any more, and no
specification.

Out of every load balancer before it is stopped: a running task that is to stop is shown to its agent as wanted until
every node that may send it connections has acknowledged that it is no backend any more (`NetworkTables.is_told`), or
the deadline of its node's drain is over (`NetworkTables.unheld`). A
new leader begins to wait anew, which changes nothing for an agent that was told to stop already.

Never decides what should run: that is the planner, through the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.codec import to_proto
from pyswarm_common.model import Task, TaskSpec, TaskState
from pyswarm_manager.dispatcher.core.framing import framed, key_of
from pyswarm_manager.dispatcher.core.needed_files import NeededFiles
from pyswarm_manager.dispatcher.core.tables import NetworkTables
from pyswarm_manager.store.tables import Tables

_ASSIGNMENTS = pb.Assignments.DESCRIPTOR
_TASK = key_of(_ASSIGNMENTS, "update_tasks")
_NETWORK = key_of(_ASSIGNMENTS, "networks")
_INGRESS = key_of(_ASSIGNMENTS, "ingress")
_PEER = key_of(_ASSIGNMENTS, "update_peers")
_MESSAGE = key_of(pb.ManagerMessage.DESCRIPTOR, "assignments")


@dataclass(slots=True)
class Given:
    """What one session was told so far. Belongs to that session, and only `assign` changes it."""

    node_id: str
    sequence: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)
    networks: dict[str, int] = field(default_factory=dict)
    """Network id -> version of its table."""
    users: dict[str, set[str]] = field(default_factory=dict)
    """Network id -> the assigned tasks that are on it."""
    files: NeededFiles = field(default_factory=NeededFiles)
    peers: dict[str, bytes] = field(default_factory=dict)
    """Node id -> what was told of its tunnel keys."""
    peers_revision: int = 0
    ingress: tuple[int, tuple[str, ...]] | None = None
    """Version of the ingress table, and the node's own addresses in it."""


_LEAVES_CONTAINER = (TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED)


def is_assigned(task: Task | None, node_id: str) -> bool:
    """Whether the node should know the task."""
    if task is None or task.node_id != node_id:
        return False
    return TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING or is_kept(task)


def is_kept(task: Task) -> bool:
    """Whether the task has ended and its node keeps the container. An orphan's node is to remove it."""
    status = task.status
    return status.state in _LEAVES_CONTAINER and status.container is not None and bool(status.container.container_id)


def is_news(old: Task, new: Task) -> bool:
    """Whether the agent must hear of the change: its own reports come back in `status`, and only an end is one.

    Whatever an agent believes of a task (its disk may be an old copy), one that has ended must not run.
    """
    return old is not new and (
        old.status.state.is_terminal != new.status.state.is_terminal
        or old.desired_state != new.desired_state
        or old.start_at != new.start_at
        or old.spec != new.spec
        or old.networks != new.networks
        or old.ports != new.ports
        or old.labels != new.labels
        or old.service_name != new.service_name
    )


def complete(given: Given, view: Tables, tables: NetworkTables) -> bytes:
    """Everything, as a serialised ManagerMessage: the first of a session."""
    assert given.sequence == 0, "only the first message of a session is complete"
    tasks = (task for task in view.tasks_on(given.node_id) if is_assigned(task, given.node_id))
    shown = (_shown(given, task, view, tables) for task in tasks)
    changes = _TaskChanges([task for task in shown if _give(given, task)])
    networks = _network_changes(given, tables, frozenset())
    peers = _peer_changes(given, tables)
    return _message(given, changes, networks, _new_ingress(given, view, tables), given.files.take(view), peers)


def increment(
    given: Given, task_ids: Iterable[str], resync: frozenset[str], view: Tables, tables: NetworkTables
) -> bytes | None:
    """The differences since the last message; None if there are none.

    `task_ids` are the tasks that may have changed, `resync` the networks whose whole table the agent asked for.
    """
    assert given.sequence > 0, "a session starts with everything"
    changes = _task_changes(given, task_ids, view, tables)
    networks = _network_changes(given, tables, resync)
    ingress = _new_ingress(given, view, tables)
    peers = _peer_changes(given, tables)
    if not (changes.updated or changes.removed or networks.framed or networks.removed or ingress or peers):
        return None  # secrets and configs come and go with tasks only
    return _message(given, changes, networks, ingress, given.files.take(view), peers)


@dataclass(slots=True)
class _TaskChanges:
    updated: list[Task] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _PeerChanges:
    rotation_s: float
    updated: list[bytes] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _NetworkChanges:
    framed: list[bytes] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def _task_changes(given: Given, task_ids: Iterable[str], view: Tables, tables: NetworkTables) -> _TaskChanges:
    changes = _TaskChanges()
    for task_id in task_ids:
        task = view.tasks.get(task_id)
        if task is not None and is_assigned(task, given.node_id):
            shown = _shown(given, task, view, tables)
            if _give(given, shown):
                changes.updated.append(shown)
        elif task_id in given.tasks:
            _take(given, task_id)
            changes.removed.append(task_id)
    return changes


def _shown(given: Given, task: Task, view: Tables, tables: NetworkTables) -> Task:
    """The task as its agent is to know it now; if it may not be stopped yet, the session hears when to look again."""
    if task.status.state.is_terminal:
        # Nothing is made from it any more, and a history is long: it would only carry, say, a registry's password.
        return msgspec.structs.replace(task, spec=TaskSpec(), networks=(), ports=())
    if task.desired_state < TaskState.SHUTDOWN or task.status.state is not TaskState.RUNNING:
        return task
    old = given.tasks.get(task.id)
    if old is not None and old.desired_state >= TaskState.SHUTDOWN:
        return task  # it was told to stop
    if task.service_id not in view.services or given.node_id in tables.unheld or tables.is_told(task):
        return task  # with its service the published ports and names are gone too
    tables.watch(task)
    return msgspec.structs.replace(task, desired_state=TaskState.RUNNING)


def _give(given: Given, task: Task) -> bool:
    """Note the task as told; whether there is anything to tell."""
    old = given.tasks.get(task.id)
    given.tasks[task.id] = task
    if old is not None and not is_news(old, task):
        return False
    if old is not None:
        _release_networks(given, old)
        if task.status.state.is_terminal:
            given.files.remove(old)
    for attachment in task.networks:
        given.users.setdefault(attachment.network_id, set()).add(task.id)
    given.files.add(task)
    return True


def _take(given: Given, task_id: str) -> None:
    task = given.tasks.pop(task_id)
    given.files.remove(task)
    _release_networks(given, task)


def _release_networks(given: Given, task: Task) -> None:
    for attachment in task.networks:
        users = given.users.get(attachment.network_id)
        if users is not None:  # an ended task uses none
            users.discard(task.id)


def _network_changes(given: Given, tables: NetworkTables, resync: frozenset[str]) -> _NetworkChanges:
    """Tables of networks that are new to the node, deltas of those it has, and those that it no longer needs."""
    given.users = {network_id: users for network_id, users in given.users.items() if users}
    needed = dict.fromkeys((*given.users, tables.ingress_network_id))
    changes = _NetworkChanges()
    for network_id in needed:
        table = tables.table(network_id)
        if table is None:
            continue
        held = given.networks.get(network_id)
        if held is None or network_id in resync:
            changes.framed.append(framed(_NETWORK, table.complete()))
        elif held != table.version:
            changes.framed.append(framed(_NETWORK, table.since(held)))
        given.networks[network_id] = table.version
    for network_id in [held for held in given.networks if held not in needed or tables.table(held) is None]:
        del given.networks[network_id]
        changes.removed.append(network_id)
    return changes


def _peer_changes(given: Given, tables: NetworkTables) -> _PeerChanges | None:
    """Tunnel keys of the nodes that this one shares an encrypted network with; None if there is no news."""
    peers = tables.tunnel_peers
    revision = peers.revision(given.node_id)
    if given.peers_revision == revision:
        return None
    given.peers_revision = revision
    now = peers.peers_of(given.node_id)
    changes = _PeerChanges(
        peers.rotation_s,
        [framed(_PEER, record) for node_id, record in now.items() if given.peers.get(node_id) != record],
        [node_id for node_id in given.peers if node_id not in now],
    )
    given.peers = now
    return changes


def _new_ingress(given: Given, view: Tables, tables: NetworkTables) -> bytes:
    """The ingress table, framed, if the node does not have it yet; else nothing."""
    node = view.nodes.get(given.node_id)
    current = (tables.ingress_version, () if node is None else node.ingress_addresses)
    if given.ingress == current:
        return b""
    given.ingress = current
    return framed(_INGRESS, tables.ingress_table(node))


def _message(
    given: Given,
    tasks: _TaskChanges,
    networks: _NetworkChanges,
    ingress: bytes,
    files: tuple[list[bytes], list[str]],
    peers: _PeerChanges | None,
) -> bytes:
    is_first = given.sequence == 0
    given.sequence += 1
    head = pb.Assignments(
        type=pb.Assignments.TYPE_COMPLETE if is_first else pb.Assignments.TYPE_INCREMENTAL,
        sequence=given.sequence,
        remove_task_ids=tasks.removed,
        remove_network_ids=networks.removed,
        remove_file_ids=files[1],
        remove_peer_ids=peers.removed if peers is not None else (),
        tunnel_key_rotation_s=peers.rotation_s if peers is not None else 0.0,
    )
    parts = [head.SerializeToString(), *files[0]]
    parts += [framed(_TASK, to_proto(task).SerializeToString()) for task in tasks.updated]
    parts += networks.framed
    parts.append(ingress)
    parts += peers.updated if peers is not None else ()
    return framed(_MESSAGE, b"".join(parts))
