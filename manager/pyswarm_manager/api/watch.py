"""Watches: committed changes, in order, from any manager's own applied state.

The store keeps the last commits once for all watchers, so a slow one costs nothing and is cut off with OUT_OF_RANGE
when it falls behind them. Decides which events a watcher sees and how they are cut into messages; never skips one.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final, Protocol

import grpc
from google.protobuf.message import Message
from msgspec.structs import replace

from pyswarm.v1 import watch_pb2, watch_pb2_grpc
from pyswarm_common.codec import set_timestamp, timestamp, to_proto
from pyswarm_common.errors import Exhausted, InvalidArgument
from pyswarm_common.model import AnyObject, Cluster, Config, Network, Node, Secret, Service, ServiceRevision, Task
from pyswarm_manager.api.caller import Context, caller_of, is_admin, require_manager
from pyswarm_manager.api.clusters import to_message
from pyswarm_manager.api.event_attributes import attributes
from pyswarm_manager.api.network_usage import node_warnings
from pyswarm_manager.api.shown import shown_revision, shown_service, shown_task
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.store import Batch
from pyswarm_manager.store.tables import Kind, Tables

MAX_WATCHERS = 1_000
MAX_MESSAGE_EVENTS = 1_000
MAX_MESSAGE_BYTES = 4 << 20
MAX_WARNING = 1024
"""Characters of an event's warning."""

_NAMES = frozenset(kind.value for kind in Kind)
_KINDS: Final = {
    number: Kind(name.removeprefix("OBJECT_KIND_").lower())
    for name, number in watch_pb2.ObjectKind.items()
    if name.removeprefix("OBJECT_KIND_").lower() in _NAMES
}


class WatchedStore(Protocol):
    """What a watch needs of the store."""

    @property
    def view(self) -> Tables: ...
    def version_before(self, at: float) -> int: ...
    def watch(self, from_version: int | None = None, *, follow: bool = True) -> AsyncIterator[Batch]: ...


class WatchServicer(watch_pb2_grpc.WatchServicer):
    """Serves Watch."""

    def __init__(self, store: WatchedStore) -> None:
        self._store = store
        self._watchers = 0

    async def Watch(self, request: watch_pb2.WatchRequest, context: Context) -> AsyncIterator[watch_pb2.WatchResponse]:
        caller = caller_of(context)
        require_manager(caller, self._store.view.nodes)
        for_admin = is_admin(caller)
        wanted = _Filter(request)
        if self._watchers >= MAX_WATCHERS:
            raise Exhausted(f"{MAX_WATCHERS} watches are open on this manager: ask another one")
        self._watchers += 1
        try:
            start = self._start(request)
            yield watch_pb2.WatchResponse(version=start)
            async for index, events, at in self._store.watch(start, follow=not request.no_follow):
                if index > start:  # this manager may be behind the one the watcher read from
                    networks = self._store.view.networks
                    for response in messages(index, wanted.pick(events), at, networks, for_admin=for_admin):
                        yield response
        except Exhausted as error:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, str(error))
        finally:
            self._watchers -= 1

    def _start(self, request: watch_pb2.WatchRequest) -> int:
        if request.HasField("since"):
            if request.resume_from:
                raise InvalidArgument("a watch begins at a version or at a time", [("since", "is a second beginning")])
            return self._store.version_before(timestamp(request.since))
        return request.resume_from or self._store.view.index


class _Filter:
    """What one watcher wants to see."""

    def __init__(self, request: watch_pb2.WatchRequest) -> None:
        if any(kind not in _KINDS for kind in request.kinds):
            raise InvalidArgument("unknown kind of object", [("kinds", "is not a kind of object")])
        self._kinds = frozenset(_KINDS[kind] for kind in request.kinds) or frozenset(_KINDS.values())
        self._services = frozenset(request.service_ids)
        self._nodes = frozenset(request.node_ids)

    def pick(self, events: tuple[Event, ...]) -> Iterator[Event]:
        return (e for e in events if e.kind in self._kinds and self._is_of_service(e) and self._is_on_node(e))

    def _is_of_service(self, event: Event) -> bool:
        if not self._services:
            return True
        match event.object:
            case Task() | ServiceRevision() as part:
                return part.service_id in self._services
            case Service() as service:
                return service.id in self._services
            case _:
                return False

    def _is_on_node(self, event: Event) -> bool:
        if not self._nodes:
            return True
        match event.object:
            case Task() as task:
                return task.node_id in self._nodes
            case Node() as node:
                return node.id in self._nodes
            case _:
                return False


def messages(
    index: int, events: Iterator[Event], at: float, networks: Mapping[str, Network], *, for_admin: bool
) -> Iterator[watch_pb2.WatchResponse]:
    """One commit's events in bounded messages. Only the last carries the commit's index: whoever resumes after an
    earlier one gets the whole commit again, rather than half of it never."""
    response, size = _begun(index, at), 0
    for event in events:
        if len(response.events) >= MAX_MESSAGE_EVENTS or size >= MAX_MESSAGE_BYTES:
            yield response
            response, size = _begun(index, at), 0
        message = _event(event, networks, for_admin=for_admin)
        size += message.ByteSize()
        response.events.append(message)
    if response.events:
        response.version = index
        yield response


def _begun(index: int, at: float) -> watch_pb2.WatchResponse:
    response = watch_pb2.WatchResponse(version=index - 1)
    set_timestamp(response.time, at)
    return response


def _event(event: Event, networks: Mapping[str, Network], *, for_admin: bool) -> watch_pb2.WatchEvent:
    if event.old is None:
        action = watch_pb2.CHANGE_ACTION_CREATE
    elif event.new is None:
        action = watch_pb2.CHANGE_ACTION_REMOVE
    else:
        action = watch_pb2.CHANGE_ACTION_UPDATE
    item = event.object
    message = watch_pb2.WatchEvent(action=action, attributes=attributes(event) | _warnings(event, networks))
    getattr(message, event.kind.value).CopyFrom(_shown(item, for_admin=for_admin))
    return message


def _warnings(event: Event, networks: Mapping[str, Network]) -> dict[str, str]:
    """A node began to route what networks have."""
    old, new = event
    if not isinstance(new, Node) or (isinstance(old, Node) and old.description is new.description):
        return {}
    if isinstance(old, Node) and old.description.routed_subnets == new.description.routed_subnets:
        return {}
    found = node_warnings(new, networks)
    return {"warning": "; ".join(found)[:MAX_WARNING]} if found else {}


def _shown(item: AnyObject, *, for_admin: bool) -> Message:
    """The object without what nobody may see by watching."""
    if isinstance(item, Cluster):
        return to_message(item, for_admin=for_admin)
    if isinstance(item, Secret | Config):
        item = replace(item, spec=replace(item.spec, data=b""))
    if isinstance(item, Service):
        return shown_service(item)
    if isinstance(item, Task):
        return shown_task(item)
    if isinstance(item, ServiceRevision):
        return shown_revision(item)
    message: Message = to_proto(item)
    return message
