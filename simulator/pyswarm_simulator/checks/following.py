"""What must hold of secrets and configs: a service follows each version once, and names one that is there.

A step to a latest version that changes nothing but what is named is the leader's own; going back is told by the
service's update status. After everything is healed no service lags behind, unless it was set back later than the
version was made; no version is kept that no spec names; and each agent has exactly what its tasks need.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from pyswarm_common.model import Config, ContainerSpec, FileReference, Secret, Service, ServiceSpec
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import Tables
from pyswarm_simulator.checks.violation import Violation

Version = Secret | Config


class FollowingChecks:
    """What every index did to versions, and to those that name them."""

    def __init__(self) -> None:
        self.made_at: dict[str, int] = {}
        """The index at which each version was made."""
        self._versions: dict[str, Version] = {}
        self._followed: set[tuple[str, str]] = set()
        """Service, version."""

    def changed(self, index: int, events: tuple[Event, ...]) -> None:
        """What an index did."""
        for old, new in events:
            match new if new is not None else old:
                case Secret() | Config() as version:
                    self._version(index, version, is_there=new is not None)
        for old, new in events:
            if isinstance(new, Service):
                self._service(index, old if isinstance(old, Service) else None, new)

    def _version(self, index: int, version: Version, *, is_there: bool) -> None:
        if is_there:
            self._versions[version.id] = version
            self.made_at.setdefault(version.id, index)
        else:
            self._versions.pop(version.id, None)

    def _service(self, index: int, old: Service | None, new: Service) -> None:
        present = named_by(new.spec)
        if old is not None and old.spec is new.spec:
            return
        before = named_by(old.spec) if old is not None else {}
        for object_id in present:
            if object_id not in before and object_id not in self._versions:
                raise Violation(f"service {new.spec.name} names a version that is not there, at {index}")
        goes_back = new.update_status is not None  # a spec that comes any other way begins without a status
        if old is None or goes_back or not _differs_in_versions_alone(old, new):
            return
        for object_id in present:
            if object_id not in before:
                self._step(index, new, object_id)

    def _step(self, index: int, service: Service, object_id: str) -> None:
        if (service.id, object_id) in self._followed:
            name = self._versions[object_id].spec.name
            raise Violation(f"service {service.spec.name} follows the same version of {name} once more, at {index}")
        self._followed.add((service.id, object_id))

    # -- once everything is healed -------------------------------------------------------------------------------------

    def what_lags(self, view: Tables) -> Iterator[str]:
        """Services that should have followed, and versions that nobody needs."""
        latest = {(type(item), item.spec.name): item for item in self._versions.values() if not item.superseded}
        for service in view.services.values():
            for object_id, reference in named_by(service.spec).items():
                version = self._versions.get(object_id)
                if version is None:
                    yield f"service {service.spec.name} names version {object_id}, which is not there"
                elif version.superseded and not reference.pinned:
                    newest = latest[type(version), version.spec.name]
                    if service.spec_version < self.made_at[newest.id]:
                        yield f"service {service.spec.name} has not followed {version.spec.name}"
        needed = {object_id for spec in _specs(view) for object_id in named_by(spec)}
        for version in self._versions.values():
            if version.superseded and version.id not in needed:
                yield f"version {version.number} of {version.spec.name} is kept for nobody"


def _specs(view: Tables) -> Iterator[ServiceSpec]:
    for service in view.services.values():
        yield service.spec
        if service.previous_spec is not None:
            yield service.previous_spec
    for revision in view.service_revisions.values():
        yield revision.spec


def named_by(spec: ServiceSpec) -> dict[str, FileReference]:
    """By the version's id."""
    container = spec.task.container
    return {reference.id: reference for reference in (*container.secrets, *container.configs)}


def _differs_in_versions_alone(old: Service, new: Service) -> bool:
    return old.spec != new.spec and _without_versions(old.spec) == _without_versions(new.spec)


def _without_versions(spec: ServiceSpec) -> ServiceSpec:
    container = spec.task.container
    secrets, configs = _unnumbered(container.secrets), _unnumbered(container.configs)
    blank: ContainerSpec = replace(container, secrets=secrets, configs=configs)
    return replace(spec, task=replace(spec.task, container=blank))


def _unnumbered(references: tuple[FileReference, ...]) -> tuple[FileReference, ...]:
    return tuple(replace(reference, id="") for reference in references)
