"""All managers' stores are the same at the same index, and what is in them keeps the rules of the cluster.

The first manager to apply an index says what it does; every other one must do the same. What an index did is looked at
once: states only rise, a task stays where it is, and no address, port or network number is given twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from pyswarm_common.model import Availability, Network, Node, NodeState, Service, Task, UpdateOrder
from pyswarm_manager.store.apply import Applied
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.digest import digest
from pyswarm_manager.store.store import Store
from pyswarm_manager.store.tables import Tables, ingress_ports
from pyswarm_simulator.checks.addresses import AddressChecks
from pyswarm_simulator.checks.handover import HandoverChecks
from pyswarm_simulator.checks.jobs import JobChecks
from pyswarm_simulator.checks.network_changes import NetworkChecks
from pyswarm_simulator.checks.violation import Violation

FULL_DIGEST_EVERY = 64
_encoder = msgspec.msgpack.Encoder(order="deterministic")

Owner = tuple[str, str]
"""A kind and an id."""
Thing = tuple[str, str]
"""What can have one owner only: an address on a network, a port, a network's number."""


class StoreChecks:
    """What every index did."""

    def __init__(self) -> None:
        self.applied_to = 0
        self._done: dict[int, bytes] = {}  # index -> hash of what it changed
        self._digests: dict[int, str] = {}  # index -> digest of the whole store, where somebody took it
        self._content = ContentChecks()
        self._jobs = JobChecks()
        self._addresses = AddressChecks()
        self.networks = NetworkChecks()
        self.handover = HandoverChecks()
        self.content = self._content
        self.others: list[Callable[[int, tuple[Event, ...]], None]] = []
        """Told what each index did, after all of these."""

    def applied(self, manager: str, store: Store, index: int, data: bytes, result: object) -> None:
        """A manager applied an entry."""
        events = result.events if isinstance(result, Applied) else ()
        found = _hash(data, events)
        known = self._done.get(index)
        if known is None:
            self._done[index] = found
            self.applied_to = max(self.applied_to, index)
            self._content.changed(index, events)
            self._jobs.changed(index, events)
            self._addresses.changed(index, events)
            self.networks.changed(index, events)
            self.handover.changed(index, events)
            for changed in self.others:
                changed(index, events)
        elif known != found:
            raise Violation(f"applied prefixes: {manager} applied something else than others at index {index}")
        if index % FULL_DIGEST_EVERY == 0:
            self.compare(manager, store, index)

    def compare(self, manager: str, store: Store, index: int) -> None:
        """The whole store at an index, with everybody's who was compared there."""
        found = content_digest(store.view)
        if self._digests.setdefault(index, found) != found:
            raise Violation(f"stores: that of {manager} differs from others at index {index}")


def content_digest(tables: Tables) -> str:
    """Of the objects alone: entries that are not the store's (changes of membership) move only some members' index."""
    same = tables.copy()
    same.index = 0
    return digest(same)


def _hash(data: bytes, events: tuple[Event, ...]) -> bytes:
    state = hashlib.blake2b(data, digest_size=16)
    for event in events:
        state.update(b"-" if event.new is None else _encoder.encode(event.new))
    return state.digest()


class ContentChecks:
    """The rules of what is committed, looked at one change at a time."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.services: dict[str, Service] = {}
        self.nodes: dict[str, Node] = {}
        self.removed_services: set[str] = set()
        self.ever_start_first: set[str] = set()
        self.excused: set[str] = set()
        """Tasks whose node was lost or drained at some time, or that were forgotten: nobody waits for their end."""
        self._owners: dict[Thing, Owner] = {}
        self._held: dict[Owner, tuple[Thing, ...]] = {}
        self._wanted: dict[Owner, tuple[Thing, ...]] = {}

    def changed(self, index: int, events: tuple[Event, ...]) -> None:
        """What an index did."""
        for event in events:
            self._look_at(index, event)
        self._settle(index)

    def _look_at(self, index: int, event: Event) -> None:
        old, new = event
        match event.object:
            case Task():
                assert old is None or isinstance(old, Task)
                assert new is None or isinstance(new, Task)
                self._task(index, old, new)
            case Service():
                assert new is None or isinstance(new, Service)
                self._service(index, event.object, new)
            case Node():
                assert new is None or isinstance(new, Node)
                self._node(index, event.object, new)
            case Network():
                assert new is None or isinstance(new, Network)
                self._network(index, event.object, new)
            case _:
                pass

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _task(self, index: int, old: Task | None, new: Task | None) -> None:
        if new is None:
            assert old is not None
            self.tasks.pop(old.id, None)
            self.excused.add(old.id)
            self._hold(("task", old.id), ())
            return
        if old is not None:
            self._check_progress(index, old, new)
        self.tasks[new.id] = new
        held: tuple[tuple[str, str], ...] = ()
        if not new.status.state.is_terminal:
            held = tuple((a.network_id, address) for a in new.networks for address in a.addresses)
        self._hold(("task", new.id), held)

    def _check_progress(self, index: int, old: Task, new: Task) -> None:
        if new.status.state < old.status.state or (
            old.status.state.is_terminal and new.status.state != old.status.state
        ):
            raise Violation(
                f"task states: task {new.id} went from {old.status.state.name} to {new.status.state.name} at {index}"
            )
        if new.desired_state < old.desired_state:
            raise Violation(
                f"desired states: {new.id} went from {old.desired_state.name} to {new.desired_state.name} at {index}"
            )
        if old.node_id and new.node_id != old.node_id:
            raise Violation(f"task {new.id} moved from node {old.node_id} to {new.node_id} at {index}")
        if (old.service_id, old.slot) != (new.service_id, new.slot):
            raise Violation(f"task {new.id} changed its slot at {index}")

    # -- services, nodes, networks -------------------------------------------------------------------------------------

    def _service(self, index: int, seen: Service, new: Service | None) -> None:
        if new is None:
            self.services.pop(seen.id, None)
            self.removed_services.add(seen.id)
            self._hold(("service", seen.id), ())
            self._hold(("ports", seen.id), ())
            return
        self.services[new.id] = new
        if new.spec.rebalance:  # its moves start the new task first
            self.ever_start_first.add(new.id)
        if new.spec.update is not None and new.spec.update.order is UpdateOrder.START_FIRST:
            self.ever_start_first.add(new.id)
        if new.spec.rollback is not None and new.spec.rollback.order is UpdateOrder.START_FIRST:
            self.ever_start_first.add(new.id)
        self._hold(("service", new.id), tuple((v.network_id, v.address) for v in new.endpoint.vips if v.address))
        self._hold(
            ("ports", new.id), tuple(("port", f"{port}/{protocol.name}") for protocol, port in ingress_ports(new))
        )

    def _node(self, index: int, seen: Node, new: Node | None) -> None:
        if new is None:
            self.nodes.pop(seen.id, None)
            self._excuse_all(seen.id)
            self._hold(("node", seen.id), ())
            return
        self.nodes[new.id] = new
        if new.status.state is NodeState.DOWN or new.spec.availability is Availability.DRAIN:
            self._excuse_all(new.id)
        self._hold(("node", new.id), tuple(("ingress", address) for address in new.ingress_addresses))

    def _excuse_all(self, node_id: str) -> None:
        self.excused.update(task.id for task in self.tasks.values() if task.node_id == node_id)

    def _network(self, index: int, seen: Network, new: Network | None) -> None:
        self._hold(("network", seen.id), (("vni", str(new.vni)),) if new is not None and new.vni else ())

    def _hold(self, owner: Owner, wanted: tuple[Thing, ...]) -> None:
        """The owner has exactly these once this index is done."""
        self._wanted[owner] = tuple(
            (place, text.partition("/")[0] if place != "port" else text) for place, text in wanted
        )

    def _settle(self, index: int) -> None:
        """First what is given back, then what is taken: within one index the two may be in any order."""
        changed = {owner: things for owner, things in self._wanted.items() if things != self._held.get(owner, ())}
        self._wanted.clear()
        for owner in changed:
            for thing in self._held.pop(owner, ()):
                del self._owners[thing]
        for owner, things in changed.items():
            for thing in things:
                other = self._owners.setdefault(thing, owner)
                if other != owner:
                    raise Violation(f"given twice: {thing} to {other} and to {owner} at index {index}")
            self._held[owner] = things
