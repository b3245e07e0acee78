"""The PROXY protocol, version 2: the header that tells a server who its client is. Pure.

Written only, never read: whoever sends one to a published port is not believed, it goes on as data.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION_2_PROXY = 0x21
_TCP_OVER_IPV4, _TCP_OVER_IPV6 = 0x11, 0x21


def header(client: tuple[str, int], server: tuple[str, int]) -> bytes:
    """`client`: who connected; `server`: the address and port that it connected to. Both of one family."""
    source, destination = ip_address(client[0]).packed, ip_address(server[0]).packed
    if len(source) != len(destination):
        raise ValueError(f"{client[0]} and {server[0]} are not of one family")
    family = _TCP_OVER_IPV4 if len(source) == 4 else _TCP_OVER_IPV6
    addresses = source + destination + struct.pack(">HH", client[1], server[1])
    return _SIGNATURE + struct.pack(">BBH", _VERSION_2_PROXY, family, len(addresses)) + addresses
