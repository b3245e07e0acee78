"""Where a host:port with a name leads now: asked of the machine's resolver (and its /etc/hosts) each time.

gRPC's own resolver keeps answers and does not read /etc/hosts as the machine does: names are resolved before dialling.
Seeds are names, and the last resort of nodes whose managers have all moved: an old answer would be of no use.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

RESOLVE_TIMEOUT_S = 3.0


def is_named(address: str) -> bool:
    """The host is a name, not an IP address."""
    host = address.rpartition(":")[0]
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return True
    return False


async def resolved(address: str) -> list[str]:
    """The IP addresses with the port; nothing if the name leads nowhere, or nobody says so in time."""
    if not is_named(address):
        return [address]
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError, TimeoutError):  # ValueError: no name that could be asked for
        return []
    hosts = dict.fromkeys(str(entry[4][0]) for entry in found)
    return [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in hosts]
