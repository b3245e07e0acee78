"""Whether this host can do what the overlay needs, found out by doing it in a scratch namespace.

Blocking; run it in a thread of its own. It leaves nothing: the namespace goes with its thread.
"""

from __future__ import annotations

import os
from ipaddress import ip_address

from pyswarm_common.errors import InvalidArgument, Unsupported

from .core import host_rules, names
from .core.host_rules import Peer
from .core.port_rules import Listener, Target
from .kernel import libc, links, nft, rtnl
from .kernel.netlink import NETLINK_NETFILTER, KernelRefusal, Message, Netlink
from .types import OverlayConfig
from .vip_rules import VipRules

_PEERS = (Peer("192.0.2.2", ("10.0.0.2", "fd01::2"), "02:42:0a:00:00:02", 2),)
_TARGETS = tuple(Target(address, 80, address, True) for address in ("172.18.0.2", "172.18.0.3", "fd00::2", "fd00::3"))
_LISTENERS = (
    Listener("tcp", 80, "", _TARGETS, answers_nodes=True),
    Listener("udp", 80, "192.0.2.1", _TARGETS, is_sticky=True),
    Listener("sctp", 80, "", _TARGETS),
    Listener("tcp", 81, "", ()),
)


def check(config: OverlayConfig) -> None:
    """Raises `Unsupported` or `InvalidArgument` with one sentence that says what is missing."""
    names.check_prefix(config.prefix)
    try:
        ip_address(config.node_address)
    except ValueError:
        raise InvalidArgument(f"node address {config.node_address!r} is not an IP address") from None
    if os.geteuid() != 0:
        raise Unsupported("overlay networks need root: start pyswarmd as root")
    try:
        libc.unshare_net()
    except OSError as error:
        raise Unsupported(
            f"cannot make a network namespace ({error.strerror}): the kernel or a container forbids it"
        ) from None
    _devices(config)
    _rules()


def _devices(config: OverlayConfig) -> None:
    netlink = Netlink()
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _try(netlink, "veth pairs", "veth", rtnl.new_veth(rtnl.VethEnd("v", 1500), rtnl.VethEnd("w", 1500)))
        veth = rtnl.read_link(netlink, "v")
        assert veth is not None, "a device that was just made"
        end = rtnl.VethEnd("m", 1500)
        _try(netlink, "macvlan devices", "macvlan", links.new_macvlan(veth.index, "bridge", end))
        vxlan = rtnl.new_vxlan("x", 1, config.node_address, config.data_path_port, 1400, home)
        _try(netlink, "VXLAN", "vxlan", vxlan)
    finally:
        os.close(home)
        netlink.close()


def _try(netlink: Netlink, feature: str, module: str, message: Message) -> None:
    try:
        netlink.transact([message])
    except KernelRefusal as refusal:
        reason = os.strerror(refusal.errno or 0)
        raise Unsupported(f"this kernel has no {feature} ({reason}): load the module {module!r}") from None


def _rules() -> None:
    vips = {"10.0.0.2": ("10.0.0.3", "10.0.0.4"), "10.0.0.5": ()}
    wanted = VipRules("t", "", vips, (1, 2), ipv6=False)
    subnets, own = ("172.18.0.0/16", "fd00::/64"), ("10.0.0.1", "fd01::1")
    host = host_rules.HostRules("u", "b*", subnets, "i", own, _LISTENERS, _PEERS, keeps_clients=True, mark=0x70010000)
    try:
        netfilter = Netlink(NETLINK_NETFILTER)
        wanted.write(netfilter)
        netfilter.close()
        nft.run(host_rules.host_document(host))
    except (OSError, nft.NftRefused) as error:
        raise Unsupported(
            "this kernel lacks nftables with NAT, numgen, hash, fib, ct (with timeouts), rt or reject: "
            f"load nft_nat, nft_numgen, nft_hash, nft_fib_inet, nft_ct, nft_reject_inet ({error})"
        ) from None
