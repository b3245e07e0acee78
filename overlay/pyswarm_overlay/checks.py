"""What callers may hand in: refused with a sentence before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_interface

from pyswarm_common.errors import InvalidArgument

from .core import names
from .types import IngressPort, NetworkTable, Sandbox


def check_table(table: NetworkTable) -> None:
    names.check_id("network", table.network_id)
    if not 0 < table.vni < 1 << 24:
        raise InvalidArgument(f"network {table.name}: VNI {table.vni} is outside 1..16777215")


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
