"""One pass over this host's tunnels: devices, their peers, addresses and routes, brought to what keys and peers say.

Level-triggered, as everything here: what is there is read, what is wanted follows from it (`core.peers`), the
difference is written; a second pass changes nothing. Decides neither when keys change nor who the peers are. Blocking.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyswarm_overlay.ground import Ground

from .core import peers as core
from .core.addresses import key_address, node_address
from .core.peers import OwnKey, Wanted
from .core.wireguard import Endpoint, FoundDevice, difference
from .devices import Kind
from .types import TunnelPeer

ENCRYPTION_OVERHEAD = 80
"""Of a WireGuard packet over IPv6; over IPv4 it is 60, and the other 20 go to VXLAN, which is over IPv6 inside."""
INNER_VXLAN_OVERHEAD = 70
_LEAST_MTU = 1280
SLOTS = (0, 1)


class PortTaken(Exception):
    """Another program has the UDP port of this key."""

    def __init__(self, key: OwnKey) -> None:
        super().__init__(f"UDP port {key.port} is in use")
        self.key = key


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass found and did."""

    found: Mapping[int, FoundDevice]
    """Devices by slot, as they were before the pass."""
    is_settled: bool
    repaired: tuple[str, ...]
    made: tuple[int, ...]
    """Slots whose device had to be made."""


class Tunnels:
    """Of one host; one pass at a time."""

    def __init__(self, ground: Ground, kind: Kind) -> None:
        self._ground = ground
        self._inner = ground.inner
        self.kind = kind
        self._written: dict[int, dict[bytes, Endpoint]] = {slot: {} for slot in SLOTS}
        """Where each key was last said to be, by slot."""

    def name(self, slot: int) -> str:
        return f"{self._ground.config.prefix}-wg{slot}"

    def bring(self, keys: Sequence[OwnKey], peers: Iterable[TunnelPeer]) -> Seen:
        """Everything, for at least one key."""
        repaired = self._inner.keep()
        made = tuple(key.slot for key in keys if self._ensure(key))
        own = self._ground.config.node_address
        addresses = {self.name(key.slot): key_address(key.public) for key in keys}
        found = {key.slot: self.kind.read(self.name(key.slot)) for key in keys}
        wanted = core.wanted(keys, own, peers, found)
        mtu = max(self._ground.overlay_mtu - ENCRYPTION_OVERHEAD + INNER_VXLAN_OVERHEAD, _LEAST_MTU)
        repaired += self._inner.settle(node_address(own), addresses, mtu)
        for key in keys:
            repaired += self._write(key, wanted, found[key.slot])
        repaired += self._sync_routes(keys, wanted)
        self._remove_others({key.slot for key in keys})
        return Seen(found, wanted.is_settled, tuple(repaired), made)

    def _ensure(self, key: OwnKey) -> bool:
        is_made = self.kind.ensure(self.name(key.slot))
        if is_made:
            self._written[key.slot].clear()
        return is_made

    def _write(self, key: OwnKey, wanted: Wanted, found: FoundDevice) -> list[str]:
        device, written = wanted.devices[key.slot], self._written[key.slot]
        change = difference(device, found, written)
        if not change:
            return []
        try:
            self.kind.write(self.name(key.slot), change)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(key) from None
            raise
        self._written[key.slot] = {public: peer.endpoint for public, peer in device.peers.items()}
        return [f"tunnel {self.name(key.slot)}: {len(change.peers)} peers written"]

    def _sync_routes(self, keys: Sequence[OwnKey], wanted: Wanted) -> list[str]:
        """After the peers: a route leads to a device that knows what to do with it."""
        links = self._inner.links()
        source = {key.slot: key_address(key.public) for key in keys}
        routes = {
            destination: (links[self.name(slot)].index, source[slot]) for destination, slot in wanted.routes.items()
        }
        return self._inner.sync_routes(routes)

    def _remove_others(self, slots: set[int]) -> None:
        links = self._inner.links()
        for slot in SLOTS:
            if slot not in slots and (self.name(slot) in links or self.name(slot) in self.kind.processes()):
                self.kind.remove(self.name(slot))
                self._written[slot].clear()

    def remove(self) -> None:
        """Every device, and the namespace."""
        for slot in SLOTS:
            self.kind.remove(self.name(slot))
            self._written[slot].clear()
        self._inner.remove()
