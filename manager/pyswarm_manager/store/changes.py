"""Change sets: the only way into the store.

A change set becomes one Raft entry, and is applied whole or refused whole. Two kinds of change:

- `Create`, `Update`, `Delete` carry whole objects, and an update or delete carries the version it read
  (`meta.version`): if the object moved, the change set is refused with OutOfSequence. For everything a user decides,
  and for what the planner allocates.
- `SetTaskStatus`, `SetDesired`, `SetNodeStatus` change the fields of one writer, so they need no version: a status and
  a desired state only move forward, and what comes late or for an object that is gone is passed over. So a stream of
  statuses never collides with the planner.

Who acts next: `store.encoding` writes them to bytes, `store.apply` applies them on every member.
"""

from __future__ import annotations

from typing import NamedTuple

from pyswarm_common.model import AnyObject, NodeDescription, NodeStatus, TaskState, TaskStatus
from pyswarm_common.model.audit import AuditRecord
from pyswarm_manager.store.tables import KIND_OF, Kind


class Create(NamedTuple):
    object: AnyObject


class Update(NamedTuple):
    """Replaces the object, if its version is still `object.meta.version`."""

    object: AnyObject


class Delete(NamedTuple):
    """Zero as version deletes whatever is there; allowed for tasks only, since an ended task never comes back."""

    kind: Kind
    id: str
    version: int = 0


class SetTaskStatus(NamedTuple):
    task_id: str
    status: TaskStatus


class SetDesired(NamedTuple):
    task_id: str
    desired_state: TaskState


class SetNodeStatus(NamedTuple):
    """What the dispatcher observed. None leaves the description as it is."""

    node_id: str
    status: NodeStatus
    description: NodeDescription | None = None


class Checkpoint(NamedTuple):
    """Changes nothing: every member keeps its objects of this index for a while, so that they can be compared. Must be
    the last change of its set."""


Change = Create | Update | Delete | SetTaskStatus | SetDesired | SetNodeStatus | Checkpoint


class ChangeSet(NamedTuple):
    """Applied at one Raft index. `now` is the proposer's clock: apply has none.

    `audit` says who asked for it, if somebody did: the record is kept exactly if the changes are."""

    changes: tuple[Change, ...]
    now: float
    audit: AuditRecord | None = None


class Event(NamedTuple):
    """One object's change: created (no `old`), updated, or deleted (no `new`)."""

    old: AnyObject | None
    new: AnyObject | None

    @property
    def object(self) -> AnyObject:
        item = self.new if self.new is not None else self.old
        assert item is not None
        return item

    @property
    def kind(self) -> Kind:
        return KIND_OF[type(self.object)]


def delete(item: AnyObject) -> Delete:
    """The deletion of the object as it was read."""
    return Delete(KIND_OF[type(item)], item.id, item.meta.version)
