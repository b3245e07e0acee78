"""What a service may wait for before its first tasks start. Circles over several services are `store.dependencies`'."""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_common.model import ServiceSpec
from pyswarm_manager.api.validate.fields import Violation, check_count, check_name, shown, under

MAX_DEPENDENCIES = 64


def check_dependencies(spec: ServiceSpec) -> Iterator[Violation]:
    """Names that services can have, each once, and not the service's own."""
    yield from check_count(spec.depends_on, MAX_DEPENDENCIES, "depends_on", "dependencies")
    seen: set[str] = set()
    for index, dependency in enumerate(spec.depends_on[:MAX_DEPENDENCIES]):
        path = f"depends_on[{index}]"
        yield from under(path, check_name(dependency.service))
        if dependency.service == spec.name:
            yield f"{path}.service", f"service {shown(spec.name)} cannot wait for itself"
        elif dependency.service in seen:
            yield f"{path}.service", f"service {shown(dependency.service)} is waited for twice"
        seen.add(dependency.service)
