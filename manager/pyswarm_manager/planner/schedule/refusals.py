"""Everything that keeps one task from one node, each with what would change it.

The filters of `board` say yes or no; here each is asked once more and says how much is missing, and which change of the
service or of the node would satisfy it. Only for explanations: nothing on the way of a plan comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from pyswarm_common.model import Affinity, Availability, Node, NodeState, Plugin, TaintEffect
from pyswarm_common.network_options import ENCRYPTED
from pyswarm_manager.planner.schedule import board
from pyswarm_manager.planner.schedule.constraints import Operator, parse_constraint
from pyswarm_manager.planner.schedule.group import Group
from pyswarm_manager.planner.schedule.taints import tolerates
from pyswarm_manager.planner.seat import Seat

_GIB, _MIB = 1 << 30, 1 << 20
_CPU_STEP = 10_000_000
_SMALLEST_MEMORY = 4 * _MIB


class Kind(StrEnum):
    """Of a change, or of what it changes."""

    AVAILABILITY = "availability"
    STATE = "state"
    CONSTRAINT = "constraint"
    LABEL = "label"
    PLATFORM = "platform"
    TOLERATION = "toleration"
    TAINT = "taint"
    PLUGIN = "plugin"
    DEVICE = "device"
    PORT = "port"
    CPU = "cpu"
    MEMORY = "memory"
    PIDS = "pids"
    GENERIC = "generic"
    MAX_REPLICAS = "max replicas"
    AFFINITY = "affinity"


@dataclass(frozen=True, slots=True)
class Fix:
    """One change. Without `node_id` it is one of the service's spec."""

    kind: Kind
    subject: str = ""
    value: str = ""
    amount: int = 0
    """Reserve so much instead; for MAX_REPLICAS: allow so many."""
    node_id: str = ""
    text: str = ""

    @property
    def key(self) -> tuple[Kind, str, str, str]:
        return (self.kind, self.subject, self.value, self.node_id)

    def does(self, other: Fix) -> bool:
        """Whether this change also makes the other one unnecessary."""
        if self.key != other.key:
            return False
        return self.amount >= other.amount if self.kind is Kind.MAX_REPLICAS else self.amount <= other.amount


@dataclass(frozen=True, slots=True)
class Refusal:
    text: str
    of_spec: Fix | None = None
    of_node: Fix | None = None
    """Either would do; None, if there is no such change."""


def refusals(seat: Seat, group: Group) -> list[Refusal]:
    """All that keeps a task of the group from the node; empty if it could go there."""
    return [refusal for find in _FINDERS for refusal in find(seat, group)]


def name_of(node: Node) -> str:
    return node.description.hostname or node.id


def _availability(seat: Seat, group: Group) -> Iterator[Refusal]:
    del group
    node, name = seat.node, name_of(seat.node)
    if node.status.state is not NodeState.READY:
        text = f"node is {node.status.state.name.lower()}"
        yield Refusal(text, of_node=Fix(Kind.STATE, node_id=node.id, text=f"bring node {name} back"))
    if node.spec.availability is not Availability.ACTIVE:
        text = f"availability is {node.spec.availability.name.lower()}"
        yield Refusal(text, of_node=Fix(Kind.AVAILABILITY, node_id=node.id, text=f"make node {name} active"))


def _constraints(seat: Seat, group: Group) -> Iterator[Refusal]:
    for text in dict.fromkeys(group.demand.fixed.constraints):
        if not parse_constraint(text).matches(seat.node):
            drop = Fix(Kind.CONSTRAINT, text, text=f"remove the constraint {text}")
            yield Refusal(f"constraint {text} not satisfied", drop, _label_for(text, seat.node))


def _label_for(text: str, node: Node) -> Fix | None:
    constraint = parse_constraint(text)
    label = constraint.key.removeprefix("node.labels.")
    if label == constraint.key or constraint.operator not in (Operator.EQUAL, Operator.IN):
        return None
    value = constraint.values[0]
    return Fix(Kind.LABEL, label, value, node_id=node.id, text=f"add the label {label}={value} to node {name_of(node)}")


def _platform(seat: Seat, group: Group) -> Iterator[Refusal]:
    if not board.has_platform(seat, group.demand):
        described = seat.node.description
        platform = f"{described.os or 'unknown'}/{described.architecture or 'unknown'}"
        yield Refusal(
            f"unsupported platform {platform}", Fix(Kind.PLATFORM, text=f"use an image that also runs on {platform}")
        )


def _taints(seat: Seat, group: Group) -> Iterator[Refusal]:
    for taint in dict.fromkeys(seat.node.spec.taints):
        if taint.effect is TaintEffect.PREFER_NO_SCHEDULE or tolerates(group.demand.fixed.tolerations, taint):
            continue
        effect = taint.effect.name.lower().replace("_", "-")
        shown = f"{taint.key}={taint.value}:{effect}" if taint.value else f"{taint.key}:{effect}"
        yield Refusal(
            f"taint {shown} not tolerated",
            Fix(Kind.TOLERATION, taint.key, f"{taint.value}:{taint.effect:d}", text=f"tolerate the taint {shown}"),
            Fix(
                Kind.TAINT,
                taint.key,
                f"{taint.value}:{taint.effect:d}",
                node_id=seat.node.id,
                text=f"remove the taint {shown} from node {name_of(seat.node)}",
            ),
        )


def _plugins(seat: Seat, group: Group) -> Iterator[Refusal]:
    for plugin in group.demand.fixed.plugins:
        if not board.has_plugin(seat.node, plugin):
            what = _what_is_missing(plugin)
            fix = Fix(
                Kind.PLUGIN,
                plugin.type,
                plugin.name,
                node_id=seat.node.id,
                text=f"install {what} on node {name_of(seat.node)}",
            )
            yield Refusal(f"missing {what.removeprefix('the ')}", of_node=fix)


def _what_is_missing(plugin: Plugin) -> str:
    if plugin == Plugin("Network", ENCRYPTED):
        return "encryption of networks (WireGuard in the kernel, or wireguard-go)"
    return f"the {plugin.type.lower()} plugin {plugin.name}"


def _devices(seat: Seat, group: Group) -> Iterator[Refusal]:
    if board.has_devices(seat, group.demand):
        return
    for device in dict.fromkeys(group.demand.fixed.devices):
        if device not in seat.node.description.devices:
            fix = Fix(
                Kind.DEVICE, device, node_id=seat.node.id, text=f"give node {name_of(seat.node)} the device {device}"
            )
            yield Refusal(f"missing device {device}", of_node=fix)


def _ports(seat: Seat, group: Group) -> Iterator[Refusal]:
    for protocol, number in dict.fromkeys(group.demand.ports):
        if (protocol, number) in seat.usage.ports:
            shown = f"{number}/{protocol.name.lower()}"
            fix = Fix(Kind.PORT, str(number), protocol.name, text=f"do not publish the host port {shown}")
            yield Refusal(f"host-mode port {shown} already in use", fix)


def _amounts(seat: Seat, group: Group) -> Iterator[Refusal]:
    demand, usage = group.demand, seat.usage
    if not board.has_cpu(seat, demand):
        free = max(0, seat.nano_cpus - usage.nano_cpus)
        less = free // _CPU_STEP * _CPU_STEP
        needed = cpus_text(demand.nano_cpus)
        text = f"insufficient cpu: {cpus_text(free)} of {cpus_text(seat.nano_cpus)} free, {needed} needed"
        yield Refusal(text, _less(Kind.CPU, less, cpus_text(less), needed, "CPUs"))
    if not board.has_memory(seat, demand):
        free = max(0, seat.memory_bytes - usage.memory_bytes)
        less = _round_size(free)
        needed = size_text(demand.memory_bytes)
        text = f"insufficient memory: {size_text(free)} of {size_text(seat.memory_bytes)} free, {needed} needed"
        yield Refusal(text, _less(Kind.MEMORY, less, size_text(less), needed, "memory"))
    if not board.has_pids(seat, demand):
        free = max(0, seat.pids - usage.pids)
        text = f"insufficient pids: {free} of {seat.pids} free, {demand.pids} needed"
        yield Refusal(text, _less(Kind.PIDS, free, str(free), str(demand.pids), "pids"))
    for kind, count in dict.fromkeys(demand.generic):
        free = max(0, seat.free_of(kind))
        if free < count:
            text = f"insufficient {kind}: {free} free, {count} needed"
            yield Refusal(text, _less(Kind.GENERIC, free, str(free), str(count), kind))


def _less(kind: Kind, amount: int, shown: str, instead_of: str, what: str) -> Fix:
    text = f"reserve {shown} {what} instead of {instead_of}" if amount else f"reserve no {what}"
    return Fix(kind, what if kind is Kind.GENERIC else "", amount=amount, text=text.replace("B memory", "B of memory"))


def _crowd(seat: Seat, group: Group) -> Iterator[Refusal]:
    count = group.counts.get(seat.node.id, 0)
    if count >= group.limit:
        fix = Fix(Kind.MAX_REPLICAS, amount=count + 1, text=f"allow {count + 1} replicas per node")
        yield Refusal(f"max replicas per node limit reached: {count}", fix)


def _near(seat: Seat, group: Group) -> Iterator[Refusal]:
    for owner, wish in group.affinities.refused(seat) if group.affinities is not None else ():
        place = f" in the same {wish.topology}" if wish.topology else ""
        if owner.id != group.service.id:
            yield Refusal(f"service {owner.spec.name} must not be near it{place}")
        elif wish.anti:
            yield Refusal(f"must not be near service {wish.service}{place}", _drop_affinity(wish))
        else:
            yield Refusal(f"no task of service {wish.service}{place}", _drop_affinity(wish))


def _drop_affinity(wish: Affinity) -> Fix:
    what = "anti-affinity" if wish.anti else "affinity"
    place = f" per {wish.topology}" if wish.topology else ""
    return Fix(
        Kind.AFFINITY,
        wish.service,
        f"{wish.anti:d}:{wish.topology}",
        text=f"remove the {what} to service {wish.service}{place}",
    )


_FINDERS: tuple[Callable[[Seat, Group], Iterator[Refusal]], ...] = (
    _availability,
    _constraints,
    _platform,
    _taints,
    _plugins,
    _devices,
    _ports,
    _amounts,
    _crowd,
    _near,
)


def cpus_text(nano_cpus: int) -> str:
    return f"{nano_cpus / 1e9:g}"


def size_text(amount: int) -> str:
    for unit, name in ((_GIB, "GiB"), (_MIB, "MiB"), (1 << 10, "KiB")):
        if amount >= unit:
            return f"{int(amount * 100 / unit) / 100:g} {name}"
    return f"{amount} B"


def _round_size(free: int) -> int:
    """As much as is free, rounded down so that what is shown is what is meant."""
    if free < _SMALLEST_MEMORY:
        return 0
    if free < _GIB:
        return free // _MIB * _MIB
    hundredths = free * 100 // _GIB
    return -(-hundredths * _GIB // 100)
