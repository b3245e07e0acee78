"""nftables documents (libnftables' JSON), as pure functions, and the way back from a listing.

Two tables exist. In every sandbox: VIPs to backends, and 127.0.0.11:53 to our resolver. In the host's namespace:
published ports, egress NAT and what keeps others from going straight to sandboxes. Both carry our prefix in their name; no
other table is ever touched. A document replaces its table as one transaction; connections that run keep running, since
their translation lives in conntrack.

Backends are counted through (`numgen inc`), starting at a place that differs from client to client: a hundred clients
that each send one request must not all reach the same backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from typing import Any

Command = dict[str, Any]
Expression = dict[str, Any]

DSTNAT_PRIORITY = -100
SRCNAT_PRIORITY = 100
RAW_PRIORITY = -300
RESOLVER = "127.0.0.11"


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


def rotated(backends: Sequence[str], seed: str) -> list[str]:
    """The backends in order, beginning at a place that follows from `seed`."""
    if not backends:
        return []
    start = int.from_bytes(blake2s(seed.encode(), digest_size=4).digest(), "big") % len(backends)
    return [*backends[start:], *backends[:start]]


def vip_chain(vip: str) -> str:
    return "vip_" + vip.replace(".", "_").replace(":", "_")


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

    def flush(self, chain: str) -> Command:
        return {"flush": {"chain": {"family": "ip", "table": self.name, "name": chain}}}

    def remove(self, chain: str) -> Command:
        return {"delete": {"chain": {"family": "ip", "table": self.name, "name": chain}}}

    def rule(self, chain: str, *expressions: Expression) -> Command:
        return {"add": {"rule": {"family": "ip", "table": self.name, "chain": chain, "expr": list(expressions)}}}

    def verdict_map(self, name: str, key: str) -> Command:
        return {"add": {"map": {"family": "ip", "table": self.name, "name": name, "type": key, "map": "verdict"}}}

    def element(self, verb: str, name: str, key: object, chain: str) -> Command:
        elements = [[key, {"goto": {"target": chain}}]]
        return {verb: {"element": {"family": "ip", "table": self.name, "name": name, "elem": elements}}}


def sandbox_document(
    table: str, seed: str, vips: Mapping[str, Sequence[str]], dns_ports: tuple[int, int]
) -> list[Command]:
    """The whole table of one sandbox. `dns_ports` are our resolver's UDP and TCP port at 127.0.0.11."""
    write = _Table(table)
    document = _replace_table(table)
    document.append(write.base("output", "nat", "output", DSTNAT_PRIORITY))
    document.append(write.verdict_map("vips", "ipv4_addr"))
    for protocol, port in zip(("udp", "tcp"), dns_ports, strict=True):
        document.append(
            write.rule(
                "output",
                _match(_field("ip", "daddr"), RESOLVER),
                _match(_field(protocol, "dport"), 53),
                {"dnat": {"addr": RESOLVER, "port": port}},
            )
        )
    document.append(write.rule("output", {"vmap": {"key": _field("ip", "daddr"), "data": "@vips"}}))
    for vip, backends in vips.items():
        document += put_vip(table, seed, vip, backends, exists=False)
    return document


def put_vip(table: str, seed: str, vip: str, backends: Sequence[str], *, exists: bool) -> list[Command]:
    """Create a VIP, or replace the backends of one that exists."""
    if ":" in vip:
        return []
    write = _Table(table)
    chain = vip_chain(vip)
    document = [write.flush(chain)] if exists else [write.chain(chain)]
    document += [write.rule(chain, *expressions) for expressions in _vip_rules(rotated(backends, seed))]
    if not exists:
        document.append(write.element("add", "vips", vip, chain))
    return document


def remove_vip(table: str, vip: str) -> list[Command]:
    if ":" in vip:
        return []
    write = _Table(table)
    chain = vip_chain(vip)
    return [write.element("delete", "vips", vip, chain), write.flush(chain), write.remove(chain)]


def _vip_rules(backends: Sequence[str]) -> list[list[Expression]]:
    """No backend: say so at once, instead of letting the client wait."""
    if not backends:
        tcp = _match(_meta("l4proto"), "tcp")
        return [[tcp, {"reject": {"type": "tcp reset"}}], [{"reject": {"type": "icmp", "expr": "host-unreachable"}}]]
    return [[{"dnat": {"addr": _choose(backends)}}]]


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
                if isinstance(expression, dict) and "dnat" in expression and rule["chain"] != "output":
                    found[rule["chain"]] = _addresses(expression["dnat"]["addr"])
    return found


def _addresses(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, dict) and "map" in value:
        return tuple(str(pair[1]) for pair in value["map"]["data"]["set"])
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
        if "rule" in item and item["rule"]["chain"] == "output"
        for expression in item["rule"]["expr"]
        if isinstance(expression, dict) and "dnat" in expression
    )
