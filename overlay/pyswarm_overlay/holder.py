"""Sockets that hold this host's published ports, so that nobody else can take them and a port that is taken is noticed.

They are bound and never listen. A port is held in every family and protocol that it is published in, or not at all.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass

_SCTP = 132
_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, _SCTP),
}
_ANY_V4, _ANY_V6 = "0.0.0.0", "::"  # noqa: S104  (published to everybody, on request)
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


@dataclass(frozen=True, slots=True)
class PortKey:
    """A port of this host, as the kernel hands it out. Without a `host_ip` it is that of all addresses."""

    protocol: str
    port: int
    host_ip: str = ""
    is_shared: bool = False
    """With the relay, which listens on it."""

    def __str__(self) -> str:
        where = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip or _ANY_V4
        return f"{where}:{self.port}"


class NoSuchAddress(Exception):
    """The port is to be published at an address that this host does not have."""


class PortHolder:
    """Who has which port."""

    def __init__(self) -> None:
        self._held: dict[PortKey, tuple[tuple[socket.socket, ...], str]] = {}

    def hold(self, key: PortKey, owner: str) -> bool:
        """False when another owner, or another program of this host, has it. Raises NoSuchAddress."""
        held = self._held.get(key)
        if held is not None:
            return held[1] == owner
        bound = _bind_all(key)
        if bound is None:
            return False
        self._held[key] = (bound, owner)
        return True

    def release(self, key: PortKey) -> None:
        bound, _owner = self._held.pop(key, ((), ""))
        for one in bound:
            one.close()

    def keep(self, owner_prefix: str, wanted: Iterable[PortKey]) -> None:
        """Release what owners of that prefix hold beyond `wanted`."""
        kept = set(wanted)
        for key, (_bound, owner) in list(self._held.items()):
            if owner.startswith(owner_prefix) and key not in kept:
                self.release(key)

    def release_owner(self, owner: str) -> None:
        for key, (_bound, holder) in list(self._held.items()):
            if holder == owner:
                self.release(key)

    def close(self) -> None:
        for key in list(self._held):
            self.release(key)


def _bind_all(key: PortKey) -> tuple[socket.socket, ...] | None:
    """One for each family; None: somebody else has it in one of them."""
    bound: list[socket.socket] = []
    try:
        for address in (key.host_ip,) if key.host_ip else (_ANY_V4, _ANY_V6):
            one = _bind(key, address)
            if one is not None:
                bound.append(one)
    except OSError as error:
        for one in bound:
            one.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        if error.errno == errno.EADDRNOTAVAIL:
            raise NoSuchAddress(key.host_ip) from None
        raise
    return tuple(bound)


def _bind(key: PortKey, address: str) -> socket.socket | None:
    """None where the kernel has no such family or protocol: then nobody can take the port there either."""
    kind, protocol = _KINDS[key.protocol]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        bound = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        if error.errno in _NO_SUCH_FAMILY:
            return None
        raise
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        if key.is_shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address, key.port))
    except OSError as error:
        bound.close()
        if family == socket.AF_INET6 and address == _ANY_V6 and error.errno == errno.EADDRNOTAVAIL:
            return None  # IPv6 is switched off here
        raise
    return bound
