"""The plan: one pass from what changed to one set of changes.

`plan` decides; it commits nothing, and what it counts in the ledger it takes back. Planning again after the changes
were applied gives an empty plan. Who acts next: the leader's loop proposes the changes, and asks again at `wake_at`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

from pyswarm_common.ids import IdSource
from pyswarm_common.model import Service, Task, TaskState
from pyswarm_manager.planner import attachments
from pyswarm_manager.planner.allocate import allocator
from pyswarm_manager.planner.allocate.attaching import allocate_task
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.dirty import Dirty
from pyswarm_manager.planner.draft import Draft, Rng, WakeKey
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.orchestrate.dependencies import dependents, hold
from pyswarm_manager.planner.orchestrate.orchestrator import orchestrate_service, orchestrate_slots
from pyswarm_manager.planner.schedule.place import schedule
from pyswarm_manager.store.changes import Change
from pyswarm_manager.store.tables import Kind, SlotKey, Tables, ingress_ports, slot_key


@dataclass(frozen=True, slots=True)
class Plan:
    changes: tuple[Change, ...]
    """In an order in which every prefix can be committed on its own."""
    wakes: Mapping[WakeKey, float]
    """When to look again at which service or slot, although nothing has changed."""
    explanations: tuple[tuple[str, str], ...]
    """(object id, sentence) about what was decided or could not be done."""
    unfinished: Dirty
    """What a plan of bounded size left for the next one."""
    awaited: tuple[Task, ...] = ()
    """Tasks that the load balancers do not all know of yet: plan their slots again once they do."""

    @property
    def wake_at(self) -> float | None:
        return min(self.wakes.values(), default=None)


@dataclass(frozen=True, slots=True)
class State:
    """What a plan reads: the tables, the ledger derived from them, and what agents acknowledged."""

    tables: Tables
    ledger: Ledger
    is_told: Callable[[Task], bool] = lambda task: True
    """Whether every load balancer that needs the task knows it as it is."""

    @classmethod
    def of(cls, tables: Tables) -> State:
        return cls(tables, Ledger.of(tables))


def plan(state: State, dirty: Dirty, now: float, rng: Rng, new_id: IdSource) -> Plan:
    """What to change so that the cluster comes nearer to what is wanted."""
    draft = Draft(state.tables, state.ledger, now, rng, new_id, state.is_told)
    try:
        services, slots = _to_look_at(state, dirty)
        plain = slots.pop(attachments.NO_SERVICE, [])
        is_plain_dirty = attachments.NO_SERVICE in services
        services.pop(attachments.NO_SERVICE, None)
        _allocate_common(draft, dirty, services)
        attachments.settle(draft, dirty, None if is_plain_dirty else plain)
        for service_id in services:
            if draft.tasks_left() > 0:
                orchestrate_service(draft, service_id)
            else:
                draft.unfinished.services[service_id] = None
        for service_id, keys in slots.items():
            orchestrate_slots(draft, service_id, keys)
        _add_waiting(draft, dirty, services, slots)
        for candidate in draft.candidates:
            if not candidate.allocated:
                allocate_task(draft, candidate)
        hold(draft)
        schedule(draft)
        for candidate in tuple(draft.candidates):
            _finish(draft, candidate)
        awaited = tuple(draft.awaited.values())
        return Plan(draft.changes(), draft.wakes, tuple(draft.explanations), draft.unfinished, awaited)
    finally:
        draft.undo()


def _to_look_at(state: State, dirty: Dirty) -> tuple[dict[str, None], dict[str, list[SlotKey]]]:
    """The services to look at as a whole, and the slots of others."""
    tables = state.tables
    if dirty.everything:
        return dict.fromkeys((*tables.services, *tables.slots)), {}
    keys = dict(dirty.slots)
    for node_id in dirty.nodes:
        for task in tables.tasks_on(node_id):
            keys[task.service_id, slot_key(task)] = None
        for service_id in state.ledger.global_services:
            keys[service_id, node_id] = None
    services = dict(dirty.services)
    if dirty.nodes or dirty.room:
        services.update(state.ledger.rebalancing)
    if dirty.room or state.ledger.priorities:
        keys.update(_succeeding(tables))
    changed = (*services, *(service_id for service_id, _ in keys))
    services.update((service_id, None) for service_id in dependents(tables, state.ledger, changed))
    for network_id in dirty.networks:
        services.update(
            (service.id, None) for service in tables.services.values() if _is_on(state, service, network_id)
        )
    slots: dict[str, list[SlotKey]] = {}
    for service_id, key in keys:
        if service_id not in services:
            slots.setdefault(service_id, []).append(key)
    return services, slots


def _succeeding(tables: Tables) -> Iterator[tuple[tuple[str, SlotKey], None]]:
    """The slots of waiting tasks that take over from others. Where they may go depends on whom they replace, which only
    their slot says: judged without it, a plan would give away again what another one made free for them."""
    for task in tables.unplaced.values():
        key = slot_key(task)
        if len(tables.slots[task.service_id][key]) > 1:
            yield (task.service_id, key), None


def _is_on(state: State, service: Service, network_id: str) -> bool:
    if any(attachment.target == network_id for attachment in service.spec.task.networks):
        return True
    return network_id == state.ledger.ingress_id and bool(ingress_ports(service))


def _allocate_common(draft: Draft, dirty: Dirty, services: dict[str, None]) -> None:
    """What tasks build on: networks first, then nodes' own addresses, then services' endpoints."""
    tables = draft.tables
    for network_id in tables.networks if dirty.everything else dirty.networks:
        network = tables.networks.get(network_id)
        if network is not None:
            allocator.allocate_network(draft, network)
    ingress_changed = draft.ledger.ingress_id in dirty.networks or not draft.ledger.ingress_id
    for node_id in tables.nodes if dirty.everything or ingress_changed else dirty.nodes:
        node = tables.nodes.get(node_id)
        if node is not None:
            allocator.allocate_node(draft, node)
    for service_id in services:
        service = draft.service(service_id)
        if service is not None:
            allocator.allocate_service(draft, service)


def _add_waiting(draft: Draft, dirty: Dirty, services: dict[str, None], slots: dict[str, list[SlotKey]]) -> None:
    """Tasks that waited for addresses or a node get another try, if something they may wait for has changed."""
    # With priorities the order among all that wait matters, whatever a plan is about.
    every = dirty.everything or dirty.room or bool(draft.ledger.priorities)
    for task in tuple(draft.tables.unplaced.values()):
        is_dirty = every or task.service_id in services or task.service_id in slots
        if draft.is_leaving(task) or task.desired_state > TaskState.RUNNING:
            continue
        service = draft.service(task.service_id)
        if service is not None and (is_dirty or _follows(draft, service, services, slots)):
            draft.candidates.append(Candidate.waiting(task, service))


def _follows(draft: Draft, service: Service, services: Container[str], slots: Container[str]) -> bool:
    """Whether its tasks wait to be near a service that was looked at."""
    names = (wish.service for wish in service.spec.task.placement.affinities if not wish.anti)
    ids = (draft.tables.ids_by_name.get((Kind.SERVICE, name), "") for name in names)
    return any(service_id in services or service_id in slots for service_id in ids)


def _finish(draft: Draft, candidate: Candidate) -> None:
    if candidate.is_optional and not candidate.placed:
        draft.drop(candidate)
        return
    draft.finish(candidate)
    if candidate.message:
        name = f"{candidate.service.spec.name}.{candidate.slot or candidate.node_id}"
        draft.explain(candidate.service.id, f"{name}: {candidate.message}")
