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
        addresses = [str(info["local"]) for info in sorted(infos, key=lambda info: info.get("family") != "inet")]
        if addresses:
            found.append(Interface(name, tuple(addresses)))
    return tuple(found)


def choose_advertised(text: str, interfaces: tuple[Interface, ...], flag: str = "--advertise-addr") -> tuple[str, int]:
    """(IP address, manager port) of `text`: "", "IP", "IP:port", "interface" or "interface:port"."""
    host, port = split_host_port(text, DEFAULT_MANAGER_PORT)
    if not host:
        return _only_address(interfaces, flag), port
    if is_ip(host):
        address = ipaddress.ip_address(host)
        if address.is_unspecified or address.is_multicast:
            raise InvalidArgument(f"{flag} must be an address that other nodes can reach, not {host}")
        return host, port
    for interface in interfaces:
        if interface.name == host:
            return interface.addresses[0], port
    raise InvalidArgument(
        f'could not find network interface or address "{host}": specify {flag} as IP address, interface name or either '
        "with :port"
    )


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


def listen_address(text: str, interfaces: tuple[Interface, ...]) -> str:
    """host:port to bind to; empty means everywhere at the default port."""
    host, port = split_host_port(text, DEFAULT_MANAGER_PORT)
    if not host:
        host = "0.0.0.0"  # noqa: S104 - as docker: the manager is reached from other hosts
    if not is_ip(host):
        host, _ = choose_advertised(host, interfaces, "--listen-addr")
    return join_host_port(host, port)


def split_host_port(text: str, default_port: int) -> tuple[str, int]:
    """Of "host", "host:port", "[v6]:port" and bare "v6". Raises InvalidArgument for a wrong port."""
    text = text.strip()
    if is_ip(text.strip("[]")):
        return text.strip("[]"), default_port
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, default_port
    if not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65535:
        raise InvalidArgument(f"invalid address {text!r}: the port must be a number from 1 to 65534")
    return host.strip("[]"), int(port)


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
