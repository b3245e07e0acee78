"""What every part of one host stands on: the configuration, the host's sockets, the threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyswarm_common.errors import FailedPrecondition

from .core import subnets
from .core.names import check_id
from .encryption.inner import Inner
from .kernel import sysctl
from .kernel.netlink import Netlink
from .kernel.nft import Context
from .kernel.routes import read_routed_networks
from .kernel.threads import Threads
from .records import GatewayRecord, Records
from .types import OverlayConfig
from .underlay import Underlay


@dataclass(frozen=True, slots=True)
class Ground:
    """Made once by `OverlayHost.open`. The sockets and the nftables context belong to the host's own namespace."""

    config: OverlayConfig
    netlink: Netlink
    netfilter: Netlink
    nft: Context
    threads: Threads
    underlay: Underlay
    gateway_subnet: str
    inner: Inner
    """Where encrypted networks send."""
    gateway_subnet6: str | None = None
    """None: this host has no IPv6, or is to use none for ways out."""

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
    def underlay_mtu(self) -> int:
        """Of the ways to the peers, now."""
        return self.underlay.mtu

    @property
    def overlay_mtu(self) -> int:
        """Of networks that have none of their own, now."""
        return self.underlay.overlay_mtu


def gateway_subnet(netlink: Netlink, configured: str, records: Records) -> str:
    """The one we have, or a free one: the configured subnet may be another program's (Docker's, say) on this host."""
    known = records.gateway()
    if known is not None and known.configured == configured:
        return known.subnet
    chosen = subnets.choose(configured, read_routed_networks(netlink))
    if chosen is None:
        raise FailedPrecondition(f"every private subnet has a route on this host, {configured} too: free one of them")
    records.save_gateway(GatewayRecord(configured=configured, subnet=chosen))
    return chosen


def gateway_subnet6(netlink: Netlink, configured: str, records: Records) -> str | None:
    """Likewise, once the IPv4 one is chosen; none where this host has no IPv6."""
    known = records.gateway()
    if not sysctl.has_ipv6() or not configured:
        return None
    if known is not None and known.subnet6 is not None and known.configured6 == configured:
        return known.subnet6
    chosen = subnets.choose_ipv6(configured, read_routed_networks(netlink))
    if known is not None and chosen is not None:
        records.save_gateway(msgspec.structs.replace(known, subnet6=chosen, configured6=configured))
    return chosen
