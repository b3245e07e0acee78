"""What a task can see of its spec: a change of anything else replaces no task.

A task sees its container, its resources and its networks. It does not see where it may be placed, how it is restarted,
or with which credentials its image is fetched; nor the difference between "nothing said" and the default said aloud, or
between two orders of what has no order. Who acts next: `Work.is_clean` asks, once for each pair of specs in a plan.

Of static addresses it sees its own only, which `Work.is_by_the_spec` compares.

A new field of the container's spec that no container sees, or that has a default to be said aloud, belongs here.
"""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm_common.model import (
    DEFAULT_STOP_GRACE_PERIOD_S,
    ContainerSpec,
    HealthCheck,
    LogDriver,
    Placement,
    RestartPolicy,
    TaskSpec,
)


def looks_the_same(a: TaskSpec, b: TaskSpec) -> bool:
    """Whether a container made of one is as good as one made of the other."""
    return a is b or a == b or _seen(a) == _seen(b)


def _seen(spec: TaskSpec) -> TaskSpec:
    """The spec as its task sees it, spelled in one way."""
    container = _seen_container(spec.container)
    networks = tuple(replace(item, virtual_addresses=(), addresses=()) for item in spec.networks)
    return replace(spec, container=container, networks=networks, restart=RestartPolicy(), placement=Placement())


def _seen_container(container: ContainerSpec) -> ContainerSpec:
    grace = container.stop_grace_period_s
    return replace(
        container,
        registry_auth=b"",
        healthcheck=container.healthcheck or HealthCheck(),
        log_driver=container.log_driver or LogDriver(),
        isolation=container.isolation or "default",
        stop_grace_period_s=DEFAULT_STOP_GRACE_PERIOD_S if grace is None else grace,
        cap_add=tuple(sorted(container.cap_add)),
        cap_drop=tuple(sorted(container.cap_drop)),
        groups=tuple(sorted(container.groups)),
        ulimits=tuple(sorted(container.ulimits, key=lambda ulimit: ulimit.name)),
    )
