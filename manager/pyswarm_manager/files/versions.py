"""Versions of secrets and configs, and the services that follow them. Pure.

A version is an object whose data never changes; the latest of a name has the name, the others are superseded. A service
follows a name unless its reference is pinned: once a version is superseded, `following` gives the service a spec that
names the next one, and its own update policy does the rest. It does so once per version: a service whose spec was
written after that version was made (its update was rolled back, or the user chose the old one) is left as it is.
Who acts next: `files.upkeep` commits what is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from pyswarm_common.errors import FailedPrecondition, NotFound
from pyswarm_common.model import Config, ContainerSpec, FileReference, Secret, Service, ServiceSpec
from pyswarm_manager.store.changes import Change, Create, Delete, Update, delete
from pyswarm_manager.store.file_references import FILE_KINDS, all_references, references
from pyswarm_manager.store.revisions import revisions_of
from pyswarm_manager.store.tables import Kind, Tables

DEFAULT_MODE = 0o444
MAX_DELETIONS = 100

Versioned = Secret | Config


def latest(view: Tables, kind: Kind, name: str) -> Versioned | None:
    """The version that has the name."""
    object_id = view.ids_by_name.get((kind, name))
    found: Versioned | None = None if object_id is None else view.table(kind)[object_id]
    return found


def resolved(view: Tables, spec: ServiceSpec) -> ServiceSpec:
    """The spec with the ids of what it names, and with defaults filled in. NotFound for what does not exist."""
    container = spec.task.container
    changed = replace(
        container,
        secrets=tuple(_resolved(view, Kind.SECRET, item) for item in container.secrets),
        configs=tuple(_resolved(view, Kind.CONFIG, item) for item in container.configs),
    )
    return spec if changed == container else replace(spec, task=replace(spec.task, container=changed))


def _resolved(view: Tables, kind: Kind, reference: FileReference) -> FileReference:
    found = _find(view, kind, reference)
    target = reference.target
    if not target and not reference.env:
        target = found.spec.name
    uid, gid = (reference.uid or "0", reference.gid or "0") if target else ("", "")
    mode = (reference.mode or DEFAULT_MODE) if target else 0
    return replace(reference, id=found.id, name=found.spec.name, target=target, uid=uid, gid=gid, mode=mode)


def _find(view: Tables, kind: Kind, reference: FileReference) -> Versioned:
    """A pinned reference means the object; any other means the name, which an id stands for too."""
    found: Versioned | None = view.table(kind).get(reference.id)
    if found is not None and reference.pinned:
        return found
    name = found.spec.name if found is not None else reference.name or reference.id
    newest = latest(view, kind, name) or found
    if newest is None:
        raise NotFound(f"{kind.value} not found: {name}")
    return newest


def rotated(current: Versioned, new_id: str, data: bytes) -> list[Change]:
    """The changes that make the next version."""
    if current.superseded:
        raise FailedPrecondition(
            f"{current.spec.name} version {current.number} is not the latest: name it, or give the latest one's id"
        )
    following_one = replace(current, id=new_id, spec=replace(current.spec, data=data), number=current.number + 1)
    return [Update(replace(current, superseded=True)), Create(_as_new(following_one))]


def _as_new(item: Versioned) -> Versioned:
    return replace(item, meta=type(item.meta)())


def removal(view: Tables, kind: Kind, found: Versioned) -> list[Change]:
    """Every version of the name; whether a service needs one of them, the store looks."""
    same = [item for item in view.table(kind).values() if item.spec.name == found.spec.name]
    return [delete(item) for item in same]


def users(view: Tables, kind: Kind, name: str) -> list[str]:
    """Names of the services that follow it."""
    found = (
        service.spec.name
        for service in view.services.values()
        if any(item.name == name and not item.pinned for item in references(service.spec.task.container, kind))
    )
    return sorted(found)


def has_superseded(view: Tables) -> bool:
    """Whether there is anything to follow or to remove at all."""
    return any(item.superseded for kind in FILE_KINDS for item in view.table(kind).values())


def following(view: Tables) -> Iterator[Service]:
    """Services as they are to be: naming the latest versions."""
    for service in view.services.values():
        container = service.spec.task.container
        if not container.secrets and not container.configs:
            continue
        changed = replace(
            container,
            secrets=tuple(_next(view, Kind.SECRET, item, service) for item in container.secrets),
            configs=tuple(_next(view, Kind.CONFIG, item, service) for item in container.configs),
        )
        if changed != container:
            yield with_container(service, changed)


def _next(view: Tables, kind: Kind, reference: FileReference, service: Service) -> FileReference:
    named: Versioned | None = view.table(kind).get(reference.id)
    if reference.pinned or named is None or not named.superseded:
        return reference
    newest = latest(view, kind, named.spec.name)
    if newest is None or service.spec_version > _made_at(view, kind, newest):
        return reference
    return replace(reference, id=newest.id)


def _made_at(view: Tables, kind: Kind, newest: Versioned) -> int:
    """The index at which the latest version was made: that is when the one before it was last written."""
    same = (item for item in view.table(kind).values() if item.superseded and item.spec.name == newest.spec.name)
    return max((item.meta.version for item in same), default=0)


def with_container(service: Service, container: ContainerSpec) -> Service:
    """The service with another container."""
    return replace(service, spec=replace(service.spec, task=replace(service.spec.task, container=container)))


def unneeded(view: Tables) -> list[Change]:
    """Superseded versions that no spec names, present or kept for going back to; bounded, the rest comes next time."""
    superseded = {(kind, item.id): item for kind in FILE_KINDS for item in view.table(kind).values() if item.superseded}
    if not superseded:
        return []
    for service in view.services.values():
        for spec in _specs(view, service):
            for kind, reference in all_references(spec.task.container):
                superseded.pop((kind, reference.id), None)
    gone: list[Change] = [Delete(kind, item.id, item.meta.version) for (kind, _), item in superseded.items()]
    return gone[:MAX_DELETIONS]


def _specs(view: Tables, service: Service) -> Iterator[ServiceSpec]:
    yield service.spec
    if service.previous_spec is not None:
        yield service.previous_spec
    for revision in revisions_of(service, view.service_revisions.get):
        yield revision.spec
