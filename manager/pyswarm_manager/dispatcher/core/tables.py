"""Who is on each network, by version, and the difference since any recent version: serialised once for all nodes.

Built from the store's objects as they change. A table's version is the store index of its last change; it rises, and a
delta names the version it starts from, so an agent that missed one asks again. A bounded journal of which records
changed when makes deltas; whoever is further behind gets the whole table. Knows, with what agents acknowledged
(`programmed`), when everybody has heard of a task. Never decides who runs where.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import cast

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.codec import to_proto
from pyswarm_common.model import Cluster, ClusterSpec, Network, NetworkAttachment, Node, Service, Task
from pyswarm_manager.dispatcher.core import records
from pyswarm_manager.dispatcher.core.framing import framed, key_of
from pyswarm_manager.dispatcher.core.programmed import Programmed
from pyswarm_manager.dispatcher.core.tunnel_peers import TunnelPeers
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.network_claims import has_addresses
from pyswarm_manager.store.tables import Tables

JOURNAL_MINIMUM = 512
"""Changes of one table that are remembered, or as many as it has records; older versions get the complete table."""

_TABLE = pb.NetworkTable.DESCRIPTOR
_ENDPOINT = key_of(_TABLE, "endpoints")
_SERVICE = key_of(_TABLE, "services")


class Table:
    """One network's table."""

    def __init__(self, network: Network, version: int) -> None:
        self._network = network
        self.version = version
        self._oldest = version  # the oldest version that a delta can start from
        self._records: dict[bytes, dict[str, bytes]] = {_ENDPOINT: {}, _SERVICE: {}}
        self._changed_at: dict[str, int] = {}  # endpoint id -> version of its record
        self._journal: deque[tuple[int, bytes, str]] = deque()
        self._messages: dict[int | None, bytes] = {}  # of this version, by the version they start from

    def set_network(self, network: Network, version: int) -> None:
        """The network itself changed: everybody needs the whole table."""
        self._network = network
        self._journal.clear()
        self._oldest = version
        self._moved(version)

    def put_endpoint(self, endpoint_id: str, record: bytes | None, version: int) -> bool:
        """Set or (None) remove a record; whether that changed anything."""
        if not self._put(_ENDPOINT, endpoint_id, record, version):
            return False
        if record is None:
            del self._changed_at[endpoint_id]
        else:
            self._changed_at[endpoint_id] = version
        return True

    def has_endpoint(self, endpoint_id: str) -> bool:
        """Whether it is on the network."""
        return endpoint_id in self._changed_at

    def changed_at(self, endpoint_id: str) -> int:
        """The version in which its record became what it is; zero if it has none."""
        return self._changed_at.get(endpoint_id, 0)

    def put_service(self, service_id: str, record: bytes | None, version: int) -> bool:
        """Set or (None) remove a record; whether that changed anything."""
        return self._put(_SERVICE, service_id, record, version)

    def complete(self) -> bytes:
        """The whole table, as a serialised NetworkTable."""
        return self._message(None)

    def since(self, version: int) -> bytes:
        """What brings a holder of that version up to date: a delta, or the whole table when that is not kept."""
        return self._message(version if self._oldest <= version <= self.version else None)

    def _put(self, kind: bytes, key: str, record: bytes | None, version: int) -> bool:
        held = self._records[kind]
        if held.get(key) == record:
            return False
        if record is None:
            del held[key]
        else:
            held[key] = record
        self._journal.append((version, kind, key))
        while len(self._journal) > max(JOURNAL_MINIMUM, len(held)):
            self._oldest = self._journal.popleft()[0]
        self._moved(version)
        return True

    def _moved(self, version: int) -> None:
        assert version >= self.version, (version, self.version)
        self.version = version
        self._messages.clear()

    def _message(self, start: int | None) -> bytes:
        message = self._messages.get(start)
        if message is None:
            message = self._messages[start] = self._complete() if start is None else self._delta(start)
        return message

    def _complete(self) -> bytes:
        head = pb.NetworkTable(
            network_id=self._network.id, complete=True, version=self.version, network=to_proto(self._network)
        )
        parts = [framed(kind, record) for kind, held in self._records.items() for record in held.values()]
        return head.SerializeToString() + b"".join(parts)

    def _delta(self, start: int) -> bytes:
        head = pb.NetworkTable(network_id=self._network.id, from_version=start, version=self.version)
        parts = []
        for kind, key in dict.fromkeys((kind, key) for version, kind, key in self._journal if version > start):
            record = self._records[kind].get(key)
            if record is not None:
                parts.append(framed(kind, record))
            elif kind == _ENDPOINT:
                head.remove_endpoint_ids.append(key)
            else:
                head.remove_service_ids.append(key)
        return head.SerializeToString() + b"".join(parts)


class NetworkTables:
    """The tables of all networks, and the published ports."""

    def __init__(self, view: Tables) -> None:
        self._view = view
        self._tables = {network.id: Table(network, view.index) for network in view.networks.values()}
        self._ports: dict[str, bytes] = {}  # service id -> its framed ports
        self._changed: dict[str, None] = {}
        self._has_withdrawn = False
        self.programmed = Programmed()
        spec = view.cluster.spec if view.cluster is not None else ClusterSpec()
        self.tunnel_peers = TunnelPeers(spec.tunnel_rotation_s)
        for network in view.networks.values():
            self.tunnel_peers.set_network(network)
        self.unheld: set[str] = set()
        """Nodes whose tasks are not held back when they are to stop."""
        self.ingress_network_id = next((n.id for n in view.networks.values() if records.is_ingress(n)), "")
        self.ingress_version = view.index
        self._fill(view.index)

    def table(self, network_id: str) -> Table | None:
        """The table of that network, if the network exists."""
        return self._tables.get(network_id)

    def versions(self) -> dict[str, int]:
        """Of every network's table."""
        return {network_id: table.version for network_id, table in self._tables.items()}

    def take_changed(self) -> frozenset[str]:
        """The networks whose tables changed since the last call."""
        changed = frozenset(self._changed)
        self._changed.clear()
        self._has_withdrawn = False
        return changed

    @property
    def has_changed(self) -> bool:
        """Whether `take_changed` has anything."""
        return bool(self._changed)

    @property
    def has_withdrawn(self) -> bool:
        """Whether a backend went: that must be told before its connections break."""
        return self._has_withdrawn

    def is_told(self, task: Task) -> bool:
        """Whether every node that may send the task connections knows whether it is a backend, in its kernel."""
        return all(self.programmed.has(network_id, version) for network_id, version in self._needs(task))

    def watch(self, task: Task) -> None:
        """Have `take_told` name the task once `is_told`."""
        self.programmed.wait(task.id, [need for need in self._needs(task) if not self.programmed.has(*need)])

    def take_told(self) -> list[Task]:
        """The watched tasks that everybody was told of since the last call."""
        told = []
        for task_id in self.programmed.take_reached():
            task = self._view.tasks.get(task_id)
            if task is None:
                continue
            if self.is_told(task):
                told.append(task)
            else:
                self.watch(task)
        return told

    def waits_for(self, task: Task) -> list[str]:
        """The nodes that have not acknowledged yet. Looks at all nodes of its networks: for messages only."""
        behind = (self.programmed.behind(network_id, version) for network_id, version in self._needs(task))
        return sorted({node_id for node_ids in behind for node_id in node_ids})

    def _needs(self, task: Task) -> Iterator[tuple[str, int]]:
        for attachment in task.networks:
            table = self._tables.get(attachment.network_id)
            if table is not None:
                yield attachment.network_id, table.changed_at(task.id)

    def ingress_table(self, node: Node | None) -> bytes:
        """The published ports with this node's own addresses, as a serialised IngressTable."""
        head = pb.IngressTable(
            version=self.ingress_version,
            node_addresses=() if node is None else node.ingress_addresses,
            network_id=self.ingress_network_id,
        )
        return head.SerializeToString() + b"".join(self._ports.values())

    def apply(self, event: Event, version: int) -> None:
        """One change of the store, already visible in the view."""
        old, new = event
        match event.object:
            case Task():
                self.task_changed(cast("Task | None", old), cast("Task | None", new), version)
            case Node():
                self.node_changed(cast("Node | None", old), cast("Node | None", new), version)
            case Service():
                self.service_changed(cast("Service | None", old), cast("Service | None", new), version)
            case Network():
                self.network_changed(cast("Network | None", old), cast("Network | None", new), version)
            case Cluster() as cluster:
                self.tunnel_peers.set_rotation(cluster.spec.tunnel_rotation_s)

    def network_changed(self, old: Network | None, new: Network | None, version: int) -> None:
        """A network appears, changes or goes."""
        if new is None:
            assert old is not None
            self._tables.pop(old.id, None)
            self.programmed.forget_network(old.id)
            self.tunnel_peers.forget_network(old.id)
            self._changed[old.id] = None
            self._set_ingress("" if records.is_ingress(old) else self.ingress_network_id, version)
        elif (table := self._tables.get(new.id)) is not None:
            table.set_network(new, version)
            self._changed[new.id] = None
        else:
            self._tables[new.id] = Table(new, version)
            self.tunnel_peers.set_network(new)
            self._changed[new.id] = None
            self._set_ingress(new.id if records.is_ingress(new) else self.ingress_network_id, version)
            self._fill(version)

    def service_changed(self, old: Service | None, new: Service | None, version: int) -> None:
        """A service appears, changes or goes."""
        if old is not None and new is not None and _same_service(old, new):
            return
        service_id = _id_of(old, new)
        before = {} if old is None else records.service_records(old, self.ingress_network_id)
        after = {} if new is None else records.service_records(new, self.ingress_network_id)
        for network_id in {**before, **after}:
            table = self._tables.get(network_id)
            if table is not None and table.put_service(service_id, after.get(network_id), version):
                self._changed[network_id] = None
        self._set_ports(service_id, () if new is None else records.ingress_ports(new), version)

    def task_changed(self, old: Task | None, new: Task | None, version: int) -> None:
        """A task appears, changes or goes."""
        if old is not None and new is not None and _same_endpoint(old, new):
            return
        if old is not None and records.is_ready(old):
            self._has_withdrawn = True
        after = {} if new is None else {attachment.network_id: attachment for attachment in new.networks}
        before = () if old is None else tuple(attachment.network_id for attachment in old.networks)
        for network_id in dict.fromkeys((*before, *after)):
            self._put_task(old, new, after.get(network_id), network_id, version)

    def node_changed(self, old: Node | None, new: Node | None, version: int) -> None:
        """A node appears, changes or goes."""
        node_id = _id_of(old, new)
        if old is None or new is None or records.node_address(old) != records.node_address(new):
            for task in self._view.tasks_on(node_id):
                self.task_changed(None, task, version)
        self._put_node(node_id, new, version)

    def _put_node(self, node_id: str, node: Node | None, version: int) -> None:
        self.programmed.set_up(node_id, node is not None and records.takes_part(node))
        self.tunnel_peers.set_node(node_id, node)
        ingress = self._tables.get(self.ingress_network_id)
        record = None if node is None else records.node_record(node)
        if ingress is not None:
            self._put_record(ingress, self.ingress_network_id, node_id, node_id, record, version)

    def _put_task(
        self, old: Task | None, new: Task | None, attachment: NetworkAttachment | None, network_id: str, version: int
    ) -> None:
        table = self._tables.get(network_id)
        task = new if new is not None else old
        if table is None or task is None:
            return
        record = None
        if new is not None and attachment is not None:
            network = self._view.networks.get(network_id)
            is_local = network is not None and not has_addresses(network.spec)
            address = records.node_address(self._view.nodes.get(new.node_id))
            record = records.task_record(new, attachment, address, is_local=is_local)
        self._put_record(table, network_id, task.node_id, task.id, record, version)

    def _put_record(
        self, table: Table, network_id: str, node_id: str, endpoint_id: str, record: bytes | None, version: int
    ) -> None:
        """Set or remove the record of an endpoint on that node."""
        was_there = table.has_endpoint(endpoint_id)
        if not table.put_endpoint(endpoint_id, record, version):
            return
        self._changed[network_id] = None
        if was_there != (record is not None):
            self.programmed.use(node_id, network_id, -1 if was_there else 1)
            self.tunnel_peers.use(node_id, network_id, -1 if was_there else 1)

    def _set_ingress(self, network_id: str, version: int) -> None:
        if network_id != self.ingress_network_id:
            self.ingress_network_id = network_id
            self.ingress_version = version

    def _set_ports(self, service_id: str, ports: Iterable[pb.IngressPort], version: int) -> None:
        key = key_of(pb.IngressTable.DESCRIPTOR, "ports")
        content = b"".join(framed(key, port.SerializeToString()) for port in ports)
        if self._ports.get(service_id, b"") == content:
            return
        self._ports.pop(service_id, None)
        if content:
            self._ports[service_id] = content
        self.ingress_version = version

    def _fill(self, version: int) -> None:
        """Enter everything there is; what is entered already changes nothing."""
        for service in self._view.services.values():
            self.service_changed(None, service, version)
        for task in self._view.tasks.values():
            self.task_changed(None, task, version)
        for node in self._view.nodes.values():
            self._put_node(node.id, node, version)


def _same_endpoint(old: Task, new: Task) -> bool:
    """Whether both make the same records, without making them."""
    return (
        old.node_id == new.node_id
        and records.holds_addresses(old) == records.holds_addresses(new)
        and records.is_ready(old) == records.is_ready(new)
        and old.networks == new.networks
    )


def _same_service(old: Service, new: Service) -> bool:
    """Whether both make the same records and ports, without making them. Most updates only change counts and images."""
    return (
        old.endpoint == new.endpoint
        and old.spec.name == new.spec.name
        and old.spec.endpoint == new.spec.endpoint
        and old.spec.task.networks == new.spec.task.networks
    )


def _id_of(old: Task | Node | Service | None, new: Task | Node | Service | None) -> str:
    value = new if new is not None else old
    assert value is not None, "a change has an object before or after it"
    return value.id
