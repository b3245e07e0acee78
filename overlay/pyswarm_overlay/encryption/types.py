"""What others hand to the tunnels and get from them: public keys and where they are reached. Nothing secret."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec

_KEY_BYTES = 32
_MAX_KEYS = 4


class TunnelKey(msgspec.Struct, frozen=True, kw_only=True):
    """One end of a node's tunnels: a WireGuard public key and the UDP port at which its device listens."""

    public_key: bytes
    port: int
    number: int
    """Rises with each key of the node."""


class TunnelPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A node that shares an encrypted network with this one."""

    node_id: str
    address: str
    """Its data-path address: where its device listens, and what tables call it by."""
    keys: tuple[TunnelKey, ...] = ()
    """More than one while a new one replaces an old one."""


def checked(peer: TunnelPeer) -> TunnelPeer:
    """The peer without what WireGuard would refuse: one wrong entry must not hold up all others."""
    try:
        address = str(ip_address(peer.address))
    except ValueError:
        return TunnelPeer(node_id=peer.node_id, address=peer.address)
    keys = [key for key in peer.keys if len(key.public_key) == _KEY_BYTES and 0 < key.port < 1 << 16]
    return TunnelPeer(node_id=peer.node_id, address=address, keys=tuple(keys[-_MAX_KEYS:]))
