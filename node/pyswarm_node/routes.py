"""Which subnets this host routes itself or has addresses in: networks of the cluster keep clear of them.

Decides what counts: routes of the main tables and the host's own addresses, but neither default routes, single
addresses of others, link-local or loopback ones, nor what hangs on our own interfaces. Never changes anything. Who acts
next: the agent tells the managers when the answer is another than before, and the planner chooses subnets elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import accumulate, islice
from pathlib import Path

from pyswarm_overlay.kernel import rtnl
from pyswarm_overlay.kernel.netlink import Netlink

_log = logging.getLogger(__name__)

MAX_BYTES = 3072
"""As much as one node tells, beside all else that it says of itself. Of more the largest are told: they leave the least
room."""
_MAX_LINES = 20_000
_FIELD_BYTES = 2
_PERIOD_S = 15.0
_ROUTES, _ROUTES6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
_OUR_DEVICES = "ps-"  # as OverlayConfig has it
_UP = 1
_REJECT = 0x0200

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


def routed_subnets() -> tuple[str, ...]:
    """As CIDRs, those inside of others left out, IPv4 first."""
    found = [*_read(_ROUTES, parse_route), *_read(_ROUTES6, parse_route6), *_own_addresses()]
    return told(subnet for device, subnet in found if not is_ours(device))


def told(subnets: Iterable[Subnet]) -> tuple[str, ...]:
    """The largest of what matters, in one order."""
    kept = [subnet for subnet in subnets if matters(subnet)]
    merged: list[Subnet] = [
        *ipaddress.collapse_addresses(subnet for subnet in kept if isinstance(subnet, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(subnet for subnet in kept if isinstance(subnet, ipaddress.IPv6Network)),
    ]
    largest = sorted(merged, key=lambda subnet: (subnet.prefixlen, subnet.version, subnet.network_address.packed))
    sizes = accumulate(len(str(subnet)) + _FIELD_BYTES for subnet in largest)
    chosen = [subnet for subnet, size in zip(largest, sizes, strict=True) if size <= MAX_BYTES]
    return tuple(map(str, sorted(chosen, key=lambda subnet: (subnet.version, subnet.network_address.packed))))


def matters(subnet: Subnet) -> bool:
    """Whether a network of the cluster could be in its way."""
    first = subnet.network_address
    return bool(subnet.prefixlen) and not (first.is_loopback or first.is_link_local or first.is_multicast)


def is_ours(device: str) -> bool:
    return device.startswith(_OUR_DEVICES)


def parse_route(line: str) -> tuple[str, Subnet] | None:
    """A line of /proc/net/route; None for what is no route to a subnet."""
    fields = line.split()
    try:
        flags = int(fields[3], 16)
        address, mask = (int.from_bytes(bytes.fromhex(fields[index]), "little") for index in (1, 7))
        subnet = ipaddress.IPv4Network((address, mask.bit_count()))
    except (IndexError, ValueError):  # the line of headings, or a mask with holes
        return None
    is_route = flags & _UP and not flags & _REJECT and subnet.prefixlen < 32
    return (fields[0], subnet) if is_route else None


def parse_route6(line: str) -> tuple[str, Subnet] | None:
    """Likewise of /proc/net/ipv6_route."""
    fields = line.split()
    try:
        flags, length = int(fields[8], 16), int(fields[1], 16)
        subnet = ipaddress.IPv6Network((bytes.fromhex(fields[0]), length))
    except (IndexError, ValueError):
        return None
    is_route = flags & _UP and not flags & _REJECT and subnet.prefixlen < 128
    return (fields[9], subnet) if is_route and len(fields) > 9 else None


def _read(path: Path, parse: Callable[[str], tuple[str, Subnet] | None]) -> Iterator[tuple[str, Subnet]]:
    try:
        with path.open() as lines:
            yield from filter(None, map(parse, islice(lines, _MAX_LINES)))
    except OSError:  # no IPv6 here
        return


def _own_addresses() -> Iterator[tuple[str, Subnet]]:
    """Each by itself: the subnet around it has a route, unless it is behind something."""
    with closing(Netlink()) as netlink:
        found = rtnl.read_addresses(netlink)
    for index, addresses in found.items():
        try:
            device = socket.if_indextoname(index)
        except OSError:  # it has just gone
            continue
        for address in addresses:
            yield device, ipaddress.ip_network(ipaddress.ip_interface(address).ip)


async def watch_routes(changed: Callable[[], None], period_s: float = _PERIOD_S) -> None:
    """For ever: says so when the answer has become another."""
    known = await asyncio.to_thread(routed_subnets)
    while True:
        await asyncio.sleep(period_s)
        found = await asyncio.to_thread(routed_subnets)
        if found != known:
            _log.info("this host routes %s now", ", ".join(found[:8]) or "nothing of its own")
            known = found
            changed()
