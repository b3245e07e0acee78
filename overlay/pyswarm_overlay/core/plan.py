"""What to change: wanted against observed, as ordered operations.

Everything that the overlay keeps in the kernel is compared here and nowhere else, so a fresh start, a repair after a
crash and the regular verification are one code path. Applied twice, the second plan is empty. Removals come first:
a name, an address or a MAC may be about to get a new owner.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class MapPlan(Generic[K, V]):
    """The difference of two mappings, in a stable order."""

    remove: tuple[K, ...]
    put: tuple[tuple[K, V], ...]

    def __bool__(self) -> bool:
        return bool(self.remove or self.put)


def diff(wanted: Mapping[K, V], observed: Mapping[K, V]) -> MapPlan[K, V]:
    return MapPlan(
        remove=tuple(key for key in observed if key not in wanted),
        put=tuple((key, value) for key, value in wanted.items() if observed.get(key) != value),
    )


@dataclass(frozen=True, slots=True)
class WantedInterface:
    """One interface of a sandbox and its bridge port outside. `network_id` is None for the way out through the host."""

    name: str
    port: str
    network_id: str | None
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    """Of the default routes that leave here, one for each family."""


@dataclass(frozen=True, slots=True)
class ObservedInterface:
    """An interface found inside a sandbox."""

    index: int
    mac: str
    up: bool
    addresses: frozenset[str]
    mtu: int | None = None
    """None: not looked at."""


@dataclass(frozen=True, slots=True)
class ObservedSandbox:
    """What a sandbox's namespace and the bridges around it hold now."""

    interfaces: Mapping[str, ObservedInterface]
    default_gateways: frozenset[tuple[str, str]]
    """(gateway address, interface name)"""
    ports: frozenset[str]
    """Names of bridge ports that exist and sit where they should."""


NOTHING = ObservedSandbox(interfaces={}, default_gateways=frozenset(), ports=frozenset())


@dataclass(frozen=True, slots=True)
class RemoveInterface:
    """Remove an interface from the sandbox: its other end goes with it."""

    name: str


@dataclass(frozen=True, slots=True)
class RemovePort:
    """Remove a bridge port whose other end is not where it should be."""

    interface: WantedInterface


@dataclass(frozen=True, slots=True)
class CreatePair:
    interface: WantedInterface


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class AddAddress:
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class BringUp:
    name: str


@dataclass(frozen=True, slots=True)
class SetMtu:
    name: str
    mtu: int


@dataclass(frozen=True, slots=True)
class SetDefaultRoute:
    name: str
    gateway: str


Operation = RemoveInterface | RemovePort | CreatePair | RemoveAddress | AddAddress | BringUp | SetMtu | SetDefaultRoute


def plan_sandbox(wanted: tuple[WantedInterface, ...], observed: ObservedSandbox) -> list[Operation]:
    """Operations that turn the observed sandbox into the wanted one."""
    names = {interface.name for interface in wanted}
    operations: list[Operation] = [RemoveInterface(name) for name in observed.interfaces if name not in names]
    for interface in wanted:
        found = observed.interfaces.get(interface.name)
        broken = found is None or found.mac != interface.mac or interface.port not in observed.ports
        if found is not None and broken:
            operations.append(RemoveInterface(interface.name))
        if broken and interface.port in observed.ports:
            operations.append(RemovePort(interface))
        operations += _fresh(interface) if broken or found is None else _adjust(interface, found, observed)
    return operations


def _fresh(interface: WantedInterface) -> list[Operation]:
    operations: list[Operation] = [CreatePair(interface)]
    operations += [AddAddress(interface.name, address) for address in interface.addresses]
    operations.append(BringUp(interface.name))
    operations += [SetDefaultRoute(interface.name, gateway) for gateway in interface.gateways]
    return operations


def _adjust(interface: WantedInterface, found: ObservedInterface, observed: ObservedSandbox) -> list[Operation]:
    extra = sorted(found.addresses.difference(interface.addresses))
    missing = [address for address in interface.addresses if address not in found.addresses]
    operations: list[Operation] = [RemoveAddress(interface.name, address) for address in extra]
    operations += [AddAddress(interface.name, address) for address in missing]
    if found.mtu not in (None, interface.mtu):
        operations.append(SetMtu(interface.name, interface.mtu))
    if not found.up:
        operations.append(BringUp(interface.name))
    for gateway in interface.gateways:
        if (gateway, interface.name) not in observed.default_gateways:
            operations.append(SetDefaultRoute(interface.name, gateway))
    return operations
