"""How long the kernel remembers a sandbox's idle connections: its nftables messages, ready to send. Pure bytes.

A connection through a VIP is translated as long as the kernel remembers it. Whoever forgets first must be the
application, so established TCP and SCTP connections that a sandbox opens are remembered for `IDLE_S`, whatever the
kernel's own settings are, of the machine or of the namespace. A chain in the output hook says so to the first packet of
each connection; later packets do not come by. (UDP knows no end, so it keeps the kernel's times.)

The tables are apart from the VIPs' because their objects are in use as long as the connections are: removing a table
takes the times from all connections that it gave them to. So they are written where they are missing or broken, and
never just to be sure.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from . import nft_attributes as nft
from .nft_attributes import FamilyPart, attr, expression, nest, text, u32

IDLE_S = 20 * 24 * 3600
"""The kernel counts ticks in 31 bits: 24 days where there are a thousand a second."""
CHAIN = "output"
_HOOK_OUTPUT, _BEFORE_VIPS = 3, -101
_ACCEPT = 1
_OBJECT_TIMEOUT = 7
_PROTOCOLS = {"tcp": (6, 3), "sctp": (132, 4)}
"""Its number, and that of its state "established"."""
_FAMILIES = {"ip": nft.IPV4, "ip6": nft.IPV6}


def families(*, ipv6: bool) -> tuple[str, ...]:
    return ("ip", "ip6") if ipv6 else ("ip",)


def timeout_tables(table: str, *, ipv6: bool, fresh: bool) -> list[FamilyPart]:
    """One table for each family; not `fresh`: in place of those there may be."""
    return [part for family in families(ipv6=ipv6) for part in _table(_FAMILIES[family], table, fresh=fresh)]


def _table(family: int, table: str, *, fresh: bool) -> list[FamilyPart]:
    named = text(1, table)
    parts: list[FamilyPart] = [(family, nft.NEWTABLE, nft.CREATE, named)]
    if not fresh:
        parts += [(family, nft.DELTABLE, 0, named), (family, nft.NEWTABLE, nft.CREATE, named)]
    hook = nest(4, u32(1, _HOOK_OUTPUT), attr(2, struct.pack(">i", _BEFORE_VIPS)))
    parts.append((family, nft.NEWCHAIN, nft.CREATE, named + text(3, CHAIN) + hook + u32(5, _ACCEPT) + text(7, "nat")))
    for name, (protocol, established) in _PROTOCOLS.items():
        times = nest(3, u32(established, IDLE_S))
        which = attr(1, struct.pack(">H", family)) + attr(2, bytes([protocol]))
        made = named + text(2, name) + u32(3, _OBJECT_TIMEOUT) + nest(4, which + times)
        parts.append((family, nft.NEWOBJ, nft.CREATE, made))
    for name in _PROTOCOLS:
        reference = expression("objref", u32(1, _OBJECT_TIMEOUT), text(2, name))
        rule = named + text(2, CHAIN) + nest(4, reference)
        parts.append((family, nft.NEWRULE, nft.CREATE | nft.APPEND, rule))
    return parts


def is_listed(listing: Mapping[str, Any]) -> bool:
    """Whether a listing of one table shows what we write."""
    items = listing.get("nftables", ())
    given = {item["ct timeout"]["name"] for item in items if "ct timeout" in item}
    used = [expression for item in items if "rule" in item for expression in item["rule"]["expr"]]
    hooks = [item["chain"].get("prio") for item in items if "chain" in item]
    return given == set(_PROTOCOLS) and len(used) == len(_PROTOCOLS) and hooks == [_BEFORE_VIPS]
