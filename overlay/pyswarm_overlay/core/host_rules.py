"""The host's nftables table as a document (libnftables' JSON): published ports, ways out, and who may go where. Pure.

One table of family inet, so that both families change in one transaction. A document replaces the table whole;
connections that run keep running, since their translation lives in conntrack. The table carries our prefix in its name,
and no other one is ever touched.

A published port leads either to a task of this host, through its way out, or to *another node's own address* on the
ingress network, with the port unchanged: that node (`near`) leads it on to one of its tasks. The client's address is
translated nowhere on that way. The answers find back because the second node notes, by the MAC address that a
connection came from, which node it came through (conntrack mark), and marks the answers with it (`core.returns` says
what the routing does with the mark). Clients whose address means something else at the other node (a sandbox's, the
host's own) are masqueraded as this node's address on the ingress network, and so is what goes straight to a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .affinity import SEED, owners
from .nft_wire import DSTNAT_PRIORITY
from .rules import Command, Expression

Family = Literal["ip", "ip6"]
FAMILIES: tuple[Family, Family] = ("ip", "ip6")
SRCNAT_PRIORITY = 100
RAW_PRIORITY = -300
MANGLE_PRIORITY = -150
_LOOPBACK_V4: Expression = {"prefix": {"addr": "127.0.0.0", "len": 8}}
_MARK_MASK = 0xFFFF0000


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

    @property
    def chain(self) -> str:
        where = self.host_ip.replace(".", "_").replace(":", "_") or "any"
        return f"{self.protocol}_{self.port}_{where}"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node on the ingress network. `number` marks what came from it; 0: it has none."""

    node_address: str
    addresses: tuple[str, ...]
    mac: str
    number: int


@dataclass(frozen=True, slots=True)
class HostRules:
    """Everything that the host's table depends on."""

    table: str
    gateway_ports: str
    """A pattern for the interfaces that lead to sandboxes."""
    gateway_subnets: tuple[str, ...]
    ingress_device: str
    ingress_addresses: tuple[str, ...]
    listeners: tuple[Listener, ...]
    peers: tuple[Peer, ...] = ()
    keeps_clients: bool = False
    """The other nodes can tell by the MAC address that a connection came through this one."""
    mark: int = 0
    """The upper half of the marks; the lower one is a peer's number."""


def host_document(rules: HostRules) -> list[Command]:
    """The whole table of the host's namespace."""
    write = _Table(rules.table)
    document = replace_table(rules.table)
    document += [
        write.base("raw", "filter", "prerouting", RAW_PRIORITY),
        write.base("raw_own", "filter", "output", RAW_PRIORITY),
        write.base("mark", "filter", "prerouting", MANGLE_PRIORITY),
        write.base("mark_own", "route", "output", MANGLE_PRIORITY),
        write.base("prerouting", "nat", "prerouting", DSTNAT_PRIORITY),
        write.base("output", "nat", "output", DSTNAT_PRIORITY),
        write.base("postrouting", "nat", "postrouting", SRCNAT_PRIORITY),
        write.base("forward", "filter", "forward", 0),
        write.base("refused", "filter", "input", 0),
        write.chain("ports"),
        write.chain("near"),
    ]
    document += _loopback_guard(write, rules)
    document += _notes(write, rules)
    document += _entrances(write, rules)
    document += _source_translation(write, rules)
    document += _forwarding(write, rules)
    document += _refusals(write, rules)
    for listener in rules.listeners:
        document += _chains(write, listener)
    document += _dispatch(write, rules)
    return document


def replace_table(table: str) -> list[Command]:
    named = {"family": "inet", "name": table}
    return [{"add": {"table": named}}, {"delete": {"table": named}}, {"add": {"table": named}}]


def delete_table(table: str) -> list[Command]:
    named = {"family": "inet", "name": table}
    return [{"add": {"table": named}}, {"delete": {"table": named}}]


class _Table:
    """Writes commands for one table."""

    def __init__(self, name: str) -> None:
        self.name = name

    def base(self, chain: str, kind: str, hook: str, priority: int) -> Command:
        settings = {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}
        return {"add": {"chain": {"family": "inet", "table": self.name, "name": chain, **settings}}}

    def chain(self, chain: str) -> Command:
        return {"add": {"chain": {"family": "inet", "table": self.name, "name": chain}}}

    def rule(self, chain: str, *expressions: Expression) -> Command:
        return {"add": {"rule": {"family": "inet", "table": self.name, "chain": chain, "expr": list(expressions)}}}


# -- expressions -------------------------------------------------------------------------------------------------------


def _match(left: Expression, right: object, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


def _field(protocol: str, field: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": field}}


def _meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def _ct(key: str) -> Expression:
    return {"ct": {"key": key}}


def _of_family(family: Family) -> Expression:
    return _match(_meta("nfproto"), "ipv4" if family == "ip" else "ipv6")


def _set(values: Iterable[object]) -> Expression:
    return {"set": list(values)}


def _kind_of(field: str) -> Expression:
    return {"fib": {"result": "type", "flags": [field]}}


def _prefix(subnet: str) -> Expression:
    address, _, length = subnet.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}}


def _marked(key: Expression, rules: HostRules) -> Expression:
    return _match({"&": [key, _MARK_MASK]}, rules.mark)


def _assign(key: Expression, value: object) -> Expression:
    return {"mangle": {"key": key, "value": value}}


_ORIGINAL = _match(_ct("direction"), "original")
_REPLY = _match(_ct("direction"), "reply")
_TRANSLATED = _match(_ct("status"), "dnat", op="in")


def _of(family: Family, addresses: Iterable[str]) -> list[str]:
    return [address for address in addresses if (":" in address) == (family == "ip6")]


# -- what comes in -----------------------------------------------------------------------------------------------------


def _loopback_guard(write: _Table, rules: HostRules) -> Iterable[Command]:
    """`route_localnet` lets answers to 127.0.0.1 come back from a sandbox; nothing else may use that way in."""
    for device in (rules.gateway_ports, rules.ingress_device):
        yield write.rule(
            "raw", _match(_meta("iifname"), device), _match(_field("ip", "daddr"), _LOOPBACK_V4), {"drop": None}
        )


def _notes(write: _Table, rules: HostRules) -> Iterable[Command]:
    """Through which node a connection came. A zone of its own for each: one client may have the same port at two.

    What leaves with a mark of ours before it was tracked is a question to a client (`kernel.flows`): never tracked.
    """
    yield write.rule("raw_own", _marked(_meta("mark"), rules), {"notrack": None})
    numbered = [peer for peer in rules.peers if peer.number]
    if not numbered:
        return
    from_nodes = _match(_meta("iifname"), rules.ingress_device)
    zones = [[peer.mac, peer.number] for peer in numbered]
    marks = [[peer.mac, rules.mark | peer.number] for peer in numbered]
    mac = _field("ether", "saddr")
    yield write.rule(
        "raw",
        from_nodes,
        _assign({"ct": {"key": "zone", "dir": "original"}}, {"map": {"key": mac, "data": _set(zones)}}),
    )
    yield write.rule("mark", from_nodes, _ORIGINAL, _assign(_meta("mark"), {"map": {"key": mac, "data": _set(marks)}}))
    yield write.rule("mark", from_nodes, _ORIGINAL, _marked(_meta("mark"), rules), _assign(_ct("mark"), _meta("mark")))
    for chain in ("mark", "mark_own"):
        yield write.rule(chain, _REPLY, _marked(_ct("mark"), rules), _assign(_meta("mark"), _ct("mark")))


def _entrances(write: _Table, rules: HostRules) -> Iterable[Command]:
    """`::1` is no way in: the kernel sends nothing from there to another interface. It is refused, at once."""
    local = _match(_kind_of("daddr"), "local")
    from_nodes = _match(_meta("iifname"), rules.ingress_device)
    yield write.rule("prerouting", from_nodes, local, {"goto": {"target": "near"}})
    yield write.rule("prerouting", local, {"jump": {"target": "ports"}})
    not_loopback = _match(_field("ip6", "daddr"), "::1", op="!=")
    yield write.rule("output", _of_family("ip"), local, {"jump": {"target": "ports"}})
    yield write.rule("output", not_loopback, local, {"jump": {"target": "ports"}})


# -- what goes out -----------------------------------------------------------------------------------------------------


def _source_translation(write: _Table, rules: HostRules) -> Iterable[Command]:
    for family in FAMILIES:
        yield from _to_ingress(write, rules, family)
    to_gateway = _match(_meta("oifname"), rules.gateway_ports)
    elsewhere = _match(_meta("oifname"), rules.gateway_ports, op="!=")
    yield write.rule("postrouting", _match(_field("ip", "saddr"), _LOOPBACK_V4), to_gateway, {"masquerade": None})
    for family in FAMILIES:
        # The client of another node's own: its task would answer past this host, by its own foot on that network.
        nodes = [address for peer in rules.peers for address in _of(family, peer.addresses)]
        if nodes:
            from_nodes = _match(_field(family, "saddr"), _set(nodes))
            yield write.rule("postrouting", from_nodes, to_gateway, _TRANSLATED, {"masquerade": None})
    for subnet in rules.gateway_subnets:
        from_gateway = _match(_field("ip6" if ":" in subnet else "ip", "saddr"), _prefix(subnet))
        yield write.rule("postrouting", from_gateway, to_gateway, _TRANSLATED, {"masquerade": None})
        yield write.rule("postrouting", from_gateway, elsewhere, {"masquerade": None})


def _to_ingress(write: _Table, rules: HostRules, family: Family) -> Iterable[Command]:
    """To a node goes the client's own address, unless it means somebody else there; the rest goes as this node's."""
    own = _of(family, rules.ingress_addresses)
    if not own:
        return
    out = [_of_family(family), _match(_meta("oifname"), rules.ingress_device), _TRANSLATED]
    nodes = [address for peer in rules.peers for address in _of(family, peer.addresses)]
    if nodes and rules.keeps_clients:
        source = _field(family, "saddr")
        strangers = _of(family, [peer.node_address for peer in rules.peers])
        subnets = [_prefix(subnet) for subnet in _of(family, rules.gateway_subnets)]
        excluded = [*subnets, *sorted(set(strangers)), *([_LOOPBACK_V4] if family == "ip" else [])]
        yield write.rule(
            "postrouting", *out, _match(_kind_of("saddr"), "local"), {"snat": {"family": family, "addr": own[0]}}
        )
        if excluded:
            yield write.rule(
                "postrouting", *out, _match(source, _set(excluded)), {"snat": {"family": family, "addr": own[0]}}
            )
        yield write.rule("postrouting", *out, _match(_field(family, "daddr"), _set(nodes)), {"accept": None})
    yield write.rule("postrouting", *out, {"snat": {"family": family, "addr": own[0]}})


def _forwarding(write: _Table, rules: HostRules) -> Iterable[Command]:
    """To a sandbox, and to or from the ingress network, goes only what was asked for or published."""
    to_gateway = _match(_meta("oifname"), rules.gateway_ports)
    to_nodes = _match(_meta("oifname"), rules.ingress_device)
    from_nodes = _match(_meta("iifname"), rules.ingress_device)
    state = _match(_ct("state"), ["established", "related"], op="in")
    first = _match({"&": [_field("tcp", "flags"), "syn"]}, "syn")
    size = {"tcp option": {"name": "maxseg", "field": "size"}}
    yield write.rule("forward", to_nodes, first, _assign(size, {"rt": {"key": "mtu"}}))
    yield write.rule("forward", from_nodes, first, _assign(size, {"rt": {"key": "mtu"}}))
    for way in (to_gateway, to_nodes, from_nodes):
        yield write.rule("forward", way, state, {"accept": None})
        yield write.rule("forward", way, _TRANSLATED, {"accept": None})
        yield write.rule("forward", way, {"drop": None})


def _refusals(write: _Table, rules: HostRules) -> Iterable[Command]:
    """What still comes in at a published port met no task. Our own socket, which holds the port, would swallow it."""
    mine = [listener for listener in rules.listeners if listener.answers_here or listener.answers_nodes]
    if not mine:
        return
    ports = _set(
        [{"concat": [protocol, port]} for protocol, port in sorted({(one.protocol, one.port) for one in mine})]
    )
    where = [_ORIGINAL, _match({"concat": [_meta("l4proto"), _field("th", "dport")]}, ports)]
    here = _match(_meta("iifname"), rules.ingress_device, op="!=")
    # A port that another program has is refused to other nodes only.
    yield from _refuse(write, [_match(_meta("iifname"), rules.ingress_device), *where])
    ours = [listener for listener in mine if listener.answers_here]
    for family in (None, *FAMILIES):
        chosen = [one for one in ours if _family_of(one.host_ip) == family]
        if chosen:
            yield from _refuse(write, [here, _ORIGINAL, *_addressed(family, chosen)])


def _addressed(family: Family | None, listeners: Sequence[Listener]) -> list[Expression]:
    key, elements = _key(family), [{"concat": _element(one)} for one in listeners]
    return [_match({"concat": key}, _set(elements))]


def _refuse(write: _Table, where: Sequence[Expression]) -> Iterable[Command]:
    tcp = _match(_meta("l4proto"), "tcp")
    yield write.rule("refused", *where, tcp, {"reject": {"type": "tcp reset"}})
    yield write.rule("refused", *where, {"reject": {"type": "icmpx", "expr": "port-unreachable"}})


# -- ports -------------------------------------------------------------------------------------------------------------


def _dispatch(write: _Table, rules: HostRules) -> Iterable[Command]:
    """From (address,) protocol and port to the listener's chain: one look-up each, however many there are."""
    ours = [listener for listener in rules.listeners if listener.answers_here and listener.targets]
    for family in (*FAMILIES, None):  # one address before all of them
        chosen = [one for one in ours if _family_of(one.host_ip) == family]
        if chosen:
            yield write.rule("ports", _verdicts(family, [(one, one.chain) for one in chosen]))
    near = [one for one in rules.listeners if one.answers_nodes and any(target.is_near for target in one.targets)]
    if near:
        yield write.rule("near", _verdicts(None, [(one, _near(one)) for one in near]))


def _family_of(host_ip: str) -> Family | None:
    """None: every address of both."""
    if not host_ip:
        return None
    return "ip6" if ":" in host_ip else "ip"


def _key(family: Family | None) -> list[Expression]:
    where = [] if family is None else [_field(family, "daddr")]
    return [*where, _meta("l4proto"), _field("th", "dport")]


def _element(listener: Listener) -> list[object]:
    where: list[object] = [listener.host_ip] if listener.host_ip else []
    return [*where, listener.protocol, listener.port]


def _verdicts(family: Family | None, chains: Sequence[tuple[Listener, str]]) -> Expression:
    elements = [
        [{"concat": _element(one) if family else [one.protocol, one.port]}, {"goto": {"target": chain}}]
        for one, chain in chains
    ]
    return {"vmap": {"key": {"concat": _key(family)}, "data": _set(elements)}}


def _near(listener: Listener) -> str:
    return f"near_{listener.protocol}_{listener.port}"


def _chains(write: _Table, listener: Listener) -> Iterable[Command]:
    """What picks a target. Without one the packet goes on to the host, where `refused` answers it."""
    near = [target for target in listener.targets if target.is_near]
    if listener.answers_nodes and near:
        yield write.chain(_near(listener))
        for family in FAMILIES:
            yield from _pick(write, _near(listener), listener, [one for one in near if one.family == family])
    if not listener.answers_here or not listener.targets:
        return
    if listener.is_sticky:
        yield from _sticky(write, listener)
        return
    yield write.chain(listener.chain)
    for family in FAMILIES:
        yield from _pick(write, listener.chain, listener, [one for one in listener.targets if one.family == family])


def _pick(write: _Table, chain: str, listener: Listener, targets: Sequence[Target]) -> Iterable[Command]:
    if not targets:
        return
    family = targets[0].family
    # The port is matched again in the chain: a rule may translate ports only after it has named the protocol.
    matched = [_of_family(family), _match(_field(listener.protocol, "dport"), listener.port)]
    if len(targets) == 1:
        yield write.rule(chain, *matched, _lead_to(targets[0]))
        return
    if listener.is_sticky:
        by_owner = {target.owner: target for target in targets}
        key, ordered = _bucket(family), [by_owner[owner] for owner in owners(by_owner)]
    else:
        key, ordered = {"numgen": {"mode": "inc", "mod": len(targets), "offset": 0}}, list(targets)
    numbered = [[number, {"concat": [one.address, one.port]}] for number, one in enumerate(ordered)]
    chosen = {"map": {"key": key, "data": _set(numbered)}}
    yield write.rule(chain, *matched, {"dnat": {"family": family, "addr": chosen}})


def _lead_to(target: Target) -> Expression:
    return {"dnat": {"family": target.family, "addr": target.address, "port": target.port}}


def _bucket(family: Family) -> Expression:
    count = len(owners(["any"]))
    return {"jhash": {"mod": count, "offset": 0, "seed": SEED, "expr": _field(family, "saddr")}}


def _sticky(write: _Table, listener: Listener) -> Iterable[Command]:
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
        yield write.rule(listener.chain, _of_family(family), {"vmap": {"key": _bucket(family), "data": _set(verdicts)}})


def _place_chain(listener: Listener, target: Target) -> str:
    if target.is_near:
        return f"{listener.chain}_here_{target.family}"
    return f"{listener.chain}_{target.address.replace('.', '_').replace(':', '_')}"
