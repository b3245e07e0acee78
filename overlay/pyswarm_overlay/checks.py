"""What callers may hand in: refused with a sentence before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_interface

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.network_options import OVERLAY

from .core import names
from .types import EndpointRecord, IngressPort, NetworkTable, Sandbox, ServiceRecord

_MAC = re.compile(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")


def check_table(table: NetworkTable) -> None:
    names.check_id("network", table.network_id)
    if table.driver in ("", OVERLAY) and not 0 < table.vni < 1 << 24:
        raise InvalidArgument(f"network {table.name}: VNI {table.vni} is outside 1..16777215")
    check_records(table.name, table.endpoints, table.services)


def check_records(network: str, endpoints: Iterable[EndpointRecord], services: Iterable[ServiceRecord]) -> None:
    """Their addresses become rules, tunnels and answers, so none is taken on trust."""
    try:
        for endpoint in endpoints:
            for address in (endpoint.node_address, *endpoint.addresses):
                ip_address(address)
            if endpoint.mac is not None and not _MAC.fullmatch(endpoint.mac):
                raise ValueError(f"{endpoint.mac!r} is not a MAC address")
        for service in services:
            for vip in service.vips:
                ip_address(vip)
    except ValueError as error:
        raise InvalidArgument(f"network {network}: its table has a wrong entry: {error}") from None


def check_unchanged(old: NetworkTable, new: NetworkTable) -> None:
    if (old.vni, old.ingress) != (new.vni, new.ingress):
        raise InvalidArgument(f"network {new.name}: the VNI of a network cannot change; remove and create it again")


def check_sandbox(sandbox: Sandbox) -> None:
    names.check_id("sandbox", sandbox.sandbox_id)
    networks = [attachment.network_id for attachment in sandbox.attachments]
    if len(networks) != len(set(networks)):
        raise InvalidArgument(f"sandbox {sandbox.sandbox_id}: more than one attachment to one network")
    for attachment in sandbox.attachments:
        if not attachment.addresses:
            raise InvalidArgument(f"sandbox {sandbox.sandbox_id}: no address on network {attachment.network_id}")
        _check_addresses(attachment.addresses)
    for port in sandbox.host_ports:
        _check_ports(port.published, port.target)


def check_ingress(addresses: tuple[str, ...], ports: tuple[IngressPort, ...]) -> None:
    _check_addresses(addresses)
    for port in ports:
        _check_ports(port.published_port, port.target_port)
        for backend in port.backends:
            _check_addresses(backend.ingress_addresses)


def _check_addresses(addresses: Iterable[str]) -> None:
    for address in addresses:
        try:
            ip_interface(address)
        except ValueError:
            raise InvalidArgument(f"{address!r} is not an address with a prefix length, such as 10.0.1.5/24") from None


def _check_ports(*ports: int) -> None:
    for port in ports:
        if not 0 < port < 1 << 16:
            raise InvalidArgument(f"port {port} is outside 1..65535")
