"""What goes together on one published port: its address, its policy and the PROXY protocol."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from pyswarm_common.model import IngressPolicy, PortConfig, Protocol, PublishMode
from pyswarm_manager.api.validate.fields import Violation, shown


def check_port_options(port: PortConfig, path: str) -> Iterator[Violation]:
    """`path` names the port in the spec."""
    problem = _address_problem(port.host_ip) if port.host_ip else ""
    if problem:
        yield f"{path}.host_ip", problem
    if port.policy is not IngressPolicy.SPREAD and port.publish_mode is PublishMode.HOST:
        yield (
            f"{path}.policy",
            "policy=local goes with mode=ingress only: a port with mode=host leads to one task of its own node anyway",
        )
    if port.proxy_protocol and port.protocol is not Protocol.TCP:
        name = port.protocol.name.lower()
        yield (
            f"{path}.proxy_protocol",
            f"proxy-protocol needs a tcp port, since the header goes before a connection's first byte: {name} has none",
        )


def _address_problem(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return f"invalid host_ip {shown(text)}: it must be an IPv4 or IPv6 address"
    if address.is_multicast or "%" in text or (address.version == 6 and address.is_link_local):
        return f"invalid host_ip {shown(text)}: a port can be published at one node's own address, not at that"
    return "" if str(address) == text else f"invalid host_ip {shown(text)}: it should be {address}"
