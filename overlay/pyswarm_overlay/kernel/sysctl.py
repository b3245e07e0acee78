"""Network settings of the calling thread's namespace: /proc/sys/net shows those of whoever opens it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_NET = Path("/proc/sys/net")


def read(name: str) -> str | None:
    try:
        return (_NET / name).read_text().strip()
    except OSError:
        return None


def write(name: str, value: str) -> bool:
    """Set it unless it is so already; True when it had to be changed."""
    if read(name) == value:
        return False
    (_NET / name).write_text(value)
    return True


def quiet_new_interfaces() -> None:
    """Interfaces made from now on get no IPv6 link-local address: without an IPv6 subnet it is only noise."""
    if read("ipv6/conf/default/disable_ipv6") is not None:
        write("ipv6/conf/default/disable_ipv6", "1")


def quiet_bridge() -> None:
    """A network's bridge only bridges: no link-local address, and no firewall hooks for each frame."""
    quiet_new_interfaces()
    with suppress(OSError):
        if read("bridge/bridge-nf-call-iptables") is not None:
            write("bridge/bridge-nf-call-iptables", "0")
