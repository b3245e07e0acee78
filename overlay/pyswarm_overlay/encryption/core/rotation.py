"""When a node makes another key, when it stops announcing the old one, and when that one's device goes. Pure.

    one key --- it is old enough ---> two, both announced --- every peer that was reached with the old one is reached
    with the new one ---> the old one is retired: announced no more, it only receives --- nothing comes any more --->
    one key

No step is taken by the clock alone but the first: a peer that cannot hear of the new key, since no manager reaches it,
keeps the old one in use for as long as that lasts. Retired keys go after `DRAIN_LIMIT_S` whatever comes, since by then
WireGuard itself has given up the sessions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from pyswarm_overlay.encryption.types import TunnelPeer

from .peers import OwnKey
from .wireguard import FoundDevice

DEFAULT_PERIOD_S = 12 * 3600.0
SHORTEST_PERIOD_S = 60.0
_SPREAD = 0.1
LIVE_S = 180.0
"""A peer whose last handshake is older is not reached: WireGuard makes a new one every two minutes."""
SETTLE_S = 1.0
QUIET_S = 2.0
DRAIN_S = 2.0
DRAIN_LIMIT_S = 180.0


class Step(Enum):
    STAY = "stay"
    MAKE = "make another key"
    RETIRE = "announce the older key no more"
    DROP = "drop the older key"


@dataclass(frozen=True, slots=True)
class Quiet:
    """How much the older device has received, and since when it is so much."""

    received: int = -1
    since: float = 0.0

    def seen(self, device: FoundDevice | None, now: float) -> Quiet:
        received = sum(peer.received for peer in device.peers.values()) if device is not None else 0
        return self if received == self.received else Quiet(received, now)


def period_of(configured_s: float) -> float:
    """What the cluster says, within reason."""
    return max(configured_s or DEFAULT_PERIOD_S, SHORTEST_PERIOD_S)


def due_at(key: OwnKey, period_s: float) -> float:
    """When the key is to be replaced: nodes that began together do not all rotate together."""
    share = int.from_bytes(hashlib.blake2s(key.public, digest_size=4).digest(), "big") / 2**32
    return key.made_at + period_s * (1 - _SPREAD * share)


def next_step(
    keys: Sequence[OwnKey],
    peers: Iterable[TunnelPeer],
    found: Mapping[int, FoundDevice],
    quiet: Quiet,
    now: float,
    period_s: float,
) -> Step:
    """What to do now. `keys` are one or two, the older first."""
    older = keys[0]
    if len(keys) == 1:
        return Step.MAKE if now >= due_at(older, period_s) else Step.STAY
    newer = keys[1]
    if older.retired_at:
        waited = now - older.retired_at
        is_over = waited >= DRAIN_S and now - quiet.since >= QUIET_S
        return Step.DROP if is_over or waited >= DRAIN_LIMIT_S else Step.STAY
    if now - newer.made_at < SETTLE_S:
        return Step.STAY
    has_moved = all(_has_moved(peer, older, newer, found, now) for peer in peers)
    return Step.RETIRE if has_moved else Step.STAY


def _has_moved(peer: TunnelPeer, older: OwnKey, newer: OwnKey, found: Mapping[int, FoundDevice], now: float) -> bool:
    """Whether nothing is lost with the older key: the peer is reached without it, or is not reached at all."""
    keys = [key.public_key for key in peer.keys]
    newest = max(peer.keys, key=lambda key: key.number).public_key if keys else b""
    is_reached = any(now - _handshake(found, older.slot, key) < LIVE_S for key in keys)
    return not is_reached or _handshake(found, newer.slot, newest) > 0


def _handshake(found: Mapping[int, FoundDevice], slot: int, public_key: bytes) -> float:
    device = found.get(slot)
    peer = device.peers.get(public_key) if device is not None else None
    return peer.handshake_at if peer is not None else 0.0
