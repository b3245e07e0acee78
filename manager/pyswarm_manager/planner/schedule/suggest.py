"""The smallest changes that would give a waiting task a node: what to suggest, and what each suggestion changes.

Each node says what keeps the task away and what would change that; a suggestion takes one such change for each refusal
of some node. It is offered only if it is enough (for that node it is, by its making) and nothing of it is too much:
left out any one change, no node takes the task. `applied` makes the change of a specification that a suggestion speaks
of, for those who show what would then happen, and for the test that holds suggestions to their word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from pyswarm_common.model import (
    Availability,
    GenericResource,
    Node,
    NodeState,
    Placement,
    Plugin,
    Resources,
    ServiceSpec,
    Taint,
    TaintEffect,
    TaskSpec,
    Toleration,
)
from pyswarm_manager.planner.schedule.constraints import Operator, parse_constraint
from pyswarm_manager.planner.schedule.demand import Demand
from pyswarm_manager.planner.schedule.refusals import Fix, Kind, Refusal, cpus_text, size_text

MAX_SUGGESTIONS = 5
_MAX_KINDS = 64
"""Different sets of changes that are weighed."""

_Needs = tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Suggestion:
    fixes: tuple[Fix, ...]

    @property
    def text(self) -> str:
        return ", and ".join(fix.text for fix in self.fixes)


def suggestions(nodes: Iterable[Sequence[Refusal]]) -> list[Suggestion]:
    """The smallest changes, those with the fewest parts first. `nodes`: what keeps the task from each node."""
    needs = list(dict.fromkeys(tuple(refusals) for refusals in nodes))
    if not all(needs):
        return []
    best: dict[tuple[object, ...], Suggestion] = {}
    for found in _candidates(needs):
        # Of the changes that differ only in how much: the one that asks for the least.
        key = tuple(sorted((fix.kind, fix.subject, fix.value, bool(fix.node_id)) for fix in found.fixes))
        known = best.get(key)
        if known is None or _cost(found) < _cost(known):
            best[key] = found
    ranked = sorted(best.values(), key=_cost)[:_MAX_KINDS]
    return [found for found in ranked if _is_minimal(found, needs)][:MAX_SUGGESTIONS]


def _candidates(needs: Iterable[_Needs]) -> Iterator[Suggestion]:
    for refusals in needs:
        by_spec = [refusal.of_spec or refusal.of_node for refusal in refusals]
        by_node = [refusal.of_node or refusal.of_spec for refusal in refusals]
        for fixes in (by_spec, by_node):
            known = [fix for fix in fixes if fix is not None]
            if len(known) == len(fixes):
                yield Suggestion(tuple(dict.fromkeys(known)))


def _cost(found: Suggestion) -> tuple[int, int, int]:
    """Fewest parts; then what a user of the service can do alone; then the least change."""
    given_up = sum(fix.amount if fix.kind is Kind.MAX_REPLICAS else -fix.amount for fix in found.fixes)
    return (len(found.fixes), sum(bool(fix.node_id) for fix in found.fixes), given_up)


def _is_minimal(found: Suggestion, needs: Iterable[_Needs]) -> bool:
    return not any(
        _is_enough([other for other in found.fixes if other is not fix], refusals)
        for fix in found.fixes
        for refusals in needs
    )


def _is_enough(fixes: Sequence[Fix], refusals: _Needs) -> bool:
    return all(
        any(fix.does(wanted) for fix in fixes for wanted in (refusal.of_spec, refusal.of_node) if wanted is not None)
        for refusal in refusals
    )


# ---- one more node


def another_node(demand: Demand) -> str:
    """What a node would have to be that takes the task, whatever the others are; empty if a node that nobody has seen
    yet cannot be meant (by its id, name or address)."""
    parts = []
    for text in demand.fixed.constraints:
        constraint = parse_constraint(text)
        if constraint.operator is Operator.UNEQUAL:
            continue
        if constraint.key in _OF_ONE_NODE:
            return ""
        label = constraint.key.removeprefix("node.labels.")
        is_plain = label != constraint.key and constraint.operator in (Operator.EQUAL, Operator.IN)
        parts.append(f"label {label}={constraint.values[0]}" if is_plain else text)
    parts += [f"{kind}={count}" for kind, count in demand.generic]
    if demand.nano_cpus:
        parts.append(f"{cpus_text(demand.nano_cpus)} CPUs free")
    if demand.memory_bytes:
        parts.append(f"{size_text(demand.memory_bytes)} of memory free")
    if demand.pids:
        parts.append(f"{demand.pids} pids free")
    if demand.fixed.platforms:
        platform = demand.fixed.platforms[0]
        parts.append(f"platform {platform.os or 'any'}/{platform.architecture or 'any'}")
    return f"add a node with {', '.join(parts)}" if parts else "add a node"


_OF_ONE_NODE = ("node.id", "node.hostname", "node.ip")


# ---- what a change means


def applied(spec: ServiceSpec, fix: Fix) -> ServiceSpec:
    """The service's spec with the change, unless that is one of a node."""
    if fix.node_id:
        return spec
    if fix.kind is Kind.PORT:
        ports = tuple(port for port in spec.endpoint.ports if str(port.published_port) != fix.subject)
        return replace(spec, endpoint=replace(spec.endpoint, ports=ports))
    if fix.kind in (Kind.CPU, Kind.MEMORY, Kind.PIDS, Kind.GENERIC):
        reserved = _less(spec.task.resources.reservations, fix)
        return _with_task(spec, replace(spec.task, resources=replace(spec.task.resources, reservations=reserved)))
    return _with_task(spec, replace(spec.task, placement=_placed(spec.task.placement, fix)))


def _with_task(spec: ServiceSpec, task: TaskSpec) -> ServiceSpec:
    return replace(spec, task=task)


def _less(reserved: Resources, fix: Fix) -> Resources:
    match fix.kind:
        case Kind.CPU:
            return replace(reserved, nano_cpus=fix.amount)
        case Kind.MEMORY:
            return replace(reserved, memory_bytes=fix.amount)
        case Kind.PIDS:
            return replace(reserved, pids=fix.amount)
        case _:
            others = tuple(item for item in reserved.generic if item.kind != fix.subject)
            own = (GenericResource(kind=fix.subject, count=fix.amount),) if fix.amount else ()
            return replace(reserved, generic=(*others, *own))


def _placed(placement: Placement, fix: Fix) -> Placement:
    match fix.kind:
        case Kind.CONSTRAINT:
            return replace(placement, constraints=tuple(text for text in placement.constraints if text != fix.subject))
        case Kind.PLATFORM:
            return replace(placement, platforms=())
        case Kind.TOLERATION:
            value, _, effect = fix.value.rpartition(":")
            toleration = Toleration(key=fix.subject, value=value, effects=(TaintEffect(int(effect)),))
            return replace(placement, tolerations=(*placement.tolerations, toleration))
        case Kind.MAX_REPLICAS:
            return replace(placement, max_replicas_per_node=fix.amount)
        case Kind.AFFINITY:
            kept = (
                wish
                for wish in placement.affinities
                if wish.weight or (wish.service, f"{wish.anti:d}:{wish.topology}") != (fix.subject, fix.value)
            )
            return replace(placement, affinities=tuple(kept))
        case _:
            raise AssertionError(f"{fix.kind} is no change of a placement")


def applied_to_node(node: Node, fix: Fix) -> Node:
    """The node with the change, unless that is one of the service or of another node."""
    if fix.node_id != node.id:
        return node
    spec, described = node.spec, node.description
    match fix.kind:
        case Kind.STATE:
            return replace(node, status=replace(node.status, state=NodeState.READY))
        case Kind.AVAILABILITY:
            return replace(node, spec=replace(spec, availability=Availability.ACTIVE))
        case Kind.LABEL:
            return replace(node, spec=replace(spec, labels={**spec.labels, fix.subject: fix.value}))
        case Kind.TAINT:
            kept = tuple(taint for taint in spec.taints if not _is_taint(taint, fix))
            return replace(node, spec=replace(spec, taints=kept))
        case Kind.PLUGIN:
            plugins = (*described.plugins, Plugin(fix.subject, fix.value))
            return replace(node, description=replace(described, plugins=plugins))
        case Kind.DEVICE:
            return replace(node, description=replace(described, devices=(*described.devices, fix.subject)))
        case _:
            raise AssertionError(f"{fix.kind} is no change of a node")


def _is_taint(taint: Taint, fix: Fix) -> bool:
    return (taint.key, f"{taint.value}:{taint.effect:d}") == (fix.subject, fix.value)
