"""Published ports: docker's short and long forms, and what is ours in them. Pure.

Docker ignores an address before the port; here the service listens there and nowhere else. A range of published ports
for one target is, as docker has it, that many ports that all lead there.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TypeVar

from msgspec.structs import replace

from pyswarm_cli.parse.pairs import csv_fields
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import IngressPolicy, PortConfig, Protocol, PublishMode

T = TypeVar("T")
_MAX_PORT = 65535
_MAX_RANGE = 1024
_NUMBER = re.compile(r"\d{1,5}")
_SHORT = re.compile(r"(?:(?P<host>\[[^\]]*\]|[^:\[\]]*):)?(?:(?P<published>[^:]*):)?(?P<target>[^:]*)")
_PROTOCOLS = {protocol.name.lower(): protocol for protocol in Protocol}
_MODES = {mode.name.lower(): mode for mode in PublishMode}
_POLICIES = {policy.name.lower(): policy for policy in IngressPolicy}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_ALIASES = {"host-ip": "host_ip", "proxy_protocol": "proxy-protocol"}
_FIELDS = {"target", "published", "protocol", "mode", "name", "host_ip", "policy", "proxy-protocol"}


def ports(text: str) -> list[PortConfig]:
    """The ports of one `--publish`: `8080:80/tcp`, `[::1]:8000-8010:80-90`, or `published=8080,target=80,mode=host`."""
    return _long_ports(text) if "=" in text else _short_ports(text)


def _short_ports(text: str) -> list[PortConfig]:
    body, _, protocol = text.partition("/")
    host, published, target = _parts(body, text)
    kind = choice(_PROTOCOLS, protocol or "tcp", "protocol", text)
    address = _address(host.strip("[]"), text) if host else ""
    return [
        PortConfig(protocol=kind, target_port=inside, published_port=outside, host_ip=address)
        for outside, inside in _pairs(published, target, text)
    ]


def _parts(body: str, whole: str) -> tuple[str, str, str]:
    """(address, published, target), each as it stands; with one colon the first part is a port."""
    found = _SHORT.fullmatch(body)
    if found is None:
        raise InvalidArgument(
            f'invalid publish "{whole}": write [ADDRESS:][PUBLISHED:]TARGET, IPv6 addresses as [ADDRESS]'
        )
    host, published, target = found["host"] or "", found["published"], found["target"]
    if published is None and not host.startswith("["):
        return "", host, target
    return host, published or "", target


def _pairs(published: str, target: str, whole: str) -> list[tuple[int, int]]:
    """Published and target ports. Several published ones may lead to one target; 0 is one that is still to choose."""
    targets = _range(target, whole)
    if published in ("", "0"):
        return [(0, number) for number in targets]
    chosen = _range(published, whole)
    if len(targets) == 1:
        targets *= len(chosen)
    if len(chosen) != len(targets):
        raise InvalidArgument(f'invalid publish "{whole}": both ranges must have the same length, or one target')
    return list(zip(chosen, targets, strict=True))


def _long_ports(text: str) -> list[PortConfig]:
    values = {_ALIASES.get(key, key): value for key, value in csv_fields(text, "publish")}
    unknown = sorted(set(values) - _FIELDS)
    if unknown:
        raise InvalidArgument(f'invalid publish "{text}": unknown field "{unknown[0]}"')
    if "target" not in values:
        raise InvalidArgument(f'invalid publish "{text}": the field "target" is missing')
    host_ip = values.get("host_ip", "").strip("[]")
    common = PortConfig(
        name=values.get("name", ""),
        protocol=choice(_PROTOCOLS, values.get("protocol", "tcp"), "protocol", text),
        publish_mode=choice(_MODES, values.get("mode", "ingress"), "mode", text),
        host_ip=_address(host_ip, text) if host_ip else "",
        policy=choice(_POLICIES, values.get("policy", "spread"), "policy", text),
        proxy_protocol=choice(_BOOLEANS, values.get("proxy-protocol", "false"), "proxy-protocol", text),
    )
    return [
        replace(common, target_port=inside, published_port=outside)
        for outside, inside in _pairs(values.get("published", ""), values["target"], text)
    ]


def _address(text: str, whole: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidArgument(f'invalid publish "{whole}": "{text}" is not an IP address') from None


def _range(text: str, whole: str) -> list[int]:
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


def choice(known: dict[str, T], text: str, field: str, whole: str) -> T:
    found = known.get(text.lower())
    if found is None:
        raise InvalidArgument(f'invalid value "{text}" for {field} in "{whole}": choose {", ".join(known)}')
    return found
