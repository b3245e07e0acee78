"""The rules of published ports: from (address,) protocol and port to the task that gets the connection. Pure.

Each listener has a chain that picks one of its targets, and one look-up leads to it, however many there are. What
becomes of a connection before and after that is in `host_rules`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .affinity import SEED, owners
from .expressions import FAMILIES, Family, TableWriter, field, match, meta, of_family, set_of
from .rules import Command, Expression


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection is led: a task of this host, a node, or a task elsewhere. `owner` is the backend meant."""

    address: str
    port: int
    owner: str
    is_near: bool

    @property
    def family(self) -> Family:
        return "ip6" if ":" in self.address else "ip"


@dataclass(frozen=True, slots=True)
class Listener:
    """A published port and what is behind it, in both families. Without a target it refuses."""

    protocol: str
    port: int
    host_ip: str
    targets: tuple[Target, ...]
    is_sticky: bool = False
    """A client's connections all go to one backend."""
    answers_here: bool = True
    """False: another program of this host has the port; it is only served to other nodes."""
    answers_nodes: bool = False
    """Other nodes lead their clients here."""
    leaving: tuple[Target, ...] = ()
    """Tasks here that were withdrawn and still run: for clients that a node leads here which does not know it yet."""

    @property
    def near(self) -> list[Target]:
        """The tasks of this host that other nodes' clients get."""
        return [target for target in self.targets if target.is_near] or list(self.leaving)

    @property
    def chain(self) -> str:
        where = self.host_ip.replace(".", "_").replace(":", "_") or "any"
        return f"{self.protocol}_{self.port}_{where}"


def dispatch(write: TableWriter, listeners: Sequence[Listener]) -> Iterable[Command]:
    """From (address,) protocol and port to the listener's chain: one look-up each, however many there are."""
    ours = [listener for listener in listeners if listener.answers_here and listener.targets]
    for family in (*FAMILIES, None):  # one address before all of them
        chosen = [one for one in ours if family_of(one.host_ip) == family]
        if chosen:
            yield write.rule("ports", _verdicts(family, [(one, one.chain) for one in chosen]))
    near = [one for one in listeners if one.answers_nodes and one.near]
    if near:
        yield write.rule("near", _verdicts(None, [(one, _near(one)) for one in near]))


def family_of(host_ip: str) -> Family | None:
    """None: every address of both."""
    if not host_ip:
        return None
    return "ip6" if ":" in host_ip else "ip"


def key_of(family: Family | None) -> list[Expression]:
    where = [] if family is None else [field(family, "daddr")]
    return [*where, meta("l4proto"), field("th", "dport")]


def element_of(listener: Listener) -> list[object]:
    where: list[object] = [listener.host_ip] if listener.host_ip else []
    return [*where, listener.protocol, listener.port]


def _verdicts(family: Family | None, chains: Sequence[tuple[Listener, str]]) -> Expression:
    elements = [
        [{"concat": element_of(one) if family else [one.protocol, one.port]}, {"goto": {"target": chain}}]
        for one, chain in chains
    ]
    return {"vmap": {"key": {"concat": key_of(family)}, "data": set_of(elements)}}


def _near(listener: Listener) -> str:
    return f"near_{listener.protocol}_{listener.port}"


def chains(write: TableWriter, listener: Listener) -> Iterable[Command]:
    """What picks a target. Without one the packet goes on to the host, where `refused` answers it."""
    if listener.answers_nodes and listener.near:
        yield write.chain(_near(listener))
        for family in FAMILIES:
            yield from _pick(write, _near(listener), listener, [one for one in listener.near if one.family == family])
    if not listener.answers_here or not listener.targets:
        return
    if listener.is_sticky:
        yield from _sticky(write, listener)
        return
    yield write.chain(listener.chain)
    for family in FAMILIES:
        yield from _pick(write, listener.chain, listener, [one for one in listener.targets if one.family == family])


def _pick(write: TableWriter, chain: str, listener: Listener, targets: Sequence[Target]) -> Iterable[Command]:
    if not targets:
        return
    family = targets[0].family
    # The port is matched again in the chain: a rule may translate ports only after it has named the protocol.
    matched = [of_family(family), match(field(listener.protocol, "dport"), listener.port)]
    if len(targets) == 1:
        yield write.rule(chain, *matched, _lead_to(targets[0]))
        return
    if listener.is_sticky:
        by_owner = {target.owner: target for target in targets}
        key, ordered = _bucket(family), [by_owner[owner] for owner in owners(by_owner)]
    else:
        key, ordered = {"numgen": {"mode": "inc", "mod": len(targets), "offset": 0}}, list(targets)
    numbered = [[number, {"concat": [one.address, one.port]}] for number, one in enumerate(ordered)]
    chosen = {"map": {"key": key, "data": set_of(numbered)}}
    yield write.rule(chain, *matched, {"dnat": {"family": family, "addr": chosen}})


def _lead_to(target: Target) -> Expression:
    return {"dnat": {"family": target.family, "addr": target.address, "port": target.port}}


def _bucket(family: Family) -> Expression:
    count = len(owners(["any"]))
    return {"jhash": {"mod": count, "offset": 0, "seed": SEED, "expr": field(family, "saddr")}}


def _sticky(write: TableWriter, listener: Listener) -> Iterable[Command]:
    """A client belongs to one backend of all; its node decides again among its own tasks. So this node does it in two
    steps as well: else a client would meet another task of this node through another node."""
    yield write.chain(listener.chain)
    places: dict[Family, Mapping[str, Target]] = {
        family: {one.owner: one for one in listener.targets if one.family == family} for family in FAMILIES
    }
    for family, by_owner in places.items():
        if not by_owner:
            continue
        chains = {owner: _place_chain(listener, target) for owner, target in by_owner.items()}
        for name, target in {chains[owner]: target for owner, target in by_owner.items()}.items():
            members = [one for one in by_owner.values() if one.is_near] if target.is_near else [target]
            yield write.chain(name)
            yield from _pick(write, name, listener, members)
        verdicts = [[number, {"goto": {"target": chains[owner]}}] for number, owner in enumerate(owners(by_owner))]
        yield write.rule(
            listener.chain, of_family(family), {"vmap": {"key": _bucket(family), "data": set_of(verdicts)}}
        )


def _place_chain(listener: Listener, target: Target) -> str:
    if target.is_near:
        return f"{listener.chain}_here_{target.family}"
    return f"{listener.chain}_{target.address.replace('.', '_').replace(':', '_')}"
