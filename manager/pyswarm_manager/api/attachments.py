"""Attachments: plain containers of a node on networks of the cluster.

Decides whether a container may have a place on a network; then there is a task for it, without a service and bound to
its node. The planner gives it addresses, the node ends it by reporting so, and the planner removes it (`plain`).
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

from pyswarm.v1 import attachments_pb2 as pb
from pyswarm.v1 import attachments_pb2_grpc
from pyswarm_common.addresses import is_ipv6, plain_address
from pyswarm_common.codec import to_proto
from pyswarm_common.errors import Exhausted, FailedPrecondition, Forbidden, Unavailable
from pyswarm_common.ids import IdSource
from pyswarm_common.model import (
    ContainerSpec,
    Network,
    NetworkAttachmentSpec,
    PlainAttachment,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.api.caller import Context, caller_of
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.validate import refuse
from pyswarm_manager.api.validate.fields import Violation, check_count
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.removed import require_present
from pyswarm_manager.store.changes import Create, Delete
from pyswarm_manager.store.lookup import find_network
from pyswarm_manager.store.network_claims import has_addresses
from pyswarm_manager.store.tables import Kind, Tables
from pyswarm_manager.writes import FollowedStore, Writer, retried

MAX_PER_NODE = 1_000
_MAX_ALIASES = 64
_ALLOCATION_TIMEOUT_S = 10.0
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", re.ASCII)
_SHORT_ID = 12


class AttachmentsServicer(attachments_pb2_grpc.AttachmentsServicer):
    """Serves Attachments."""

    def __init__(
        self, store: FollowedStore, raft: RaftPort, forwarder: LeaderForwarder, ids: IdSource, clock: Clock
    ) -> None:
        self._calls = Calls("Attachments", store, raft, forwarder)
        self._store = store
        self._writer = Writer(store, raft, ids, clock)

    async def Attach(self, request: pb.AttachRequest, context: Context) -> pb.AttachResponse:
        async def local() -> pb.AttachResponse:
            return await place(self._store, self._writer, request, caller_of(context).node_id)

        return await self._calls.on_leader(context, "Attach", request, pb.AttachResponse, local)


async def place(store: FollowedStore, writer: Writer, request: pb.AttachRequest, caller_id: str) -> pb.AttachResponse:
    """A place with addresses for a container of the calling node, or a refusal and no place."""
    task = await attach(writer, request, _node_of(store.view, caller_id))
    network = find_network(store.view, task.spec.networks[0].target)
    await _allocated(store, writer, task.id)
    return pb.AttachResponse(task_id=task.id, network=to_proto(network))


def _node_of(view: Tables, node_id: str) -> str:
    """The caller's. A certificate outlives the removal of its node; this is where it ends."""
    require_present(view, node_id)
    if node_id not in view.nodes:
        raise Forbidden(f"node {node_id} was removed from the swarm: leave, then join again")
    return node_id


async def attach(writer: Writer, request: pb.AttachRequest, node_id: str) -> Task:
    """The container's task on that network: the one it has, or a new one that waits for addresses."""
    refuse(list(_violations(request)))

    async def attempt() -> Task:
        view = writer.store.view
        network = find_network(view, request.network)
        known = _known(view, node_id, request.container_id, network.id)
        if known is not None:
            return known
        _check(view, network, node_id)
        task = _new_task(writer, network, request, node_id)
        await writer.store.propose([Create(task)])
        return task

    return await retried(attempt)


def _violations(request: pb.AttachRequest) -> Iterator[Violation]:
    for field in ("container_id", "container_name"):
        if _NAME.fullmatch(getattr(request, field)) is None:
            yield field, f"invalid {field.replace('_', ' ')} {getattr(request, field)[:64]!r}"
    yield from check_count(request.aliases, _MAX_ALIASES, "aliases", "aliases")
    for alias in request.aliases:
        if _NAME.fullmatch(alias) is None:
            yield "aliases", f"invalid alias {alias[:64]!r}"
    families = [is_ipv6(address) for address in request.addresses]
    if len(families) > len(set(families)):
        yield "addresses", "a container has one address of each family on a network"
    for address in request.addresses:
        if plain_address(address) != address or not ("." in address or ":" in address):
            yield "addresses", f"invalid address {address[:64]!r}"


def _known(view: Tables, node_id: str, container_id: str, network_id: str) -> Task | None:
    for task in plain_tasks(view, node_id):
        assert task.spec.attachment is not None
        is_wanted = task.desired_state <= TaskState.RUNNING and not task.status.state.is_terminal
        is_there = any(attachment.target == network_id for attachment in task.spec.networks)
        if is_wanted and is_there and task.spec.attachment.container_id == container_id:
            return task
    return None


def plain_tasks(view: Tables, node_id: str) -> Iterator[Task]:
    """The places that plain containers of the node have."""
    return (task for task in view.tasks_on(node_id) if task.spec.attachment is not None)


def _check(view: Tables, network: Network, node_id: str) -> None:
    if not network.spec.attachable or network.spec.ingress:
        raise Forbidden(f"network {network.spec.name} not manually attachable")
    if not has_addresses(network.spec):
        raise FailedPrecondition(
            f"network {network.spec.name} takes no plain containers: each node gives out its addresses, to tasks only"
        )
    if sum(1 for _ in plain_tasks(view, node_id)) >= MAX_PER_NODE:
        raise Exhausted(f"the plain containers of a node have {MAX_PER_NODE} places on networks of the swarm at most")


def _new_task(writer: Writer, network: Network, request: pb.AttachRequest, node_id: str) -> Task:
    target = NetworkAttachmentSpec(
        target=network.id, aliases=tuple(request.aliases), addresses=tuple(request.addresses)
    )
    return Task(
        id=writer.ids(),
        node_id=node_id,
        spec=TaskSpec(
            container=ContainerSpec(hostname=request.container_id[:_SHORT_ID]),
            networks=(target,),
            attachment=PlainAttachment(container_id=request.container_id, container_name=request.container_name),
        ),
        desired_state=TaskState.RUNNING,
        status=TaskStatus(timestamp=writer.clock(), state=TaskState.NEW, message="waiting for addresses"),
    )


async def _allocated(store: FollowedStore, writer: Writer, task_id: str) -> None:
    """Until the task has its addresses. It is taken back where it gets none: the container's user is told why."""
    changed = asyncio.Event()
    stop = store.subscribe(lambda _index, events: _tell(changed, task_id, (event.object.id for event in events)))
    try:
        async with asyncio.timeout(_ALLOCATION_TIMEOUT_S):
            while _is_waiting(store.view, task_id):
                await changed.wait()
                changed.clear()
    except TimeoutError:
        pass
    finally:
        stop()
    task = store.view.tasks.get(task_id)
    if task is None:
        raise Unavailable("the container's place on the network was removed meanwhile: try again")
    if task.status.state < TaskState.ASSIGNED:
        await writer.store.propose([Delete(Kind.TASK, task_id)])
        raise FailedPrecondition(f"the container gets no address: {task.status.message}")


def _tell(changed: asyncio.Event, task_id: str, ids: Iterator[str]) -> None:
    if task_id in ids:
        changed.set()


def _is_waiting(view: Tables, task_id: str) -> bool:
    """Whether the planner may still give it addresses at once: it says what is missing in a message of its own."""
    task = view.tasks.get(task_id)
    if task is None or task.status.state >= TaskState.ASSIGNED:
        return False
    return task.status.message in ("", "waiting for addresses")
