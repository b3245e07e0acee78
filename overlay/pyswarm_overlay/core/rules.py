"""What a listing of a sandbox's nftables table (libnftables' JSON) should show: pure functions.

The sandboxes' tables are written by `nft_wire`, the host's by `host_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .nft_wire import OUTPUT, rotated, rules_of, vip_chain

Command = dict[str, Any]
Expression = dict[str, Any]

_RESOLVER_RULES = 3
"""In a sandbox's output chain: our resolver by UDP and by TCP, and the look-up of the VIP."""


def list_table(table: str, family: str = "ip") -> list[Command]:
    return [{"list": {"table": {"family": family, "name": table}}}]


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


def wanted_sandbox(
    seed: str, vips: Mapping[str, Sequence[str]], dns_ports: tuple[int, int], *, ipv6: bool
) -> SandboxRules:
    """Both families' tables together: their chains have different names, but for the hooks'."""
    mine = {vip: backends for vip, backends in vips.items() if ipv6 or ":" not in vip}
    targets: dict[str, tuple[str, ...]] = {OUTPUT: ()}
    targets.update((vip_chain(vip), tuple(rotated(backends, seed))) for vip, backends in mine.items())
    counts = {OUTPUT: _RESOLVER_RULES + int(ipv6)}
    counts.update((vip_chain(vip), rules_of(backends)) for vip, backends in mine.items())
    return SandboxRules(targets, counts, dns_ports)


def observed_sandbox(listing: Mapping[str, Any]) -> SandboxRules:
    return SandboxRules(observed_targets(listing), rule_counts(listing), resolver_ports(listing))
