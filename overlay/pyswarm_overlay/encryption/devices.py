"""WireGuard devices in the tunnels' namespace, of whichever kind this host can have.

`Kind` is what both can do; `KernelKind` asks the kernel, `userspace.UserspaceKind` runs `wireguard-go`. A device is
made in the host's namespace, where its UDP socket stays, and moved. All methods block; nothing here decides what a
device is to hold.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from pyswarm_common.errors import Unsupported
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel import libc, rtnl, sysctl
from pyswarm_overlay.kernel.netlink import KernelRefusal, Netlink

from . import messages
from .core.wireguard import DeviceChange, FoundDevice
from .inner import in_own_thread
from .userspace import PROGRAM, UserspaceKind

_MISSING = (
    f"this node cannot encrypt networks: its kernel has no WireGuard and there is no {PROGRAM}: "
    f"load the module wireguard or install the package {PROGRAM}"
)


class Kind(Protocol):
    """How devices are made and spoken to."""

    name: str

    def ensure(self, device: str) -> bool:
        """Have the device; whether it had to be made, and so holds nothing yet."""
        ...

    def is_there(self, device: str) -> bool:
        """Whether `ensure` would have nothing to do."""
        ...

    def read(self, device: str) -> FoundDevice: ...

    def write(self, device: str, change: DeviceChange) -> None: ...

    def remove(self, device: str) -> None: ...

    def processes(self) -> dict[str, int]:
        """Device -> id of the process that is it."""
        ...


class KernelKind:
    """The kernel's own."""

    name = "kernel"
    _LINK_KIND = "wireguard"

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._inner = ground.inner

    def is_there(self, device: str) -> bool:
        link = self._inner.links().get(device)
        return link is not None and link.kind == self._LINK_KIND

    def ensure(self, device: str) -> bool:
        if self.is_there(device):
            return False
        self.remove(device)  # of another kind, or half made
        host = self._ground.netlink
        host.transact([messages.new_wireguard(device)])
        made = rtnl.read_link(host, device)
        assert made is not None, "a device that was just made"
        host.transact([messages.move_link(made.index, self._inner.fd)])
        return True

    def read(self, device: str) -> FoundDevice:
        return self._inner.generic().read(device)

    def write(self, device: str, change: DeviceChange) -> None:
        self._inner.generic().write(device, change)

    def remove(self, device: str) -> None:
        for netlink in (self._inner.netlink(), self._ground.netlink):
            netlink.transact([rtnl.delete_link_named(device)])

    def processes(self) -> dict[str, int]:
        return {}


def best_kind(ground: Ground) -> Kind:
    """The kernel's if it has it, else `wireguard-go`. Raises Unsupported where there is neither. Blocking."""
    if sysctl.read("ipv6/conf/all/disable_ipv6") is None:
        raise Unsupported("this node cannot encrypt networks: its kernel has no IPv6, which tunnels use inside")
    if kernel_has_wireguard():
        return KernelKind(ground)
    program = shutil.which(PROGRAM)
    if program is None or not Path("/dev/net/tun").exists():
        raise Unsupported(_MISSING)
    return UserspaceKind(ground, ground.config.run_dir / "wireguard-go.log", program)


def kernel_has_wireguard() -> bool:
    """Found out by making a device in a namespace that goes with its thread."""
    return in_own_thread(_try_kernel)


def _try_kernel() -> bool:
    libc.unshare_net()
    netlink = Netlink()
    try:
        netlink.transact([messages.new_wireguard("wg0")])
    except KernelRefusal:
        return False
    finally:
        netlink.close()
    return True
