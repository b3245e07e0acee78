"""Nodes that rotate while managers carry the news slowly: whatever is sent at any moment is received.

A model of several nodes by the pure core alone. WireGuard is modelled by what it promises: a handshake completes when
both devices hold each other's key; a packet is let in if its receiver still has the device it was sent to, and knows
the sender's key there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from itertools import permutations, product

import pytest

from pyswarm_overlay.encryption.core import rotation
from pyswarm_overlay.encryption.core.addresses import node_address
from pyswarm_overlay.encryption.core.peers import OwnKey, wanted
from pyswarm_overlay.encryption.core.rotation import Quiet, Step
from pyswarm_overlay.encryption.core.wireguard import Device, FoundDevice, FoundPeer
from pyswarm_overlay.encryption.types import TunnelKey, TunnelPeer

PERIOD_S = 60.0
TICK_S = 0.25


@dataclass
class Node:
    name: str
    keys: tuple[OwnKey, ...]
    peers: dict[str, TunnelPeer] = field(default_factory=dict)
    devices: dict[int, Device] = field(default_factory=dict)
    routes: dict[str, int] = field(default_factory=dict)
    handshakes: dict[tuple[int, bytes], float] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    quiet: Quiet = field(default_factory=Quiet)
    rotations: int = 0

    @property
    def announced(self) -> tuple[TunnelKey, ...]:
        return tuple(key.announced for key in self.keys if not key.retired_at)

    def found(self) -> dict[int, FoundDevice]:
        made = {}
        for slot, device in self.devices.items():
            held = {
                public: FoundPeer(
                    peer.endpoint, peer.allowed, 25, self.handshakes.get((slot, public), 0.0), self.received[slot]
                )
                for public, peer in device.peers.items()
            }
            made[slot] = FoundDevice(device.private_key, device.port, held)
        return made

    def act(self, now: float, serial: int) -> None:
        """What the supervisor does: a pass, then perhaps a step."""
        self.bring()
        found = self.found()
        self.quiet = self.quiet.seen(found.get(self.keys[0].slot), now)
        match rotation.next_step(self.keys, self.peers.values(), found, self.quiet, now, PERIOD_S):
            case Step.MAKE:
                self.keys = (*self.keys, new_key(self.name, serial, 1 - self.keys[0].slot, now))
                self.bring()
            case Step.RETIRE:
                self.quiet = Quiet()
                self.keys = (replace(self.keys[0], retired_at=now), self.keys[1])
            case Step.DROP:
                self.keys = self.keys[1:]
                self.rotations += 1
                self.bring()
            case Step.STAY:
                pass

    def bring(self) -> None:
        made = wanted(self.keys, self.name, self.peers.values(), self.found())
        for slot in set(self.devices) - set(made.devices):
            self.handshakes = {way: at for way, at in self.handshakes.items() if way[0] != slot}
        self.devices, self.routes = made.devices, made.routes


def new_key(name: str, serial: int, slot: int, now: float) -> OwnKey:
    public = f"{name} {serial}".encode().ljust(32, b".")
    return OwnKey(serial, slot, public, public, 51820 + slot, now)


def shake(nodes: dict[str, Node], now: float, rng: random.Random) -> None:
    """Handshakes between devices that hold each other's keys complete, sooner or later."""
    for one, other in permutations(nodes.values(), 2):
        for mine, theirs in product(one.keys, other.keys):
            here, there = one.devices.get(mine.slot), other.devices.get(theirs.slot)
            if here is None or there is None or rng.random() < 0.5:
                continue
            if theirs.public in here.peers and mine.public in there.peers:
                one.handshakes[mine.slot, theirs.public] = now
                other.handshakes[theirs.slot, mine.public] = now


def is_received(sender: Node, receiver: Node) -> bool:
    """Whether a packet that is sent now is let in."""
    destination = node_address(receiver.name)
    if destination not in sender.routes:
        return False
    device = sender.devices[sender.routes[destination]]
    mine = next(key for key in sender.keys if key.slot == sender.routes[destination])
    target = next(public for public, peer in device.peers.items() if destination in peer.allowed)
    for key in receiver.keys:
        if key.public == target:
            held = receiver.devices.get(key.slot)
            receiver.received[key.slot] += 1
            return held is not None and mine.public in held.peers
    return False


@pytest.mark.parametrize("seed", range(8))
def test_no_packet_is_lost_whatever_the_managers_delay(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"192.0.2.{number}" for number in range(1, 5)]
    nodes = {name: Node(name, (new_key(name, 1, 0, rng.uniform(-PERIOD_S, 0)),)) for name in names}
    news: list[tuple[float, str, TunnelPeer]] = []
    told: dict[str, tuple[TunnelKey, ...]] = {}
    now, serial = 0.0, 1
    for tick in range(1600):
        now += TICK_S
        for name, node in nodes.items():
            if told.get(name) != node.announced:
                told[name] = node.announced
                said = TunnelPeer(node_id=name, address=name, keys=node.announced)
                # Each receiver hears in order, but when it may: a manager that nobody reaches for a while.
                news += [(now + rng.choice([0.0, 0.5, 4.0]), other, said) for other in names if other != name]
        due = [item for item in news if item[0] <= now]
        news = [item for item in news if item[0] > now]
        for _, name, said in due:
            known = nodes[name].peers.get(said.node_id)
            if known is None or known.keys[-1].number <= said.keys[-1].number:
                nodes[name].peers[said.node_id] = said
        for name in rng.sample(names, len(names)):
            serial += 1
            nodes[name].act(now, serial)
        shake(nodes, now, rng)
        if tick > 100:  # by then all have met
            lost = [(a, b) for a in names for b in names if a != b and not is_received(nodes[a], nodes[b])]
            assert not lost, (tick, lost)
    assert all(node.rotations >= 3 for node in nodes.values())
