"""One pass over this host's tunnels: devices, their peers, addresses and routes, brought to what keys and peers say.

Level-triggered, as everything here: what is there is read, what is wanted follows from it (`core.peers`), the
difference is written; a second pass changes nothing. Decides neither when keys change nor who the peers are. Blocking.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyswarm_common.errors import Unavailable
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel.netlink import Message

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


class PortTaken(Unavailable):
    """Another program has the UDP port of this key."""

    def __init__(self, key: OwnKey) -> None:
        super().__init__(f"UDP port {key.port} is in use")
        self.key = key


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass found."""

    found: Mapping[int, FoundDevice]
    """Devices by slot, as they were before the pass."""
    is_settled: bool


class Tunnels:
    """Of one host; one call at a time."""

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
        self._inner.keep()
        for key in keys:
            if self.kind.ensure(self.name(key.slot)):
                self._written[key.slot].clear()
        found, wanted = self._look(keys, peers, self._read_or_replace)
        self._inner.apply(self._settings(keys))
        for key in keys:
            self._write(key, wanted, found[key.slot])
        # After the peers: a route leads to a device that knows what to do with it.
        self._inner.apply(self._routing(keys, wanted))
        self._remove_others({key.slot for key in keys})
        return Seen(found, wanted.is_settled)

    def observe(self, keys: Sequence[OwnKey], peers: Iterable[TunnelPeer]) -> list[str]:
        """What `bring` would change, changing nothing."""
        problems = [] if self._inner.is_kept() else ["the namespace of the tunnels is not mounted"]
        missing = [self.name(key.slot) for key in keys if not self.kind.is_there(self.name(key.slot))]
        if missing:
            return [*problems, *(f"tunnel device {name} is missing" for name in missing)]
        try:
            found, wanted = self._look(keys, peers, self.kind.read)
        except TimeoutError:
            return [*problems, "the process of a tunnel does not answer"]
        for key in keys:
            if difference(wanted.devices[key.slot], found[key.slot], self._written[key.slot]):
                problems.append(f"tunnel device {self.name(key.slot)} has other peers, key or port than wanted")
        changes = [*self._settings(keys), *self._routing(keys, wanted)]
        return problems + [f"tunnels lack: {change.what}" for change in changes]

    def _look(
        self, keys: Sequence[OwnKey], peers: Iterable[TunnelPeer], read: Callable[[str], FoundDevice]
    ) -> tuple[dict[int, FoundDevice], Wanted]:
        found = {key.slot: read(self.name(key.slot)) for key in keys}
        return found, core.wanted(keys, self._ground.config.node_address, peers, found)

    def _read_or_replace(self, name: str) -> FoundDevice:
        try:
            return self.kind.read(name)
        except TimeoutError:
            self.kind.remove(name)
            raise Unavailable(f"the process of tunnel {name} did not answer: it is replaced") from None

    def _settings(self, keys: Sequence[OwnKey]) -> list[Message]:
        own = node_address(self._ground.config.node_address)
        addresses = {self.name(key.slot): key_address(key.public) for key in keys}
        mtu = max(self._ground.overlay_mtu - ENCRYPTION_OVERHEAD + INNER_VXLAN_OVERHEAD, _LEAST_MTU)
        return self._inner.settings(own, addresses, mtu)

    def _write(self, key: OwnKey, wanted: Wanted, found: FoundDevice) -> None:
        device = wanted.devices[key.slot]
        change = difference(device, found, self._written[key.slot])
        if not change:
            return
        try:
            self.kind.write(self.name(key.slot), change)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(key) from None
            raise
        self._written[key.slot] = {public: peer.endpoint for public, peer in device.peers.items()}

    def _routing(self, keys: Sequence[OwnKey], wanted: Wanted) -> list[Message]:
        links = self._inner.links()
        source = {key.slot: key_address(key.public) for key in keys}
        routes = {
            destination: (links[self.name(slot)].index, source[slot]) for destination, slot in wanted.routes.items()
        }
        return self._inner.routing(routes)

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
