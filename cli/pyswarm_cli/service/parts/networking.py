"""Networks and published ports of a service, from flags. Pure: names of networks come resolved."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from pyswarm_cli.parse.ports import port_number
from pyswarm_cli.service.parts.pieces import Options, items, with_given
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    EndpointMode,
    EndpointSpec,
    NetworkAttachmentSpec,
    PortConfig,
    Protocol,
    SessionAffinity,
)


def create_endpoint(options: Options) -> EndpointSpec:
    """What create gives as whole lists."""
    return EndpointSpec(ports=tuple(port for group in options["publish"] for port in group))


def apply_to_endpoint(endpoint: EndpointSpec, options: Options) -> EndpointSpec:
    """The flags that create and update share."""
    mode = None if options["endpoint_mode"] is None else EndpointMode[options["endpoint_mode"].upper()]
    affinity = options["session_affinity"]
    return with_given(
        endpoint,
        mode=mode,
        session_affinity=None if affinity is None else SessionAffinity[affinity.upper().replace("-", "_")],
    )


def change_endpoint(endpoint: EndpointSpec, options: Options) -> EndpointSpec:
    """What update adds to the ports and takes from them."""
    return replace(endpoint, ports=_ports(endpoint.ports, options))


def _ports(have: tuple[PortConfig, ...], options: Options) -> tuple[PortConfig, ...]:
    gone = {_target(text) for text in options["publish_rm"]}
    kept = [port for port in have if (port.target_port, port.protocol) not in gone]
    return items(kept, [port for group in options["publish_add"] for port in group], ())


def _target(text: str) -> tuple[int, Protocol]:
    number, _, protocol = text.partition("/")
    name = (protocol or "tcp").upper()
    if name not in Protocol.__members__:
        raise InvalidArgument(f'invalid port "{text}": the protocol is tcp, udp or sctp')
    return port_number(number, text), Protocol[name]


def change_networks(
    have: tuple[NetworkAttachmentSpec, ...], options: Options, ids: Mapping[str, str]
) -> tuple[NetworkAttachmentSpec, ...]:
    """Stored attachments name networks by id, users mostly by name."""
    gone = {ids.get(name, name) for name in options["network_rm"]}
    kept = [attachment for attachment in have if attachment.target not in gone]
    known = {attachment.target for attachment in kept}
    fresh = [item for item in options["network_add"] if ids.get(item.target, item.target) not in known]
    return (*kept, *fresh)
