"""Which secrets and configs a node has been given: those that its tasks need, and nothing else.

A version's data never changes, so one that was given needs no second look. What a service names and is not there any
more is left out: the agent then fails the task and says which one is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.codec import to_proto
from pyswarm_common.model import Task
from pyswarm_manager.dispatcher.core.framing import framed, key_of
from pyswarm_manager.store.file_references import all_references
from pyswarm_manager.store.tables import Kind, Tables

_ASSIGNMENTS = pb.Assignments.DESCRIPTOR
_KEYS = {Kind.SECRET: key_of(_ASSIGNMENTS, "update_secrets"), Kind.CONFIG: key_of(_ASSIGNMENTS, "update_configs")}


@dataclass(slots=True)
class NeededFiles:
    """Of one session."""

    _users: dict[tuple[Kind, str], set[str]] = field(default_factory=dict)
    """The tasks that need each version."""
    _new: dict[tuple[Kind, str], None] = field(default_factory=dict)
    _gone: dict[tuple[Kind, str], None] = field(default_factory=dict)

    def add(self, task: Task) -> None:
        """The node is told of the task."""
        for kind, reference in all_references(task.spec.container):
            key = (kind, reference.id)
            if key not in self._users:
                self._users[key] = set()
                if key in self._gone:
                    del self._gone[key]  # it was not taken away yet
                else:
                    self._new[key] = None
            self._users[key].add(task.id)

    def remove(self, task: Task) -> None:
        """The task is the node's no longer."""
        for kind, reference in all_references(task.spec.container):
            key = (kind, reference.id)
            users = self._users.get(key)
            if users is None:
                continue
            users.discard(task.id)
            if not users:
                del self._users[key]
                if key in self._new:
                    del self._new[key]
                else:
                    self._gone[key] = None

    def take(self, view: Tables) -> tuple[list[bytes], list[str]]:
        """What is to be sent, framed for Assignments, and the ids of what is to be forgotten."""
        framed_files = []
        for kind, object_id in self._new:
            item = view.table(kind).get(object_id)
            if item is not None:
                framed_files.append(framed(_KEYS[kind], to_proto(item).SerializeToString()))
        gone = [object_id for _, object_id in self._gone]
        self._new.clear()
        self._gone.clear()
        return framed_files, gone
