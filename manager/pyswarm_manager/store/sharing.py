"""Structure sharing: ten thousand tasks of one service hold one spec object, however they came in.

Decoding makes copies of everything; these functions put back the copies that the tables already hold. Values never
change, only which of two equal objects is kept, so replicas stay equal. Equality is looked at once per spec and
service, not once per task.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pyswarm_common.model import Service, ServiceSpec, Task, TaskSpec


class SpecSharing:
    """Which spec object stands for which, during one change set or one snapshot."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], TaskSpec] = {}
        self._keep: list[TaskSpec] = []  # an id() names an object only while that lives

    def canonical(self, spec: TaskSpec, service: Service, old: Task | None) -> TaskSpec:
        """The spec object to keep: the task's own, the service's, its previous one, or this one."""
        if old is not None and (old.spec is spec or old.spec == spec):
            return old.spec
        key = (id(spec), service.id)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _same_in(service, spec)
            self._keep.append(spec)
        return known


def _same_in(service: Service, spec: TaskSpec) -> TaskSpec:
    if service.spec.task == spec:
        return service.spec.task
    if service.previous_spec is not None and service.previous_spec.task == spec:
        return service.previous_spec.task
    return spec


def share_task(task: Task, services: Mapping[str, Service], old: Task | None, sharing: SpecSharing) -> Task:
    """The task with the service's own objects for what equals them."""
    service = services.get(task.service_id)
    if service is None:
        return task
    ports = service.endpoint.ports
    return msgspec.structs.replace(
        task,
        spec=sharing.canonical(task.spec, service, old),
        service_id=service.id,
        service_name=service.spec.name if service.spec.name == task.service_name else task.service_name,
        ports=ports if ports == task.ports else task.ports,
    )


def share_service(service: Service, old: Service | None) -> Service:
    """The service with its old task specs where they are equal, so that its tasks' specs stay the same objects."""
    if old is None:
        return service
    known = [old.spec.task] if old.previous_spec is None else [old.spec.task, old.previous_spec.task]
    previous = None if service.previous_spec is None else _share_spec(service.previous_spec, known)
    endpoint = old.endpoint if old.endpoint == service.endpoint else service.endpoint
    spec = _share_spec(service.spec, known)
    return msgspec.structs.replace(service, spec=spec, previous_spec=previous, endpoint=endpoint)


def _share_spec(spec: ServiceSpec, known: list[TaskSpec]) -> ServiceSpec:
    for task in known:
        if task is not spec.task and task == spec.task:
            return msgspec.structs.replace(spec, task=task)
    return spec
