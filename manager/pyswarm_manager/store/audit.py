"""The audit log's records, as apply makes them: a function of who asked and what the change set did. Pure.

Decides what a record says of the objects: kind, id, name and what became of them, never their content. Tasks are left
out where they went along with something else, a service's revisions always, and what is more than `MAX_TARGETS` is only
counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from pyswarm_common.model import AnyObject, Config, LimitedJoinToken, Network, Node, Secret, Service, Task
from pyswarm_common.model.audit import AuditRecord, AuditTarget
from pyswarm_common.model.objects import Credential
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import Kind

MAX_TARGETS: Final = 16


def by_local_root(method: str) -> AuditRecord:
    """The beginnings of the record of what this machine's root told the daemon to do, outside of any call."""
    return AuditRecord(actor_kind="local", actor="root", role="admin", source="unix", method=method)


def recorded(asked: AuditRecord, index: int, now: float, events: Sequence[Event]) -> AuditRecord:
    """The record of a change set that was applied at that index and did that."""
    targets = [_target(event) for event in _told(events)]
    detail = asked.detail
    if len(targets) > MAX_TARGETS:
        more = f"and {len(targets) - MAX_TARGETS} more objects"
        detail = f"{detail}, {more}" if detail else more
    return replace(asked, index=index, time=now, targets=tuple(targets[:MAX_TARGETS]), detail=detail)


def _told(events: Sequence[Event]) -> Iterable[Event]:
    events = [event for event in events if event.kind is not Kind.SERVICE_REVISION]
    others = [event for event in events if event.kind is not Kind.TASK]
    return others or events


def _target(event: Event) -> AuditTarget:
    action = "create" if event.old is None else "remove" if event.new is None else "update"
    item = event.object
    return AuditTarget(kind=event.kind.value, id=item.id, name=_name(item), action=action)


def _name(item: AnyObject) -> str:
    match item:
        case Node():
            return item.description.hostname
        case Service() | Network() | Secret() | Config():
            return item.spec.name
        case Task() | Credential():
            return item.name
        case LimitedJoinToken():
            return item.label
    return ""
