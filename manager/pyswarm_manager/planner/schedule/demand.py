"""What a group of tasks asks of a node.

Groups with equal demands share one pass over the nodes, so everything here is compared by value. `Fixed` is what no
placement changes: which nodes it leaves is found once per plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyswarm_common.model import MountType, Placement, Platform, Plugin, TaskSpec, Toleration
from pyswarm_manager.planner.schedule.constraints import architecture
from pyswarm_manager.planner.seat import NodeUsage
from pyswarm_manager.store.tables import Port

_EVERYWHERE = ("", "local")
"""Volume drivers that every node has."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """What only the node itself decides, not what runs there."""

    constraints: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    plugins: tuple[Plugin, ...] = ()
    devices: tuple[str, ...] = ()


NOTHING = Fixed()


@dataclass(frozen=True, slots=True)
class Demand:
    fixed: Fixed = NOTHING
    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0
    generic: tuple[tuple[str, int], ...] = ()
    ports: tuple[Port, ...] = ()

    @classmethod
    def of(cls, spec: TaskSpec, ports: tuple[Port, ...], driver_of: Callable[[str], str]) -> Demand:
        """`driver_of` tells the driver of the network with an id; empty for those that every node has."""
        reserved = spec.resources.reservations
        return cls(
            _fixed(spec, driver_of),
            reserved.nano_cpus,
            reserved.memory_bytes,
            reserved.pids,
            tuple((resource.kind, resource.count) for resource in reserved.generic) if reserved.generic else (),
            ports,
        )


def _fixed(spec: TaskSpec, driver_of: Callable[[str], str]) -> Fixed:
    placement, container = spec.placement, spec.container
    plugins = _plugins(spec, driver_of) if container.mounts or container.log_driver or spec.networks else ()
    if placement is _NO_PLACEMENT and not plugins and not container.devices:
        return NOTHING
    return Fixed(
        placement.constraints,
        tuple(Platform(architecture(p.architecture), p.os.casefold()) for p in placement.platforms),
        placement.tolerations,
        plugins,
        tuple(device.host_path for device in container.devices),
    )


_NO_PLACEMENT: Placement = TaskSpec().placement


def _plugins(spec: TaskSpec, driver_of: Callable[[str], str]) -> tuple[Plugin, ...]:
    container = spec.container
    found = [
        Plugin("Volume", mount.volume_driver)
        for mount in container.mounts
        if mount.type is MountType.VOLUME and mount.volume_driver not in _EVERYWHERE
    ]
    found += [Plugin("Network", driver) for attachment in spec.networks if (driver := driver_of(attachment.target))]
    if container.log_driver is not None and container.log_driver.name not in ("", "none"):
        found.append(Plugin("Log", container.log_driver.name))
    return tuple(dict.fromkeys(found))


def reserve(usage: NodeUsage, demand: Demand, sign: int = 1) -> None:
    """Count the demand in (or out) as if a task of it were there; of named resources only how many."""
    usage.nano_cpus += sign * demand.nano_cpus
    usage.memory_bytes += sign * demand.memory_bytes
    usage.pids += sign * demand.pids
    for port in demand.ports:
        usage.count_port(port, sign)
    for kind, number in demand.generic:
        usage.count_claim((kind, ""), sign * number)
