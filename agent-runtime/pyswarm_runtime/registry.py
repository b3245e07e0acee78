"""The containers that one runtime knows, in memory: found by id, name or an id's beginning."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping

from pyswarm_common.errors import AlreadyExists, InvalidArgument, NotFound
from pyswarm_runtime.container_store import ContainerRecord, StoredState, public_state
from pyswarm_runtime.images import ContainerUse
from pyswarm_runtime.types import ContainerState

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


class Container:
    """`lock` is held during every step that changes it; `ended` is set while no process of it runs."""

    def __init__(self, record: ContainerRecord, state: StoredState) -> None:
        self.record = record
        self.state = state
        self.lock = asyncio.Lock()
        self.ended = asyncio.Event()
        self.ended.set()
        self.monitor_fd = -1
        self.is_removed = False

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def is_running(self) -> bool:
        return self.state.phase == "running"

    def public(self) -> ContainerState:
        return public_state(self.record, self.state)

    def check_present(self) -> None:
        """To be asked once the lock is held: another may have removed it meanwhile."""
        if self.is_removed:
            raise NotFound(f"No such container: {self.id}")


class ContainerRegistry:
    def __init__(self) -> None:
        self._containers: dict[str, Container] = {}
        self._names: dict[str, str] = {}

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._containers.values()))

    def add(self, container: Container) -> None:
        """Refuses a name that is not one, or is taken."""
        name = container.record.config.name
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        if (owner := self._names.get(name)) is not None:
            raise AlreadyExists(
                f'Conflict. The container name "{name}" is already in use by container "{owner}": '
                "remove (or rename) that container to be able to reuse that name"
            )
        self._names[name] = container.id
        self._containers[container.id] = container

    def forget(self, container: Container) -> None:
        container.is_removed = True
        self._containers.pop(container.id, None)
        self._names.pop(container.record.config.name, None)

    def find(self, wanted: str) -> Container:
        container_id = wanted if wanted in self._containers else self._names.get(wanted)
        if container_id is None and wanted:
            matches = [known for known in self._containers if known.startswith(wanted)]
            container_id = matches[0] if len(matches) == 1 else None
        if container_id is None:
            raise NotFound(f"No such container: {wanted}")
        return self._containers[container_id]

    def states(self, labels: Mapping[str, str]) -> list[ContainerState]:
        """Of those that have all of these labels, newest first."""
        wanted = labels.items()
        found = [entry.public() for entry in self if wanted <= entry.record.config.labels.items()]
        return sorted(found, key=lambda state: (-state.created_at, state.id))

    def image_uses(self) -> list[ContainerUse]:
        return [
            ContainerUse(entry.id, entry.record.image_id, entry.record.diff_ids, entry.is_running) for entry in self
        ]
