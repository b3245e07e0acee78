"""A WireGuard device as wanted and as found, and the difference. Pure.

Nothing here is about the kernel or about `wireguard-go`: `uapi` and `genetlink` put a change into the words of either.
A change never takes an address from a key before another has it, and never empties a key's addresses for a moment:
packets that arrive meanwhile would be dropped. Where a peer is is written when that changes only: WireGuard itself
follows a peer whose packets come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyswarm_common.secrecy import shown_without

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Peer:
    """One key at the other end. `allowed` are single addresses: what it may send from, and what is sent to it."""

    endpoint: Endpoint
    allowed: frozenset[str]
    keepalive_s: int


@dataclass(frozen=True, slots=True)
class FoundPeer:
    endpoint: Endpoint | None
    allowed: frozenset[str]
    keepalive_s: int
    handshake_at: float = 0.0
    """Of the last completed one; zero: never. Both ends hold each other's key then."""
    received: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class Device:
    """As wanted."""

    private_key: bytes
    port: int
    peers: Mapping[bytes, Peer]

    def __repr__(self) -> str:
        return shown_without(self, "private_key")


@dataclass(frozen=True, slots=True, repr=False)
class FoundDevice:
    private_key: bytes = b""
    port: int = 0
    peers: Mapping[bytes, FoundPeer] = field(default_factory=dict)

    def __repr__(self) -> str:
        return shown_without(self, "private_key")


@dataclass(frozen=True, slots=True)
class PeerChange:
    """What is None stays as it is."""

    public_key: bytes
    is_removed: bool = False
    endpoint: Endpoint | None = None
    keepalive_s: int | None = None
    allowed: tuple[str, ...] = ()
    """Added, and so taken from whichever key had them."""
    is_replaced: bool = False
    """`allowed` is all there is to be."""


@dataclass(frozen=True, slots=True, repr=False)
class DeviceChange:
    """In this order, peers too."""

    private_key: bytes | None = None
    port: int | None = None
    peers: tuple[PeerChange, ...] = ()

    def __repr__(self) -> str:
        return shown_without(self, "private_key")

    def __bool__(self) -> bool:
        return self.private_key is not None or self.port is not None or bool(self.peers)


def difference(wanted: Device, found: FoundDevice, written: Mapping[bytes, Endpoint]) -> DeviceChange:
    """What turns the one into the other. `written` is where each key was last said to be."""
    owner = {address: key for key, peer in wanted.peers.items() for address in peer.allowed}
    changes = [
        _peer_change(key, peer, found.peers.get(key), owner, written.get(key)) for key, peer in wanted.peers.items()
    ]
    removals = [PeerChange(key, is_removed=True) for key in found.peers if key not in wanted.peers]
    return DeviceChange(
        private_key=wanted.private_key if wanted.private_key != found.private_key else None,
        port=wanted.port if wanted.port != found.port else None,
        peers=(*(change for change in changes if change is not None), *removals),
    )


def _peer_change(
    key: bytes, wanted: Peer, found: FoundPeer | None, owner: Mapping[str, bytes], written: Endpoint | None
) -> PeerChange | None:
    if found is None:
        return PeerChange(key, False, wanted.endpoint, wanted.keepalive_s, tuple(sorted(wanted.allowed)))
    # What goes to another key goes with that key's change.
    is_replaced = any(address not in owner for address in found.allowed)
    missing = wanted.allowed if is_replaced else wanted.allowed - found.allowed
    change = PeerChange(
        key,
        endpoint=wanted.endpoint if wanted.endpoint != written else None,
        keepalive_s=wanted.keepalive_s if wanted.keepalive_s != found.keepalive_s else None,
        allowed=tuple(sorted(missing)),
        is_replaced=is_replaced,
    )
    return change if change != PeerChange(key) else None
