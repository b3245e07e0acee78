"""Network settings of the calling thread's namespace: /proc/sys/net shows those of whoever opens it."""

from __future__ import annotations

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


def set_up_new_interfaces(*, ipv6: bool) -> None:
    """Of those made from now on: whether they have IPv6; and none takes addresses or routes from its neighbours."""
    for setting, value in (("accept_ra", "0"), ("disable_ipv6", "0" if ipv6 else "1")):
        if read(f"ipv6/conf/default/{setting}") is not None:
            write(f"ipv6/conf/default/{setting}", value)


def allow_ipv6(interface: str) -> None:
    """To one that was made without. Costly where it was: the kernel spins for a lock that others wait for."""
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
