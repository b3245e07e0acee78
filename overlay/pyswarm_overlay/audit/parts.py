"""The list of everything that is verified. A part that keeps kernel state of its own is added here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pyswarm_overlay.core.suspects import Place
from pyswarm_overlay.drivers.audit import DriverAudit
from pyswarm_overlay.encryption.audit import TunnelAudit
from pyswarm_overlay.encryption.encryption import Encryption
from pyswarm_overlay.gateway import Gateway
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.ingress import Ingress
from pyswarm_overlay.kernel import monitor, ruleset
from pyswarm_overlay.network import Devices
from pyswarm_overlay.networks import Networks
from pyswarm_overlay.publisher import Publisher
from pyswarm_overlay.sandbox import LiveSandbox
from pyswarm_overlay.sandboxes import Sandboxes
from pyswarm_overlay.verification import Parts, Surroundings, Verification

from .host import HostAudit, HostKeeping, PublishedAudit
from .networks import NetworkAudit, NetworkKeeping
from .relay import RelayAudit
from .sandboxes import SandboxAudit, SandboxKeeping


@dataclass(frozen=True, slots=True)
class Kept:
    """Who keeps what on this host. `live`: the sandboxes that are up."""

    ground: Ground
    gateway: Gateway
    networks: Networks
    sandboxes: Sandboxes
    ingress: Ingress
    publisher: Publisher
    live: Mapping[str, LiveSandbox]
    encryption: Encryption


def verification(kept: Kept, scratch: ruleset.Scratch, sweep: Callable[[], Awaitable[list[str]]]) -> Verification:
    ground, networks, sandboxes, live_by_id = kept.ground, kept.networks, kept.sandboxes, kept.live
    inside = SandboxAudit(ground, sandboxes, live_by_id, networks.policies, scratch)
    outside = HostAudit(ground, kept.gateway, networks, sandboxes, kept.ingress, live_by_id)
    parts = Parts(
        heard=(
            outside,
            PublishedAudit(ground, kept.publisher, scratch),
            NetworkAudit(ground, networks, sandboxes, kept.ingress, live_by_id),
            inside,
        ),
        silent=(
            HostKeeping(outside, ground),
            NetworkKeeping(ground, networks),
            TunnelAudit(kept.encryption),
            RelayAudit(kept.publisher),
            DriverAudit(ground, networks, sandboxes, live_by_id),
            SandboxKeeping(ground, sandboxes, live_by_id),
        ),
    )

    async def number(place: Place) -> int | None:
        return await ground.threads.run(lambda: _number(kept, place))

    def is_ours(place: Place, sender: int) -> bool:
        return place[0] == "sandbox" and inside.is_ours(place[1], sender)

    def name(place: Place) -> str:
        kind, key = place
        live = live_by_id.get(key) if kind == "sandbox" else None
        network = networks.find(key) if kind == "network" else None
        return live.sandbox.hostname if live is not None else network.state.table.name if network is not None else ""

    return Verification(parts, Surroundings(number, is_ours, name, sweep))


def _number(kept: Kept, place: Place) -> int | None:
    """Blocking: by which number the host's namespace calls this one."""
    kind, key = place
    if kind == "sandbox":
        live = kept.live.get(key)
        return None if live is None else monitor.number_of(kept.ground.netlink, live.sockets.netfilter)
    network = kept.networks.find(key) if kind == "network" else None
    if network is None or not isinstance(network.devices, Devices):
        return None
    return monitor.number_of(kept.ground.netlink, network.devices.netlink)
