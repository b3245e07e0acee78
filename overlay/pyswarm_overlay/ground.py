"""What every part of one host stands on: the configuration, the host's sockets, the threads."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from pyswarm_common.errors import FailedPrecondition, InvalidArgument

from .core import subnets
from .core.names import check_id
from .kernel import rtnl
from .kernel.netlink import Netlink
from .kernel.nft import Context
from .kernel.threads import Threads
from .records import GatewayRecord, Records
from .types import OverlayConfig

VXLAN_OVERHEAD_V4 = 50
VXLAN_OVERHEAD_V6 = 70


@dataclass(frozen=True, slots=True)
class Ground:
    """Made once by `OverlayHost.open`. The sockets and the nftables context belong to the host's own namespace."""

    config: OverlayConfig
    netlink: Netlink
    netfilter: Netlink
    nft: Context
    threads: Threads
    underlay_mtu: int
    gateway_subnet: str

    def close(self) -> None:
        self.netlink.close()
        self.netfilter.close()
        self.nft.close()

    @property
    def sandbox_dir(self) -> Path:
        return self.config.run_dir / "netns"

    @property
    def network_dir(self) -> Path:
        return self.config.run_dir / "overlays"

    def sandbox_path(self, sandbox_id: str) -> Path:
        return self.sandbox_dir / check_id("sandbox", sandbox_id)

    def network_path(self, network_id: str) -> Path:
        return self.network_dir / check_id("network", network_id)

    @property
    def overlay_mtu(self) -> int:
        over_v6 = ip_address(self.config.node_address).version == 6
        return self.underlay_mtu - (VXLAN_OVERHEAD_V6 if over_v6 else VXLAN_OVERHEAD_V4)


def underlay_mtu(netlink: Netlink, node_address: str) -> int:
    """Of the interface that has our underlay address; there must be one, or no peer could answer us."""
    holders = rtnl.read_addresses(netlink)
    for link in rtnl.read_links(netlink).values():
        if any(address.partition("/")[0] == node_address for address in holders.get(link.index, ())):
            return min(link.mtu, 65535)
    raise InvalidArgument(
        f"no interface of this host has the node address {node_address}: give one of its own addresses"
    )


def gateway_subnet(netlink: Netlink, configured: str, records: Records) -> str:
    """The one we have, or a free one: the configured subnet may be another program's (Docker's, say) on this host."""
    known = records.gateway()
    if known is not None and known.configured == configured:
        return known.subnet
    chosen = subnets.choose(configured, rtnl.read_routed_networks(netlink))
    if chosen is None:
        raise FailedPrecondition(f"every private subnet has a route on this host, {configured} too: free one of them")
    records.save_gateway(GatewayRecord(configured=configured, subnet=chosen))
    return chosen
