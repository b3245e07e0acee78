"""Generic netlink with the kernel's WireGuard: reads and writes devices of the namespace it was opened in."""

from __future__ import annotations

import errno

from pyswarm_overlay.kernel.netlink import KernelRefusal, Message, Netlink

from .core import genetlink
from .core.wireguard import DeviceChange, FoundDevice

_NETLINK_GENERIC = 16


class GenericNetlink:
    """A socket of the calling thread's namespace."""

    def __init__(self) -> None:
        self._netlink = Netlink(_NETLINK_GENERIC)
        self._family = 0

    def read(self, name: str) -> FoundDevice:
        request = genetlink.read_request(name)
        return genetlink.device(self._netlink.dump(Message(f"read tunnel {name}", self._family_id(), 0, request)))

    def write(self, name: str, change: DeviceChange) -> None:
        """One message after another: what the order of a change means is kept."""
        family = self._family_id()
        for body in genetlink.set_requests(name, change):
            self._netlink.transact([Message(f"configure tunnel {name}", family, 0, body)])

    def _family_id(self) -> int:
        if not self._family:
            request = genetlink.family_request(genetlink.FAMILY)
            answer = self._netlink.get(Message("look for WireGuard", genetlink.CONTROL_FAMILY, 0, request))
            if answer is None:
                raise KernelRefusal(errno.EOPNOTSUPP, "this kernel has no WireGuard")
            self._family = genetlink.family_id(answer)
        return self._family

    def close(self) -> None:
        self._netlink.close()
