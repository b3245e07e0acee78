"""The documents of Docker's network and IPAM plugin protocols: what we ask, and what a plugin may answer.

Field names are the protocol's. Answers are outside input: `checked_…` turn them into our own values, or refuse them
with a sentence that names the plugin.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_interface, ip_network

import msgspec

from pyswarm_common.errors import Unavailable

GENERIC_OPTIONS = "com.docker.network.generic"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
PORT_MAP = "com.docker.network.portmap"
EXPOSED_PORTS = "com.docker.network.endpoint.exposedports"
REQUEST_TYPE = "RequestAddressType"
GATEWAY_REQUEST = "com.docker.network.gateway"
NODE_DISCOVERY = 1
_NEXT_HOP = 0
_MAX_ROUTES = 256
_INTERFACE = re.compile(r"[!-.0-9;-~]{1,15}")
_MAC = re.compile(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")


class Capabilities(msgspec.Struct):
    Scope: str = "local"
    ConnectivityScope: str = ""


class AddressSpaces(msgspec.Struct):
    LocalDefaultAddressSpace: str = ""
    GlobalDefaultAddressSpace: str = ""


class PoolAnswer(msgspec.Struct):
    PoolID: str = ""
    Pool: str = ""


class AddressAnswer(msgspec.Struct):
    Address: str = ""


class _Interface(msgspec.Struct):
    Address: str = ""
    AddressIPv6: str = ""
    MacAddress: str = ""


class EndpointAnswer(msgspec.Struct):
    Interface: _Interface | None = None


class _InterfaceName(msgspec.Struct):
    SrcName: str = ""
    DstName: str = ""
    DstPrefix: str = ""


class _StaticRoute(msgspec.Struct):
    Destination: str = ""
    RouteType: int = _NEXT_HOP
    NextHop: str = ""


class JoinAnswer(msgspec.Struct):
    InterfaceName: _InterfaceName | None = None
    Gateway: str = ""
    GatewayIPv6: str = ""
    StaticRoutes: list[_StaticRoute] | None = None
    DisableGatewayService: bool = False


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin made for one endpoint."""

    source: str
    """The interface in the host's namespace that becomes the sandbox's."""
    gateways: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    """(destination, next hop; empty for what is on the link)."""
    has_own_way_out: bool = False
    """It wants no way out of ours, though it has no gateway."""


def checked_joined(answer: JoinAnswer, plugin: str) -> Joined:
    try:
        name = answer.InterfaceName.SrcName if answer.InterfaceName is not None else ""
        if not _INTERFACE.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an interface")
        gateways = tuple(str(ip_address(text)) for text in (answer.Gateway, answer.GatewayIPv6) if text)
        routes = tuple(_route(route) for route in (answer.StaticRoutes or ())[:_MAX_ROUTES])
    except ValueError as error:
        raise Unavailable(f"network plugin {plugin}: NetworkDriver.Join answered wrongly: {error}") from None
    return Joined(source=name, gateways=gateways, routes=routes, has_own_way_out=answer.DisableGatewayService)


def _route(route: _StaticRoute) -> tuple[str, str]:
    destination = str(ip_network(route.Destination, strict=False))
    return destination, str(ip_address(route.NextHop)) if route.RouteType == _NEXT_HOP else ""


def checked_pool(answer: PoolAnswer, plugin: str) -> tuple[str, str]:
    """(pool id, subnet)."""
    try:
        if not answer.PoolID or len(answer.PoolID) > 1024:
            raise ValueError("it has no PoolID")
        return answer.PoolID, str(ip_network(answer.Pool, strict=False))
    except ValueError as error:
        raise Unavailable(f"network plugin {plugin}: IpamDriver.RequestPool answered wrongly: {error}") from None


def checked_address(text: str, plugin: str) -> str:
    """With prefix length."""
    try:
        return str(ip_interface(text))
    except ValueError as error:
        raise Unavailable(f"network plugin {plugin}: an address that it gave is none: {error}") from None


def checked_mac(answer: EndpointAnswer) -> str:
    mac = answer.Interface.MacAddress if answer.Interface is not None else ""
    return mac.lower() if _MAC.fullmatch(mac) else ""
