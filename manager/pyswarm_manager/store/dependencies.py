"""What services wait for: that no service waits for itself, over however many others.

Names of services that do not exist are allowed: such a service may come later, and until then the first tasks of the
one that depends on it say what they wait for. So cycles are looked for whenever a service's dependencies change, by the
API for its caller and once more by apply, which alone sees two changes made at the same time. A function of its
arguments.

Who acts next: `planner.orchestrate.dependencies` holds the first tasks back until what they wait for is there.
"""

from __future__ import annotations

from collections.abc import Callable

from pyswarm_common.model import Service, ServiceSpec

Lookup = Callable[[str], Service | None]
"""A service by its name."""


def find_cycle(spec: ServiceSpec, lookup: Lookup) -> tuple[str, ...]:
    """Names of services on a way from this one back to itself, beginning and ending with it; nothing if none is."""
    came_from: dict[str, str] = {}
    ahead = [spec.name]
    while ahead:
        name = ahead.pop()
        service = lookup(name)
        depends_on = spec.depends_on if name == spec.name else service.spec.depends_on if service is not None else ()
        for dependency in depends_on:
            if dependency.service == spec.name:
                return _way(came_from, spec.name, name)
            if dependency.service not in came_from:
                came_from[dependency.service] = name
                ahead.append(dependency.service)
    return ()


def _way(came_from: dict[str, str], first: str, last: str) -> tuple[str, ...]:
    """From `first` to `last`, and back to `first`."""
    names = [first]
    while last != first:
        names.append(last)
        last = came_from[last]
    return (first, *reversed(names))


def cycle_sentence(names: tuple[str, ...]) -> str:
    return f"services may not wait for each other in a circle: {' -> '.join(names)}"
