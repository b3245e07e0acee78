"""The host's nftables rules as a document (libnftables' JSON), and the way back from a listing: pure functions.

The host's table holds published ports, egress NAT and what keeps others from going straight to sandboxes. It carries
our prefix in its name, and no other table is ever touched. A document replaces the table as one transaction;
connections that run keep running, since their translation lives in conntrack. The sandboxes' tables are written by
`nft_wire`; here is what a listing of one should show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .nft_wire import DSTNAT_PRIORITY, OUTPUT, is_supported, rotated, vip_chain

Command = dict[str, Any]
Expression = dict[str, Any]

SRCNAT_PRIORITY = 100
RAW_PRIORITY = -300
_RESOLVER_RULES = 3
"""In a sandbox's output chain: our resolver by UDP and by TCP, and the look-up of the VIP."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A published port and the (address, port) pairs behind it, all of them on this host or reachable from it."""

    protocol: str
    port: int
    host_ip: str
    targets: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class HostRules:
    """Everything that the host's table depends on."""

    table: str
    gateway_ports: str
    """A pattern for the interfaces that lead to sandboxes."""
    gateway_subnet: str
    ingress_device: str
    ingress_address: str | None
    listeners: tuple[Listener, ...]


def _match(left: Expression, right: object, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


def _field(protocol: str, field: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": field}}


def _meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def _local_destination() -> Expression:
    return _match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")


def _replace_table(table: str) -> list[Command]:
    named = {"family": "ip", "name": table}
    return [{"add": {"table": named}}, {"delete": {"table": named}}, {"add": {"table": named}}]


def delete_table(table: str) -> list[Command]:
    named = {"family": "ip", "name": table}
    return [{"add": {"table": named}}, {"delete": {"table": named}}]


def list_table(table: str) -> list[Command]:
    return [{"list": {"table": {"family": "ip", "name": table}}}]


class _Table:
    """Writes commands for one table."""

    def __init__(self, name: str) -> None:
        self.name = name

    def base(self, chain: str, kind: str, hook: str, priority: int) -> Command:
        settings = {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}
        return {"add": {"chain": {"family": "ip", "table": self.name, "name": chain, **settings}}}

    def chain(self, chain: str) -> Command:
        return {"add": {"chain": {"family": "ip", "table": self.name, "name": chain}}}

    def rule(self, chain: str, *expressions: Expression) -> Command:
        return {"add": {"rule": {"family": "ip", "table": self.name, "chain": chain, "expr": list(expressions)}}}


def _choose(values: Sequence[object]) -> object:
    if len(values) == 1:
        return values[0]
    numbered = [[number, value] for number, value in enumerate(values)]
    key = {"numgen": {"mode": "inc", "mod": len(values), "offset": 0}}
    return {"map": {"key": key, "data": {"set": numbered}}}


def listener_chain(listener: Listener) -> str:
    where = listener.host_ip.replace(".", "_") or "any"
    return f"{listener.protocol}_{listener.port}_{where}"


def host_document(rules: HostRules) -> list[Command]:
    """The whole table of the host's namespace."""
    write = _Table(rules.table)
    document = _replace_table(rules.table)
    document += [
        write.base("raw", "filter", "prerouting", RAW_PRIORITY),
        write.base("prerouting", "nat", "prerouting", DSTNAT_PRIORITY),
        write.base("output", "nat", "output", DSTNAT_PRIORITY),
        write.base("postrouting", "nat", "postrouting", SRCNAT_PRIORITY),
        write.base("forward", "filter", "forward", 0),
        write.chain("ports"),
    ]
    document += _loopback_guard(write, rules)
    document.append(write.rule("prerouting", _local_destination(), {"jump": {"target": "ports"}}))
    document.append(write.rule("output", _local_destination(), {"jump": {"target": "ports"}}))
    document += _source_translation(write, rules)
    document += _forwarding(write, rules)
    for listener in rules.listeners:
        document += _listener(write, listener)
    return document


def _loopback_guard(write: _Table, rules: HostRules) -> Iterable[Command]:
    """`route_localnet` lets answers to 127.0.0.1 come back from a sandbox; nothing else may use that way in."""
    for device in (rules.gateway_ports, rules.ingress_device):
        yield write.rule(
            "raw",
            _match(_meta("iifname"), device),
            _match(_field("ip", "daddr"), {"prefix": {"addr": "127.0.0.0", "len": 8}}),
            {"drop": None},
        )


def _source_translation(write: _Table, rules: HostRules) -> Iterable[Command]:
    to_gateway = _match(_meta("oifname"), rules.gateway_ports)
    from_gateway = _match(_field("ip", "saddr"), _prefix(rules.gateway_subnet))
    translated = _match({"ct": {"key": "status"}}, "dnat", op="in")
    if rules.ingress_address is not None:
        yield write.rule(
            "postrouting",
            _match(_meta("oifname"), rules.ingress_device),
            translated,
            {"snat": {"addr": rules.ingress_address}},
        )
    loopback = _match(_field("ip", "saddr"), {"prefix": {"addr": "127.0.0.0", "len": 8}})
    yield write.rule("postrouting", loopback, to_gateway, {"masquerade": None})
    yield write.rule("postrouting", from_gateway, to_gateway, translated, {"masquerade": None})
    elsewhere = _match(_meta("oifname"), rules.gateway_ports, op="!=")
    yield write.rule("postrouting", from_gateway, elsewhere, {"masquerade": None})


def _forwarding(write: _Table, rules: HostRules) -> Iterable[Command]:
    """To a sandbox comes only what was asked for or published."""
    to_gateway = _match(_meta("oifname"), rules.gateway_ports)
    state = _match({"ct": {"key": "state"}}, ["established", "related"], op="in")
    translated = _match({"ct": {"key": "status"}}, "dnat", op="in")
    yield write.rule("forward", to_gateway, state, {"accept": None})
    yield write.rule("forward", to_gateway, translated, {"accept": None})
    yield write.rule("forward", to_gateway, {"drop": None})


def _prefix(subnet: str) -> Expression:
    address, _, length = subnet.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}}


def _listener(write: _Table, listener: Listener) -> list[Command]:
    """One rule that picks a target. Without one the packet goes on to the host, where nothing listens."""
    if not listener.targets:
        return []
    chain = listener_chain(listener)
    addresses = [address for address, _port in listener.targets]
    port = listener.targets[0][1]
    where = [_match(_field("ip", "daddr"), listener.host_ip)] if listener.host_ip else []
    # The port is matched again in the chain: a rule may translate ports only after it has named the protocol.
    matched = _match(_field(listener.protocol, "dport"), listener.port)
    return [
        write.chain(chain),
        write.rule(chain, matched, {"dnat": {"addr": _choose(addresses), "port": port}}),
        write.rule("ports", *where, matched, {"goto": {"target": chain}}),
    ]


def observed_targets(listing: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """From a table's listing: chain -> addresses that its rule translates to, in order; () for one without."""
    found: dict[str, tuple[str, ...]] = {}
    for item in listing.get("nftables", ()):
        if "chain" in item:
            found.setdefault(item["chain"]["name"], ())
        if "rule" in item:
            rule = item["rule"]
            for expression in rule["expr"]:
                if isinstance(expression, dict) and "dnat" in expression and rule["chain"] != OUTPUT:
                    found[rule["chain"]] = _addresses(expression["dnat"]["addr"])
    return found


def _addresses(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, dict) and "map" in value:
        pairs = sorted((int(key), str(target)) for key, target in value["map"]["data"]["set"])
        return tuple(target for _key, target in pairs)
    return ()


def rule_counts(listing: Mapping[str, Any]) -> dict[str, int]:
    """From a table's listing: chain -> number of its rules."""
    counts: dict[str, int] = {}
    for item in listing.get("nftables", ()):
        if "chain" in item:
            counts.setdefault(item["chain"]["name"], 0)
        if "rule" in item:
            counts[item["rule"]["chain"]] = counts.get(item["rule"]["chain"], 0) + 1
    return counts


def as_listing(document: Sequence[Command]) -> dict[str, Any]:
    """What a listing would show after `document` was applied to nothing (enough for the two readers above)."""
    return {"nftables": [command["add"] for command in document if "add" in command]}


def resolver_ports(listing: Mapping[str, Any]) -> tuple[int, ...]:
    """From a sandbox's listing: where 127.0.0.11:53 leads, in the order of the rules."""
    return tuple(
        expression["dnat"].get("port", 0)
        for item in listing.get("nftables", ())
        if "rule" in item and item["rule"]["chain"] == OUTPUT
        for expression in item["rule"]["expr"]
        if isinstance(expression, dict) and "dnat" in expression
    )


@dataclass(frozen=True, slots=True)
class SandboxRules:
    """What a sandbox's table does: where each VIP's chain leads, how many rules there are, where the resolver is."""

    targets: dict[str, tuple[str, ...]]
    counts: dict[str, int]
    resolver: tuple[int, ...]


def wanted_sandbox(seed: str, vips: Mapping[str, Sequence[str]], dns_ports: tuple[int, int]) -> SandboxRules:
    mine = {vip: backends for vip, backends in vips.items() if is_supported(vip)}
    targets: dict[str, tuple[str, ...]] = {OUTPUT: ()}
    targets.update((vip_chain(vip), tuple(rotated(backends, seed))) for vip, backends in mine.items())
    counts = {OUTPUT: _RESOLVER_RULES}
    counts.update((vip_chain(vip), 1 if backends else 2) for vip, backends in mine.items())
    return SandboxRules(targets, counts, dns_ports)


def observed_sandbox(listing: Mapping[str, Any]) -> SandboxRules:
    return SandboxRules(observed_targets(listing), rule_counts(listing), resolver_ports(listing))
