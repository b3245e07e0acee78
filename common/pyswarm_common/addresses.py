"""IP addresses as they are compared: one form for each, and which family it is of. Pure."""

from __future__ import annotations

import ipaddress


def plain_address(text: str) -> str:
    """In its one usual form; that of a caller by IPv4 at a socket of both families ("::ffff:192.0.2.1") as IPv4. What
    is no address stays as it is."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def is_host_address(text: str) -> bool:
    """Whether another machine may be told that a host is there. Not with a zone: it means nothing elsewhere."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text and not (address.is_unspecified or address.is_multicast)


def is_ipv6(address: str) -> bool:
    """Of an address without a port."""
    return ":" in address


def family_name(address: str) -> str:
    """For people: "IPv4" or "IPv6"."""
    return "IPv6" if is_ipv6(address) else "IPv4"
