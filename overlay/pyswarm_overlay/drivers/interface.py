"""One network on one host, whatever its driver: what `networks` and a sandbox's builder need of it.

All methods block; they are called in threads, with the network's lock held (joining and leaving: with the sandbox's).
"""

# ruff: noqa: B027  -- an empty method is what a driver has whose devices need nothing there
from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from pyswarm_overlay.core.tables import Tunnels
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel.rtnl import VethEnd


class NetworkDevices(Protocol):
    """The devices of a network, open."""

    @property
    def mtu(self) -> int: ...

    def adjust_mtu(self) -> None:
        """The ways to the peers have another one now."""
        ...

    def ensure(self) -> list[str]:
        """Bring the devices into being; says what it had to do."""
        ...

    def sync_tunnels(self, wanted: Tunnels, /) -> list[str]:
        """Only overlays have any."""
        ...

    def own_mac(self, port: str, mac: str, /) -> str:
        """What the hardware address of an interface will be, that is meant to be `mac`."""
        ...

    def join(self, port: str, peer: VethEnd, /) -> None:
        """A new interface at `peer`. Everything that the network keeps of it here goes by the name `port`."""
        ...

    def has_port(self, port: str, /) -> bool: ...

    def remove_port(self, port: str, /) -> None: ...

    def ports(self) -> set[str]: ...

    def remove(self) -> None: ...

    def close(self) -> None: ...

    def enter(self) -> None:
        """Move the calling thread to where the devices are."""
        ...

    def is_kept(self) -> bool: ...

    def keep(self) -> None: ...


class HostDevices(ABC):
    """The common part of drivers whose devices are in the host's own namespace."""

    def __init__(self, ground: Ground, mtu: int | None) -> None:
        self._ground = ground
        self._netlink = ground.netlink
        self._mtu = mtu or ground.underlay_mtu

    @property
    def mtu(self) -> int:
        return self._mtu

    def adjust_mtu(self) -> None:
        """No peer is reached over this network's devices."""

    def problems(self) -> list[str]:
        """What of the network's own devices is not as wanted. Changes nothing; `ensure` repairs it."""
        return []

    @abstractmethod
    def ensure(self) -> list[str]: ...

    @abstractmethod
    def join(self, port: str, peer: VethEnd, /) -> None: ...

    @abstractmethod
    def has_port(self, port: str, /) -> bool: ...

    @abstractmethod
    def remove(self) -> None: ...

    def sync_tunnels(self, _wanted: Tunnels, /) -> list[str]:
        return []

    def own_mac(self, port: str, mac: str, /) -> str:
        return mac

    def remove_port(self, port: str, /) -> None:
        """What is in a sandbox's namespace goes with it."""

    def ports(self) -> set[str]:
        return set()

    def close(self) -> None:
        """The sockets are the host's."""

    def enter(self) -> None:
        """The devices are where the daemon is."""

    def is_kept(self) -> bool:
        return True

    def keep(self) -> None:
        """The host's namespace needs no keeping."""
