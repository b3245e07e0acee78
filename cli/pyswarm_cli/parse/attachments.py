"""What a service's containers are attached to: networks and names.

Pure. Docker's short and long forms.
"""

from __future__ import annotations

import ipaddress

from pyswarm_cli.parse.pairs import csv_fields
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    NetworkAttachmentSpec,
    PlacementPreference,
)


def network(text: str) -> NetworkAttachmentSpec:
    """One `--network`: a name, or `name=web,alias=front,ip=10.0.1.10-10.0.1.19,vip=10.0.1.100,driver-opt=KEY=VALUE`."""
    if "=" not in text:
        return NetworkAttachmentSpec(target=text)
    target = ""
    aliases: list[str] = []
    addresses: list[str] = []
    virtual: list[str] = []
    options: dict[str, str] = {}
    for key, value in csv_fields(text, "network"):
        if key == "name":
            target = value
        elif key == "alias":
            aliases.append(value)
        elif key == "driver-opt":
            name, _, content = value.partition("=")
            options[name.strip().lower()] = content.strip()
        elif key in ("ip", "ip6"):
            addresses.append(value)
        elif key == "vip":
            virtual.append(value)
        elif key in ("mac-address", "link-local-ip", "gw-priority"):
            raise InvalidArgument(f'invalid network "{text}": each task is given its own, "{key}" cannot be chosen')
        else:
            raise InvalidArgument(f'invalid network "{text}": unknown field "{key}"')
    if not target:
        raise InvalidArgument(f'invalid network "{text}": the field "name" is missing')
    return NetworkAttachmentSpec(
        target=target,
        aliases=tuple(aliases),
        driver_options=options,
        virtual_addresses=tuple(virtual),
        addresses=tuple(addresses),
    )


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
