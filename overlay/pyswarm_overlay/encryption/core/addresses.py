"""Addresses inside the tunnels, derived and never handed out.

They exist only in the namespace of the tunnels, so nothing of the host can collide with them, and they are 96 bits of a
hash, so no two nodes or keys do. A node's address follows from its data-path address, which is what network tables call
it by: VXLAN needs to know nothing of keys. A key's address follows from the public key: it is the source of what that
key sends, since WireGuard lets a source address come from one key only.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

_PREFIX = bytes.fromhex("fd707377")
"""A unique local prefix (RFC 4193) of our own; 96 bits remain."""


@lru_cache(maxsize=1 << 14)
def node_address(data_path_address: str) -> str:
    """Where the tunnels' VXLAN packets to that node go."""
    return _derived(b"node", ip_address(data_path_address).packed)


@lru_cache(maxsize=1 << 14)
def key_address(public_key: bytes) -> str:
    """Where what that key sends comes from."""
    return _derived(b"key", public_key)


def is_inner(address: str) -> bool:
    """Whether it is one of these."""
    return ip_address(address).packed[:4] == _PREFIX


def _derived(kind: bytes, value: bytes) -> str:
    return str(IPv6Address(_PREFIX + hashlib.blake2s(value, digest_size=12, person=kind).digest()))
