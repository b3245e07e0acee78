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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .expressions import (
    FAMILIES,
    Family,
    TableWriter,
    address_kind,
    assign,
    ct,
    field,
    match,
    meta,
    of_family,
    prefix,
    set_of,
)
from .nft_wire import DSTNAT_PRIORITY
from .port_rules import Listener, chains, dispatch, element_of, family_of, key_of
from .rules import Command, Expression

SRCNAT_PRIORITY = 100
RAW_PRIORITY = -300
MANGLE_PRIORITY = -150
_LOOPBACK_V4: Expression = {"prefix": {"addr": "127.0.0.0", "len": 8}}
_MARK_MASK = 0xFFFF0000
_ORIGINAL = match(ct("direction"), "original")
_REPLY = match(ct("direction"), "reply")
_TRANSLATED = match(ct("status"), "dnat", op="in")


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
    data_path_port: int = 4789
    """Where the nodes take tunnelled packets from one another, whoever sends them."""


def host_document(rules: HostRules) -> list[Command]:
    """The whole table of the host's namespace."""
    write = TableWriter(rules.table)
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
    document.append(no_tunnelling(write, rules.gateway_ports, rules.data_path_port))
    document += _notes(write, rules)
    document += _entrances(write, rules)
    document += _source_translation(write, rules)
    document += _forwarding(write, rules)
    document += _refusals(write, rules)
    for listener in rules.listeners:
        document += chains(write, listener)
    document += dispatch(write, rules.listeners)
    return document


def replace_table(table: str) -> list[Command]:
    named = {"family": "inet", "name": table}
    return [{"add": {"table": named}}, {"delete": {"table": named}}, {"add": {"table": named}}]


def delete_table(table: str) -> list[Command]:
    named = {"family": "inet", "name": table}
    return [{"add": {"table": named}}, {"delete": {"table": named}}]


def _marked(key: Expression, rules: HostRules) -> Expression:
    return match({"&": [key, _MARK_MASK]}, rules.mark)


def _of(family: Family, addresses: Iterable[str]) -> list[str]:
    return [address for address in addresses if (":" in address) == (family == "ip6")]


def no_tunnelling(write: TableWriter, interfaces: str, port: int) -> Command:
    """A container that sent VXLAN itself, to any node, would have packets on networks that it is not on.

    The kernel takes such packets from everybody, and here they would even leave with this node's own address.
    """
    return write.rule("raw", match(meta("iifname"), interfaces), match(field("udp", "dport"), port), {"drop": None})


# -- what comes in -----------------------------------------------------------------------------------------------------


def _loopback_guard(write: TableWriter, rules: HostRules) -> Iterable[Command]:
    """`route_localnet` lets answers to 127.0.0.1 come back from a sandbox; nothing else may use that way in."""
    for device in (rules.gateway_ports, rules.ingress_device):
        yield write.rule(
            "raw", match(meta("iifname"), device), match(field("ip", "daddr"), _LOOPBACK_V4), {"drop": None}
        )


def _notes(write: TableWriter, rules: HostRules) -> Iterable[Command]:
    """Through which node a connection came. A zone of its own for each: one client may have the same port at two.

    What leaves with a mark of ours before it was tracked is a question to a client (`kernel.flows`): never tracked.
    """
    yield write.rule("raw_own", _marked(meta("mark"), rules), {"notrack": None})
    numbered = [peer for peer in rules.peers if peer.number]
    if not numbered:
        return
    from_nodes = match(meta("iifname"), rules.ingress_device)
    zones = [[peer.mac, peer.number] for peer in numbered]
    marks = [[peer.mac, rules.mark | peer.number] for peer in numbered]
    mac = field("ether", "saddr")
    yield write.rule(
        "raw",
        from_nodes,
        assign({"ct": {"key": "zone", "dir": "original"}}, {"map": {"key": mac, "data": set_of(zones)}}),
    )
    yield write.rule("mark", from_nodes, _ORIGINAL, assign(meta("mark"), {"map": {"key": mac, "data": set_of(marks)}}))
    yield write.rule("mark", from_nodes, _ORIGINAL, _marked(meta("mark"), rules), assign(ct("mark"), meta("mark")))
    for chain in ("mark", "mark_own"):
        yield write.rule(chain, _REPLY, _marked(ct("mark"), rules), assign(meta("mark"), ct("mark")))


def _entrances(write: TableWriter, rules: HostRules) -> Iterable[Command]:
    """`::1` is no way in: the kernel sends nothing from there to another interface. It is refused, at once."""
    local = match(address_kind("daddr"), "local")
    from_nodes = match(meta("iifname"), rules.ingress_device)
    yield write.rule("prerouting", from_nodes, local, {"goto": {"target": "near"}})
    yield write.rule("prerouting", local, {"jump": {"target": "ports"}})
    not_loopback = match(field("ip6", "daddr"), "::1", op="!=")
    yield write.rule("output", of_family("ip"), local, {"jump": {"target": "ports"}})
    yield write.rule("output", not_loopback, local, {"jump": {"target": "ports"}})


# -- what goes out -----------------------------------------------------------------------------------------------------


def _source_translation(write: TableWriter, rules: HostRules) -> Iterable[Command]:
    for family in FAMILIES:
        yield from _to_ingress(write, rules, family)
    to_gateway = match(meta("oifname"), rules.gateway_ports)
    elsewhere = match(meta("oifname"), rules.gateway_ports, op="!=")
    yield write.rule("postrouting", match(field("ip", "saddr"), _LOOPBACK_V4), to_gateway, {"masquerade": None})
    for family in FAMILIES:
        # The client of another node's own: its task would answer past this host, by its own foot on that network.
        nodes = [address for peer in rules.peers for address in _of(family, peer.addresses)]
        if nodes:
            from_nodes = match(field(family, "saddr"), set_of(nodes))
            yield write.rule("postrouting", from_nodes, to_gateway, _TRANSLATED, {"masquerade": None})
    for subnet in rules.gateway_subnets:
        from_gateway = match(field("ip6" if ":" in subnet else "ip", "saddr"), prefix(subnet))
        yield write.rule("postrouting", from_gateway, to_gateway, _TRANSLATED, {"masquerade": None})
        yield write.rule("postrouting", from_gateway, elsewhere, {"masquerade": None})


def _to_ingress(write: TableWriter, rules: HostRules, family: Family) -> Iterable[Command]:
    """To a node goes the client's own address, unless it means somebody else there; the rest goes as this node's."""
    own = _of(family, rules.ingress_addresses)
    if not own:
        return
    out = [of_family(family), match(meta("oifname"), rules.ingress_device), _TRANSLATED]
    nodes = [address for peer in rules.peers for address in _of(family, peer.addresses)]
    if nodes and rules.keeps_clients:
        source = field(family, "saddr")
        strangers = _of(family, [peer.node_address for peer in rules.peers])
        subnets = [prefix(subnet) for subnet in _of(family, rules.gateway_subnets)]
        excluded = [*subnets, *sorted(set(strangers)), *([_LOOPBACK_V4] if family == "ip" else [])]
        yield write.rule(
            "postrouting", *out, match(address_kind("saddr"), "local"), {"snat": {"family": family, "addr": own[0]}}
        )
        if excluded:
            yield write.rule(
                "postrouting", *out, match(source, set_of(excluded)), {"snat": {"family": family, "addr": own[0]}}
            )
        yield write.rule("postrouting", *out, match(field(family, "daddr"), set_of(nodes)), {"accept": None})
    yield write.rule("postrouting", *out, {"snat": {"family": family, "addr": own[0]}})


def _forwarding(write: TableWriter, rules: HostRules) -> Iterable[Command]:
    """To a sandbox, and to or from the ingress network, goes only what was asked for or published."""
    to_gateway = match(meta("oifname"), rules.gateway_ports)
    to_nodes = match(meta("oifname"), rules.ingress_device)
    from_nodes = match(meta("iifname"), rules.ingress_device)
    state = match(ct("state"), ["established", "related"], op="in")
    first = match({"&": [field("tcp", "flags"), "syn"]}, "syn")
    size = {"tcp option": {"name": "maxseg", "field": "size"}}
    yield write.rule("forward", to_nodes, first, assign(size, {"rt": {"key": "mtu"}}))
    yield write.rule("forward", from_nodes, first, assign(size, {"rt": {"key": "mtu"}}))
    for way in (to_gateway, to_nodes, from_nodes):
        yield write.rule("forward", way, state, {"accept": None})
        yield write.rule("forward", way, _TRANSLATED, {"accept": None})
        yield write.rule("forward", way, {"drop": None})


def _refusals(write: TableWriter, rules: HostRules) -> Iterable[Command]:
    """What still comes in at a published port met no task. Our own socket, which holds the port, would swallow it."""
    mine = [listener for listener in rules.listeners if listener.answers_here or listener.answers_nodes]
    if not mine:
        return
    ports = set_of(
        [{"concat": [protocol, port]} for protocol, port in sorted({(one.protocol, one.port) for one in mine})]
    )
    where = [_ORIGINAL, match({"concat": [meta("l4proto"), field("th", "dport")]}, ports)]
    here = match(meta("iifname"), rules.ingress_device, op="!=")
    # A port that another program has is refused to other nodes only.
    yield from _refuse(write, [match(meta("iifname"), rules.ingress_device), *where])
    ours = [listener for listener in mine if listener.answers_here]
    for family in (None, *FAMILIES):
        chosen = [one for one in ours if family_of(one.host_ip) == family]
        if chosen:
            yield from _refuse(write, [here, _ORIGINAL, *_addressed(family, chosen)])


def _addressed(family: Family | None, listeners: Sequence[Listener]) -> list[Expression]:
    key, elements = key_of(family), [{"concat": element_of(one)} for one in listeners]
    return [match({"concat": key}, set_of(elements))]


def _refuse(write: TableWriter, where: Sequence[Expression]) -> Iterable[Command]:
    tcp = match(meta("l4proto"), "tcp")
    yield write.rule("refused", *where, tcp, {"reject": {"type": "tcp reset"}})
    yield write.rule("refused", *where, {"reject": {"type": "icmpx", "expr": "port-unreachable"}})
