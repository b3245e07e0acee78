"""What others hand to the tunnels and get from them: public keys and where they are reached. Nothing secret."""

from __future__ import annotations

import msgspec


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
