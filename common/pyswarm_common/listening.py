"""A socket to be reached at, of one family or of both."""

from __future__ import annotations

import socket

from .addresses import is_ipv6


def listening_socket(host: str, port: int) -> socket.socket:
    """For TCP; "::" takes IPv4 in as well, which asyncio would not. Raises OSError."""
    family = socket.AF_INET6 if is_ipv6(host) else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=host == "::")
