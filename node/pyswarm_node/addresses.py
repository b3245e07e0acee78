"""Which address of this machine the others are told. Pure but for `read_interfaces`.

Docker's rules and words: the address that is given, or that of the interface that is named, or the only one there is.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from dataclasses import dataclass

from pyswarm_common.errors import InvalidArgument, Unsupported

from .paths import join_host_port

DEFAULT_MANAGER_PORT = 2377
_PASSING = {"temporary", "deprecated", "dadfailed"}
"""IPv6 addresses with one of these flags are no place to be reached at for long."""


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    addresses: tuple[str, ...]
    """Global ones, IPv4 first."""


async def read_interfaces() -> tuple[Interface, ...]:
    """This host's interfaces but the loopback and those of containers."""
    try:
        process = await asyncio.create_subprocess_exec(
            "ip", "-json", "address", "show", "up", stdout=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise Unsupported("the program `ip` is not installed: apt-get install iproute2") from error
    output, _ = await process.communicate()
    return parse_interfaces(output)


def parse_interfaces(output: bytes) -> tuple[Interface, ...]:
    """From the JSON of `ip -json address`. An address of an unexpected form is as if it were not there."""
    found = []
    for link in json.loads(output or b"[]"):
        name, flags = str(link.get("ifname", "")), link.get("flags", ())
        if "LOOPBACK" in flags or name.startswith(("ps-", "docker", "veth", "br-")):
            continue
        infos = [info for info in link.get("addr_info", ()) if info.get("scope") == "global" and "local" in info]
        infos = [info for info in infos if not any(info.get(flag) for flag in _PASSING)]
        addresses = [str(info["local"]) for info in sorted(infos, key=lambda info: info.get("family") != "inet")]
        if addresses:
            found.append(Interface(name, tuple(addresses)))
    return tuple(found)


def choose_advertised(
    text: str, interfaces: tuple[Interface, ...], flag: str = "--advertise-addr", like: str = ""
) -> tuple[str, int]:
    """(IP address, manager port) of `text`: "", "IP", "IP:port", "interface" or "interface:port".

    The address is in its one usual form, so that it can be compared. An interface with both families gives the one of
    the address `like`, or IPv4."""
    host, port = split_host_port(text, DEFAULT_MANAGER_PORT)
    if not host:
        return _only_address(interfaces, flag), port
    if is_ip(host):
        return _reachable(host, flag), port
    for interface in interfaces:
        if interface.name == host:
            return _of_family(interface.addresses, like), port
    raise InvalidArgument(
        f'could not find network interface or address "{host}": specify {flag} as IP address, interface name or either '
        "with :port"
    )


def _reachable(host: str, flag: str) -> str:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if address.version == 6 else None
    address = mapped or address
    if address.is_unspecified or address.is_multicast or (address.version == 6 and address.is_link_local):
        raise InvalidArgument(f"{flag} must be an address that other nodes can reach, not {host}")
    return str(address)


def _of_family(addresses: tuple[str, ...], like: str) -> str:
    return next((one for one in addresses if like and (":" in one) == (":" in like)), addresses[0])


def _only_address(interfaces: tuple[Interface, ...], flag: str) -> str:
    if not interfaces:
        raise InvalidArgument(f"could not find the system's IP address - specify one with {flag}")
    first, *others = interfaces
    if others:
        shown = " and ".join(f"{one.addresses[0]} on {one.name}" for one in interfaces[:3])
        raise InvalidArgument(
            "could not choose an IP address to advertise since this system has multiple addresses on different "
            f"interfaces ({shown}) - specify one with {flag}"
        )
    same_family = [one for one in first.addresses if (":" in one) == (":" in first.addresses[0])]
    if len(same_family) > 1:
        raise InvalidArgument(
            "could not choose an IP address to advertise since this system has multiple addresses on interface "
            f"{first.name} ({same_family[0]} and {same_family[1]}) - specify one with {flag}"
        )
    return first.addresses[0]


def listen_address(text: str, interfaces: tuple[Interface, ...], advertised: str) -> str:
    """host:port to bind to; empty means everywhere at the default port."""
    host, port = split_host_port(text, DEFAULT_MANAGER_PORT)
    if not host:
        host = everywhere(advertised)
    if not is_ip(host):
        host, _ = choose_advertised(host, interfaces, "--listen-addr", advertised)
    return join_host_port(host, port)


def everywhere(advertised: str) -> str:
    """What to bind to for being reached at that address and all others: "::" takes IPv4 in as well."""
    return "::" if ":" in advertised else "0.0.0.0"  # noqa: S104 - as docker: reached from other hosts


def names_port(text: str) -> bool:
    """Whether an address as the user gave it says which port."""
    return split_host_port(text, 0)[1] != 0


def split_host_port(text: str, default_port: int) -> tuple[str, int]:
    """Of "host", "host:port", "[v6]:port" and bare "v6". Raises InvalidArgument for a wrong port."""
    text = text.strip()
    if is_ip(text.strip("[]")):
        return text.strip("[]"), default_port
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, default_port
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise InvalidArgument(f"invalid address {text!r}: too many colons in address; write [IPv6]:port")
    if not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65535:
        raise InvalidArgument(f"invalid address {text!r}: the port must be a number from 1 to 65534")
    return host.strip("[]"), int(port)


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
