"""Which of our keys sends to which key of each peer, and what our devices and routes are to be for that. Pure.

Every own device holds every key of every peer, so whatever a peer chooses to send with is received. For sending, each
peer has one pair: the newest keys that have completed a handshake with one another, which proves that both ends hold
them. Only where no pair has, the newest are tried. So a new key is used as soon as it works and never before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyswarm_common.secrecy import shown_without
from pyswarm_overlay.encryption.types import TunnelKey, TunnelPeer

from .addresses import key_address, node_address
from .wireguard import Device, FoundDevice, Peer

KEEPALIVE_S = 25
"""Keeps handshakes fresh, ways through NAT open, and begins the first handshake."""


@dataclass(frozen=True, slots=True, repr=False)
class OwnKey:
    """A key of this node. `slot` numbers its device."""

    number: int
    slot: int
    private: bytes
    public: bytes
    port: int
    made_at: float
    retired_at: float = 0.0
    """Since when it is not announced any more; zero: it is."""

    def __repr__(self) -> str:
        return shown_without(self, "private")

    @property
    def announced(self) -> TunnelKey:
        return TunnelKey(public_key=self.public, port=self.port, number=self.number)


@dataclass(frozen=True, slots=True)
class Pair:
    """A way to a peer: our key's slot and the peer's public key."""

    slot: int
    public_key: bytes
    is_best: bool
    """There is none newer, and it has completed a handshake: nothing is to come."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Devices by slot, and destination -> slot of the device that leads there."""

    devices: dict[int, Device]
    routes: dict[str, int]
    is_settled: bool


def pair_of(keys: Sequence[OwnKey], peer: TunnelPeer, found: Mapping[int, FoundDevice]) -> Pair | None:
    """How to send to the peer; None while it has no key."""
    own = _newest_first(keys)
    theirs = sorted(peer.keys, key=lambda key: -key.number)
    pairs = [(mine, other) for mine in own for other in theirs]
    if not pairs:
        return None
    working = (pair for pair in pairs if _has_handshake(found, pair[0].slot, pair[1].public_key))
    best = next(working, None)
    mine, other = best or pairs[0]
    return Pair(mine.slot, other.public_key, best == pairs[0])


def wanted(
    keys: Sequence[OwnKey], own_address: str, peers: Iterable[TunnelPeer], found: Mapping[int, FoundDevice]
) -> Wanted:
    """Everything that follows from keys, peers and the handshakes so far. A peer that is this node is passed over."""
    entries: dict[int, dict[bytes, Peer]] = {key.slot: {} for key in keys}
    routes: dict[str, int] = {}
    is_settled = True
    for peer in peers:
        pair = pair_of(keys, peer, found) if peer.address != own_address else None
        if pair is None:
            continue
        destination = node_address(peer.address)
        routes[destination] = pair.slot
        is_settled = is_settled and pair.is_best
        for mine in keys:
            for other in peer.keys:
                leads = other.public_key == pair.public_key
                address = destination if leads else None
                entry = Peer((peer.address, other.port), _allowed(other, address), _keepalive_s(mine, other, found))
                entries[mine.slot][other.public_key] = entry
    devices = {key.slot: Device(key.private, key.port, entries[key.slot]) for key in keys}
    return Wanted(devices, routes, is_settled)


def _allowed(other: TunnelKey, destination: str | None) -> frozenset[str]:
    return frozenset({key_address(other.public_key)} | ({destination} if destination else set()))


def _keepalive_s(mine: OwnKey, other: TunnelKey, found: Mapping[int, FoundDevice]) -> int:
    """Setting it begins a handshake. Two that begin at the same moment spoil one another's, and WireGuard then waits
    for five seconds: so the end with the larger key begins only in the pass after the one that made the peer known.
    """
    if mine.retired_at:
        return 0  # what nobody is to use any more falls silent
    device = found.get(mine.slot)
    is_known = device is not None and other.public_key in device.peers
    return KEEPALIVE_S if is_known or mine.public < other.public_key else 0


def _newest_first(keys: Sequence[OwnKey]) -> list[OwnKey]:
    """Those that are announced; what is retired only receives."""
    return sorted((key for key in keys if not key.retired_at), key=lambda key: -key.number)


def _has_handshake(found: Mapping[int, FoundDevice], slot: int, public_key: bytes) -> bool:
    device = found.get(slot)
    peer = device.peers.get(public_key) if device is not None else None
    return peer is not None and peer.handshake_at > 0
