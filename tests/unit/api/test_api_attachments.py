"""Plain containers ask for places on networks: who may, where, and what they are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manager_harness import Manager, Swarm, asked, make_identity, new_id, worker_node
from msgspec.structs import replace

from pyswarm.v1 import attachments_pb2 as pb
from pyswarm.v1 import attachments_pb2_grpc, control_pb2
from pyswarm_common.errors import FailedPrecondition, Forbidden, InvalidArgument, NotFound
from pyswarm_common.model import Network, NetworkAttachment, NetworkSpec, NodeRole, Task, TaskState, TaskStatus
from pyswarm_manager.api.attachments import _violations
from pyswarm_manager.store.changes import SetTaskStatus, Update

NODE = new_id()


def attachments(swarm: Swarm, manager: Manager | None = None) -> Any:
    identity = make_identity(swarm.root, NODE, NodeRole.WORKER)
    return attachments_pb2_grpc.AttachmentsStub(swarm.channel(manager or swarm.leader, identity))


async def prepare(swarm: Swarm, **spec: Any) -> Network:
    network = Network(id=new_id(), spec=NetworkSpec(name="app", **{"attachable": True, **spec}))
    await swarm.create(worker_node(NODE, "host1"), network)
    return network


def wanted(**changes: Any) -> pb.AttachRequest:
    return pb.AttachRequest(**{"container_id": "c0ffee", "container_name": "mine", "network": "app", **changes})


@contextlib.asynccontextmanager
async def planned(swarm: Swarm, message: str = "") -> AsyncIterator[None]:
    """A planner's part: addresses for every place, or a message that says what is missing."""

    async def run() -> None:
        async for _ in swarm.leader.store.watch(0):
            for task in list(swarm.leader.store.view.tasks.values()):
                if task.status.state is TaskState.NEW and task.status.message != message:
                    await swarm.leader.store.propose([_answer(task, message)])

    work = asyncio.get_running_loop().create_task(run())
    try:
        yield
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def _answer(task: Task, message: str) -> Update | SetTaskStatus:
    if message:
        return SetTaskStatus(task.id, TaskStatus(state=TaskState.NEW, message=message))
    networks = (NetworkAttachment(task.spec.networks[0].target, ("10.5.0.2/24",)),)
    return Update(replace(task, networks=networks, status=TaskStatus(state=TaskState.ASSIGNED)))


async def test_a_place_is_a_task_of_the_callers_node_and_asking_again_gives_the_same(swarm3: Swarm) -> None:
    network = await prepare(swarm3)
    follower = next(manager for manager in swarm3.managers if manager is not swarm3.leader)
    async with planned(swarm3):
        answer = await asked(attachments(swarm3, follower).Attach(wanted(aliases=["other"])))
        again = await asked(attachments(swarm3).Attach(wanted(network=network.id[:9])))
    task = swarm3.leader.store.view.tasks[answer.task_id]
    assert (answer.network.id, again.task_id) == (network.id, answer.task_id)
    assert (task.node_id, task.service_id, task.spec.networks[0].aliases) == (NODE, "", ("other",))
    assert task.spec.attachment is not None
    assert (task.spec.attachment.container_id, task.spec.attachment.container_name) == ("c0ffee", "mine")


async def test_places_are_no_tasks_for_users(swarm: Swarm) -> None:
    await prepare(swarm)
    async with planned(swarm):
        await asked(attachments(swarm).Attach(wanted()))
    listed = await asked(swarm.control().ListTasks(control_pb2.ListTasksRequest()))
    assert not listed.tasks


@pytest.mark.parametrize("spec", [{"attachable": False}, {"ingress": True}], ids=["closed", "ingress"])
async def test_what_is_not_attachable(swarm: Swarm, spec: dict[str, bool]) -> None:
    await prepare(swarm, **spec)
    with pytest.raises(Forbidden, match=r"^network app not manually attachable$"):
        await asked(attachments(swarm).Attach(wanted()))


async def test_a_network_whose_nodes_give_its_addresses_takes_none(swarm: Swarm) -> None:
    await prepare(swarm, driver="bridge")
    with pytest.raises(FailedPrecondition, match="network app takes no plain containers"):
        await asked(attachments(swarm).Attach(wanted()))


async def test_no_such_network(swarm: Swarm) -> None:
    await prepare(swarm)
    with pytest.raises(NotFound, match="nowhere"):
        await asked(attachments(swarm).Attach(wanted(network="nowhere")))


async def test_without_an_address_nothing_stays(swarm: Swarm) -> None:
    await prepare(swarm)
    async with planned(swarm, "no address left on network app"):
        with pytest.raises(FailedPrecondition, match="no address left on network app"):
            await asked(attachments(swarm).Attach(wanted()))
    assert not swarm.leader.store.view.tasks


@pytest.mark.parametrize(
    "changes",
    [
        {"container_id": ""},
        {"container_id": "../../etc"},
        {"container_name": "a b"},
        {"aliases": ["x" * 200]},
        {"aliases": ["a"] * 100},
        {"addresses": ["10.0.0.1", "10.0.0.2"]},
        {"addresses": ["FD00::1"]},
        {"addresses": ["nonsense"]},
    ],
)
async def test_bad_requests(swarm: Swarm, changes: dict[str, Any]) -> None:
    await prepare(swarm)
    with pytest.raises(InvalidArgument):
        await asked(attachments(swarm).Attach(wanted(**changes)))


@given(st.text(), st.text(), st.lists(st.text(), max_size=5), st.lists(st.text(), max_size=3))
def test_any_request_is_judged(container: str, name: str, aliases: list[str], addresses: list[str]) -> None:
    request = pb.AttachRequest(
        container_id=container, container_name=name, network="app", aliases=aliases, addresses=addresses
    )
    assert all(field and sentence for field, sentence in _violations(request))


async def test_people_and_other_nodes_containers(swarm: Swarm) -> None:
    """A person has no node: the certificate of one is needed."""
    await prepare(swarm)
    stranger = make_identity(swarm.root, new_id(), NodeRole.WORKER)
    stub = attachments_pb2_grpc.AttachmentsStub(swarm.channel(swarm.leader, stranger))
    with pytest.raises((Forbidden, NotFound)):
        await asked(stub.Attach(wanted()))
