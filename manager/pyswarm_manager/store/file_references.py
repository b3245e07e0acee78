"""Which secrets and configs a service names, and that none of them is missing. Pure.

A reference names one version, by its id. Whoever decides that it goes on to the next version is `files.following`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pyswarm_common.errors import InvalidArgument, NotFound
from pyswarm_common.model import Config, ContainerSpec, FileReference, Secret, Service
from pyswarm_manager.store.tables import Kind

FILE_KINDS = (Kind.SECRET, Kind.CONFIG)


def references(container: ContainerSpec, kind: Kind) -> tuple[FileReference, ...]:
    """To the secrets, or to the configs."""
    return container.secrets if kind is Kind.SECRET else container.configs


def all_references(container: ContainerSpec) -> Iterator[tuple[Kind, FileReference]]:
    """To both."""
    for kind in FILE_KINDS:
        for reference in references(container, kind):
            yield kind, reference


def check_files(service: Service, old: Service | None, get: Callable[[Kind, str], Any]) -> None:
    """Refuse a service that begins to name what is not there."""
    known = set() if old is None else {item.id for _, item in all_references(old.spec.task.container)}
    for kind, reference in all_references(service.spec.task.container):
        if reference.id not in known and get(kind, reference.id) is None:
            raise NotFound(f"{kind.value} {reference.name or reference.id} not found")


def refuse_if_used(
    kind: Kind, gone: Iterable[str], table: Mapping[str, Secret | Config], services: Iterable[Service]
) -> None:
    """Refuse to remove what a service names, in docker's words."""
    removed = {object_id for object_id in gone if object_id in table}
    if not removed:
        return
    users: dict[str, set[str]] = {}
    for service in services:
        for reference in references(service.spec.task.container, kind):
            if reference.id in removed:
                users.setdefault(reference.id, set()).add(service.spec.name)
    for object_id, names in users.items():
        name = table[object_id].spec.name
        plural = "service" if len(names) == 1 else "services"
        raise InvalidArgument(f"{kind.value} '{name}' is in use by the following {plural}: {', '.join(sorted(names))}")
