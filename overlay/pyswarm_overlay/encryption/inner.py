"""The namespace of the tunnels: the VXLAN devices of encrypted networks have their sockets here, and nothing leads out
of it but WireGuard.

This is why plaintext cannot get onto the wire, whatever dies and whoever is slow: a VXLAN packet that finds no tunnel
finds no way at all. And why plaintext from the wire cannot get in: the host's own VXLAN socket does not know the
encrypted networks. The UDP sockets of WireGuard stay in the host's namespace.

Made when it is first needed, by a thread of its own, since whoever makes a namespace is in it afterwards. All methods
block.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyswarm_overlay.core.plan import diff
from pyswarm_overlay.kernel import libc, netns, rtnl, sysctl
from pyswarm_overlay.kernel.netlink import Message, Netlink

from . import messages
from .core.addresses import is_inner
from .generic import GenericNetlink

T = TypeVar("T")
_LOOPBACK = 1


class Inner:
    """Of one host."""

    def __init__(self, run_dir: Path) -> None:
        self._directory = run_dir / "tunnels"
        self._path = self._directory / "inner"
        self._lock = threading.Lock()
        self._fd = -1
        self._netlink: Netlink | None = None
        self._generic: GenericNetlink | None = None

    @property
    def exists(self) -> bool:
        """Whether it was made, by this daemon or by an earlier one."""
        return self._fd >= 0 or netns.exists(self._path)

    def netlink(self) -> Netlink:
        """Of the namespace, which is made if there is none."""
        with self._lock:
            if self._netlink is None:
                self._netlink = in_own_thread(self._open)
            return self._netlink

    def generic(self) -> GenericNetlink:
        """For the kernel's WireGuard devices in it."""
        self.netlink()
        with self._lock:
            if self._generic is None:
                self._generic = in_own_thread(self._enter_generic)
            return self._generic

    @property
    def fd(self) -> int:
        self.netlink()
        return self._fd

    def _open(self) -> Netlink:
        netns.prepare_directory(self._directory)
        fd = netns.open_existing(self._path)
        if fd is None:
            netns.remove(self._path)
            fd = netns.create(self._path)
        else:
            libc.setns(fd)
        self._fd = fd
        for name in ("all", "default"):
            sysctl.write(f"ipv6/conf/{name}/disable_ipv6", "0")
        return Netlink()

    def _enter_generic(self) -> GenericNetlink:
        libc.setns(self._fd)
        return GenericNetlink()

    def is_kept(self) -> bool:
        """Whether the path leads to the namespace: somebody may have unmounted it."""
        self.netlink()
        fd = netns.open_existing(self._path)
        try:
            return fd is not None and os.path.sameopenfile(fd, self._fd)
        finally:
            if fd is not None:
                os.close(fd)

    def keep(self) -> None:
        """Mount the namespace at its path (again)."""
        if not self.is_kept():
            netns.remove(self._path)
            netns.keep(self._fd, self._path)

    def links(self) -> dict[str, rtnl.Link]:
        return rtnl.read_links(self.netlink())

    def settings(self, address: str, devices: dict[str, str], mtu: int) -> list[Message]:
        """What gives loopback the node's address, and each device its key's, up: what is not so already."""
        links, held = self.links(), rtnl.read_addresses(self.netlink())
        wanted = {"lo": address, **devices}
        changes: list[Message] = []
        for name, one in wanted.items():
            link = links[name]
            changes += _addresses(link.index, one, held.get(link.index, set()))
            if not link.up or (name in devices and link.mtu != mtu):
                changes.append(messages.set_up(link.index, mtu if name in devices else link.mtu))
        return changes

    def routing(self, wanted: dict[str, tuple[int, str]]) -> list[Message]:
        """What brings the routes to this: destination -> (interface, source)."""
        found = messages.read_routes(self.netlink())
        plan = diff(wanted, found)
        changes = [messages.put_route(destination, *way) for destination, way in plan.put]
        return changes + [messages.delete_route(destination, found[destination][0]) for destination in plan.remove]

    def apply(self, changes: list[Message]) -> list[str]:
        """Says what they were."""
        self.netlink().transact(changes)
        return [change.what for change in changes]

    def remove(self) -> None:
        """The namespace with all that is in it."""
        self.close()
        if self._directory.exists():
            netns.remove_directory(self._directory)

    def close(self) -> None:
        """Let go; the namespace stays."""
        with self._lock:
            for held in (self._netlink, self._generic):
                if held is not None:
                    held.close()
            self._netlink = self._generic = None
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1


def _addresses(index: int, wanted: str, held: set[str]) -> list[Message]:
    full = f"{wanted}/128"
    strange = [one for one in held if one != full and is_inner(one.partition("/")[0])]
    changes = [rtnl.delete_address(index, one) for one in strange]
    return changes if full in held else [*changes, rtnl.new_address(index, full)]


def in_own_thread(function: Callable[[], T]) -> T:
    """Call it in a thread that ends afterwards, since it enters a namespace."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(function())
        except BaseException as error:  # it belongs to the caller
            errors.append(error)

    thread = threading.Thread(target=body, name="overlay-tunnels", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
