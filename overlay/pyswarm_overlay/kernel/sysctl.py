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
    """Interfaces made from now on do without IPv6, until they are given an address."""
    if read("ipv6/conf/default/disable_ipv6") is not None:
        write("ipv6/conf/default/disable_ipv6", "1")


def allow_ipv6(interface: str) -> None:
    """It has the addresses that it is given, and asks for none: no link-local address, nothing taken from routers."""
    for setting, value in (("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", "0")):
        write(f"ipv6/conf/{interface}/{setting}", value)


def forward_ipv6() -> bool:
    """True when it had to be changed. An interface that takes routes from routers goes on doing so."""
    if read("ipv6/conf/all/forwarding") in (None, "1"):
        return False
    for directory in (_NET / "ipv6/conf").iterdir():
        if directory.name != "all" and read(f"ipv6/conf/{directory.name}/accept_ra") == "1":
            write(f"ipv6/conf/{directory.name}/accept_ra", "2")
    return write("ipv6/conf/all/forwarding", "1")


def has_ipv6() -> bool:
    """Whether interfaces can have IPv6 addresses here."""
    return read("ipv6/conf/all/disable_ipv6") == "0"


def quiet_bridge() -> None:
    """A network's bridge only bridges: no link-local address, and no firewall hooks for each frame."""
    quiet_new_interfaces()
    with suppress(OSError):
        for setting in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
            if read(f"bridge/{setting}") is not None:
                write(f"bridge/{setting}", "0")
