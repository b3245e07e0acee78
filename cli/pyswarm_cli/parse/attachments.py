"""What a service's containers are attached to: published ports and networks.

Pure. Docker's short and long forms.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TypeVar

from pyswarm_cli.parse.pairs import csv_fields
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    NetworkAttachmentSpec,
    PlacementPreference,
    PortConfig,
    Protocol,
    PublishMode,
)

T = TypeVar("T")
_MAX_PORT = 65535
_MAX_RANGE = 1024
_NUMBER = re.compile(r"\d{1,5}")
_PROTOCOLS = {protocol.name.lower(): protocol for protocol in Protocol}
_MODES = {mode.name.lower(): mode for mode in PublishMode}


def ports(text: str) -> list[PortConfig]:
    """The ports of one `--publish`: `8080:80/tcp`, `8000-8002:80-82`, or `published=8080,target=80,mode=host`."""
    return [_long_port(text)] if "=" in text else _short_ports(text)


def _short_ports(text: str) -> list[PortConfig]:
    body, _, protocol = text.partition("/")
    published, colon, target = body.rpartition(":")
    if ":" in published:
        raise InvalidArgument(
            f'invalid publish "{text}": an address cannot be given, the ports of a service are open on every node'
        )
    targets = _port_range(target, text)
    chosen = _port_range(published, text) if colon and published else [0] * len(targets)
    if len(chosen) != len(targets):
        raise InvalidArgument(f'invalid publish "{text}": both ranges must have the same length')
    kind = _choice(_PROTOCOLS, protocol or "tcp", "protocol", text)
    return [
        PortConfig(protocol=kind, target_port=inside, published_port=outside)
        for outside, inside in zip(chosen, targets, strict=True)
    ]


def _long_port(text: str) -> PortConfig:
    values = dict(csv_fields(text, "publish"))
    unknown = sorted(set(values) - {"target", "published", "protocol", "mode", "name"})
    if unknown:
        raise InvalidArgument(f'invalid publish "{text}": unknown field "{unknown[0]}"')
    if "target" not in values:
        raise InvalidArgument(f'invalid publish "{text}": the field "target" is missing')
    return PortConfig(
        name=values.get("name", ""),
        protocol=_choice(_PROTOCOLS, values.get("protocol", "tcp"), "protocol", text),
        target_port=port_number(values["target"], text),
        published_port=port_number(values["published"], text) if values.get("published") else 0,
        publish_mode=_choice(_MODES, values.get("mode", "ingress"), "mode", text),
    )


def _port_range(text: str, whole: str) -> list[int]:
    first, dash, last = text.partition("-")
    low = port_number(first, whole)
    high = port_number(last, whole) if dash else low
    if not low <= high < low + _MAX_RANGE:
        raise InvalidArgument(f'invalid publish "{whole}": the range must rise, and hold {_MAX_RANGE} ports at most')
    return list(range(low, high + 1))


def port_number(text: str, whole: str) -> int:
    """A port from 1 to 65535."""
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= _MAX_PORT:
        raise InvalidArgument(f'invalid publish "{whole}": "{text}" is not a port (1 to {_MAX_PORT})')
    return int(text)


def _choice(known: dict[str, T], text: str, field: str, whole: str) -> T:
    found = known.get(text.lower())
    if found is None:
        raise InvalidArgument(f'invalid value "{text}" for {field} in "{whole}": choose {", ".join(known)}')
    return found


def network(text: str) -> NetworkAttachmentSpec:
    """One `--network`: a name, or `name=web,alias=front,alias=www,driver-opt=KEY=VALUE`."""
    if "=" not in text:
        return NetworkAttachmentSpec(target=text)
    target, aliases = "", []
    options: dict[str, str] = {}
    for key, value in csv_fields(text, "network"):
        if key == "name":
            target = value
        elif key == "alias":
            aliases.append(value)
        elif key == "driver-opt":
            name, _, content = value.partition("=")
            options[name.strip().lower()] = content.strip()
        elif key in ("ip", "ip6", "mac-address", "link-local-ip", "gw-priority"):
            raise InvalidArgument(f'invalid network "{text}": each task is given its own, "{key}" cannot be chosen')
        else:
            raise InvalidArgument(f'invalid network "{text}": unknown field "{key}"')
    if not target:
        raise InvalidArgument(f'invalid network "{text}": the field "name" is missing')
    return NetworkAttachmentSpec(target=target, aliases=tuple(aliases), driver_options=options)


def preference(text: str) -> PlacementPreference:
    """One `--placement-pref`: `spread=node.labels.zone`."""
    strategy, _, descriptor = text.partition("=")
    if strategy != "spread" or not descriptor:
        raise InvalidArgument(f'invalid placement preference "{text}": write spread=node.labels.KEY')
    return PlacementPreference(spread_descriptor=descriptor)


def host_entry(text: str) -> str:
    """One `--host`: `name:address`, also written `name=address`."""
    separator = "=" if "=" in text else ":"
    name, _, address = text.partition(separator)
    try:
        ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        name = ""
    if not name:
        raise InvalidArgument(f'invalid host "{text}": write NAME:ADDRESS')
    return f"{name}:{address.strip('[]')}"
