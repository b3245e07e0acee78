"""The options of network drivers (`network create -o key=value`): which there are and what their values mean. Pure.

The API refuses with `problems` what a driver would not understand; the drivers read what was let in with
`overlay_options`, `bridge_options` and `macvlan_options`, which are lenient: a value that cannot be read counts as not
given, since whoever wrote it was refused or wrote it before this version. Options of drivers that are not ours are
nobody's business but the plugin's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal, TypeVar, cast

OVERLAY = "overlay"
BRIDGE = "bridge"
MACVLAN = "macvlan"
HOST = "host"
NONE = "none"
BUILT_IN = frozenset({OVERLAY, BRIDGE, MACVLAN, HOST, NONE})
DEFAULT_IPAM = "default"

MTU = "com.docker.network.driver.mtu"
ENCRYPTED = "encrypted"
VXLAN_IDS = "com.docker.network.driver.overlay.vxlanid_list"
BRIDGE_NAME = "com.docker.network.bridge.name"
ENABLE_ICC = "com.docker.network.bridge.enable_icc"
ENABLE_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
MACVLAN_MODE = "macvlan_mode"
PARENT = "parent"

MacvlanMode = Literal["bridge", "private", "vepa", "passthru"]

_MIN_MTU, _MAX_MTU = 68, 65535
_MAX_VNI = (1 << 24) - 1
_MAX_INTERFACE_NAME = 15
_MAX_OPTIONS = 64
_MAX_VALUE = 1024
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OverlayOptions:
    mtu: int | None = None
    is_encrypted: bool = False
    vni: int = 0
    """Zero: the cluster chooses one."""


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    mtu: int | None = None
    name: str = ""
    has_icc: bool = True
    """Containers on it may talk to one another."""
    has_masquerade: bool = True
    host_binding: str = ""
    """The host's address at which its containers' ports are published; empty: all."""


@dataclass(frozen=True, slots=True)
class MacvlanOptions:
    mtu: int | None = None
    parent: str = ""
    """The host's interface; empty: one that leads nowhere, so that the containers only see one another."""
    mode: MacvlanMode = "bridge"


def are_addresses_of_cluster(driver: str, ipam_driver: str = "", config_from: str = "") -> bool:
    """Whether the managers give out a network's addresses; otherwise each node does, for its own containers.

    A bridge is another network on every node; a lent configuration is the node's own; a plugin knows best.
    """
    return driver not in (BRIDGE, HOST, NONE) and ipam_driver in ("", DEFAULT_IPAM) and not config_from


def is_encrypted(options: Mapping[str, str]) -> bool:
    """Of an overlay network: `-o encrypted`."""
    return overlay_options(options).is_encrypted


def overlay_options(options: Mapping[str, str]) -> OverlayOptions:
    return OverlayOptions(
        mtu=_read(options, MTU, _mtu, None),
        is_encrypted=_read(options, ENCRYPTED, _flag, default=False),
        vni=_read(options, VXLAN_IDS, _vni, 0),
    )


def bridge_options(options: Mapping[str, str]) -> BridgeOptions:
    return BridgeOptions(
        mtu=_read(options, MTU, _mtu, None),
        name=_read(options, BRIDGE_NAME, _interface, ""),
        has_icc=_read(options, ENABLE_ICC, _boolean, default=True),
        has_masquerade=_read(options, ENABLE_MASQUERADE, _boolean, default=True),
        host_binding=_read(options, HOST_BINDING, _address, ""),
    )


def macvlan_options(options: Mapping[str, str]) -> MacvlanOptions:
    return MacvlanOptions(
        mtu=_read(options, MTU, _mtu, None),
        parent=_read(options, PARENT, _interface, ""),
        mode=_read(options, MACVLAN_MODE, _mode, "bridge"),
    )


def mtu_of(options: Mapping[str, str]) -> int | None:
    """Whatever the driver."""
    return _read(options, MTU, _mtu, None)


def problems(driver: str, options: Mapping[str, str], *, config_only: bool = False) -> Iterator[str]:
    """A sentence for each option that the driver does not know, or whose value it cannot use.

    A network that only lends its configuration may be lent to any driver, so it may have the options of all.
    """
    if len(options) > _MAX_OPTIONS:
        yield f"a network can have at most {_MAX_OPTIONS} options, this one has {len(options)}"
        return
    known = _OF_ALL if config_only else _OF_DRIVER.get(driver or OVERLAY)
    for key, value in sorted(options.items()):
        if len(key) > _MAX_VALUE or len(value) > _MAX_VALUE:
            yield f"network option {key[:40]}… is longer than {_MAX_VALUE} characters"
        elif known is not None and key not in known:
            whose = "of networks" if config_only else f"of driver {driver or OVERLAY}"
            yield f"unknown network option '{key}': the options {whose} are {', '.join(sorted(known))}"
        elif known is not None:
            try:
                known[key](value)
            except ValueError as error:
                yield f"invalid value '{value}' of network option {key}: {error}"


def _number(value: str) -> int:
    """-1 for what is none."""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1


def _mtu(value: str) -> int:
    number = _number(value)
    if not _MIN_MTU <= number <= _MAX_MTU:
        raise ValueError(f"it must be a number from {_MIN_MTU} to {_MAX_MTU}")
    return number


def _boolean(value: str) -> bool:
    if value not in _TRUE | _FALSE:
        raise ValueError("it must be true or false")
    return value in _TRUE


def _flag(value: str) -> bool:
    """`-o encrypted` alone says it."""
    return not value or _boolean(value)


def _vni(value: str) -> int:
    number = _number(value)
    if not 0 < number <= _MAX_VNI:
        raise ValueError(f"it must be one VXLAN network identifier, from 1 to {_MAX_VNI}")
    return number


def _interface(value: str) -> str:
    is_plain = all(33 <= ord(character) < 127 and character not in "/:%" for character in value)
    if not 0 < len(value) <= _MAX_INTERFACE_NAME or not is_plain or value in (".", ".."):
        raise ValueError(f"it must be the name of a network interface, of at most {_MAX_INTERFACE_NAME} characters")
    return value


def _address(value: str) -> str:
    try:
        return str(IPv4Address(value))
    except ValueError:
        raise ValueError("it must be an IPv4 address") from None


def _mode(value: str) -> MacvlanMode:
    if value not in ("bridge", "private", "vepa", "passthru"):
        raise ValueError("it must be bridge, private, vepa or passthru")
    return cast("MacvlanMode", value)


_Parser = Callable[[str], object]
_OF_DRIVER: dict[str, dict[str, _Parser]] = {
    OVERLAY: {MTU: _mtu, ENCRYPTED: _flag, VXLAN_IDS: _vni},
    BRIDGE: {
        MTU: _mtu,
        BRIDGE_NAME: _interface,
        ENABLE_ICC: _boolean,
        ENABLE_MASQUERADE: _boolean,
        HOST_BINDING: _address,
    },
    MACVLAN: {MTU: _mtu, PARENT: _interface, MACVLAN_MODE: _mode},
}
_OF_ALL: dict[str, _Parser] = {key: parser for known in _OF_DRIVER.values() for key, parser in known.items()}


def _read(options: Mapping[str, str], key: str, parser: Callable[[str], T], default: T) -> T:
    try:
        return parser(options[key])
    except (KeyError, ValueError):
        return default
