"""An encrypted overlay network on this host: as any other, but its VXLAN packets have no way except through a tunnel.

The VXLAN device's socket is in the tunnels' namespace, and its remote ends are the peers' addresses in there.
"""

from __future__ import annotations

from pyswarm_overlay.core.names import VXLAN
from pyswarm_overlay.core.tables import Tunnels
from pyswarm_overlay.network import Devices

from . import messages
from .core.addresses import node_address
from .tunnels import ENCRYPTION_OVERHEAD

_LEAST_MTU = 68


class SealedDevices(Devices):
    """The devices of one encrypted network."""

    @property
    def mtu(self) -> int:
        return self._own_mtu or max(self._ground.overlay_mtu - ENCRYPTION_OVERHEAD, _LEAST_MTU)

    @property
    def _own_end(self) -> str:
        """The route to each peer says it; so a tunnel that was made for plaintext is told apart."""
        return ""

    def _create_vxlan(self) -> None:
        message = messages.new_sealed_vxlan(VXLAN, self._vni, self._ground.config.data_path_port, self.mtu, self._fd)
        self._ground.inner.netlink().transact([message])

    def as_sent(self, tunnels: Tunnels) -> Tunnels:
        forwarding = {mac: node_address(remote) for mac, remote in tunnels.forwarding.items()}
        return Tunnels(forwarding, tunnels.neighbours)
