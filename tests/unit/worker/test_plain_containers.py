"""Plain containers on this node: asked for, kept through restarts and without managers, given back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from worker_fakes import NODE, eventually

from pyswarm.v1 import attachments_pb2 as pb
from pyswarm.v1 import types_pb2
from pyswarm_common.errors import (
    AlreadyExists,
    FailedPrecondition,
    Forbidden,
    InvalidArgument,
    NotFound,
    PyswarmError,
    Unavailable,
)
from pyswarm_common.model import (
    NetworkAttachment,
    PlainAttachment,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_overlay.types import Sandbox
from pyswarm_worker.core import plain as core
from pyswarm_worker.core.plain import Place, PlainRecord, Wanted
from pyswarm_worker.plain import PlainContainers
from pyswarm_worker.plain_file import PlainFile

ID = "c0ffee0123456789"


class Overlay:
    """Namespaces as files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sandboxes: dict[str, Sandbox] = {}

    async def attach(self, sandbox: Sandbox) -> str:
        self.sandboxes[sandbox.sandbox_id] = sandbox
        path = self.directory / sandbox.sandbox_id
        path.touch()
        return str(path)

    async def detach(self, sandbox_id: str) -> None:
        self.sandboxes.pop(sandbox_id, None)
        (self.directory / sandbox_id).unlink(missing_ok=True)


class Networks:
    internal_ids: tuple[str, ...] = ("closed",)

    async def sweep(self) -> None:
        pass


class Managers:
    """Give out places: tasks with addresses, which reach the node a moment later."""

    def __init__(self) -> None:
        self.node: PlainContainers | None = None
        self.tasks: dict[str, Task] = {}
        self.requests: list[pb.AttachRequest] = []
        self.refusal: PyswarmError | None = None
        self.taken: set[str] = set()
        self.assigns = True
        self._next = 0

    async def ask(self, request: pb.AttachRequest) -> pb.AttachResponse:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        if self.taken.intersection(request.addresses):
            raise FailedPrecondition("in use")
        known = next((task for task in self.tasks.values() if _is_for(task, request)), None) or self._new(request)
        if self.assigns:
            assert self.node is not None
            await self.node.assigned([known])
        network = types_pb2.Network(id=request.network, spec=types_pb2.NetworkSpec(name=f"{request.network}-name"))
        return pb.AttachResponse(task_id=known.id, network=network)

    def _new(self, request: pb.AttachRequest) -> Task:
        self._next += 1
        address = request.addresses[0] if request.addresses else f"10.5.0.{self._next}"
        task = Task(
            id=f"task{self._next}",
            node_id=NODE,
            spec=TaskSpec(attachment=PlainAttachment(container_id=request.container_id, container_name="mine")),
            desired_state=TaskState.RUNNING,
            status=TaskStatus(state=TaskState.ASSIGNED),
            networks=(NetworkAttachment(request.network, (f"{address}/24",)),),
        )
        self.tasks[task.id] = task
        return task

    async def forget(self) -> None:
        """As when the node was given up."""
        ids, self.tasks = list(self.tasks), {}
        assert self.node is not None
        await self.node.forgotten(ids)


def _is_for(task: Task, request: pb.AttachRequest) -> bool:
    assert task.spec.attachment is not None
    return task.spec.attachment.container_id == request.container_id and task.networks[0].network_id == request.network


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.overlay, self.managers = Overlay(directory), Managers()
        self.reports: dict[str, TaskState] = {}
        self.node = self.make()

    def make(self) -> PlainContainers:
        """A daemon; a second one finds what the first left."""
        self.node = PlainContainers(
            PlainFile(self.directory / "plain.json"), self.overlay, Networks(), self.managers.ask, self.report
        )
        self.managers.node = self.node
        self.node.load(self.managers.tasks.values())
        return self.node

    def report(self, task_id: str, status: TaskStatus) -> None:
        self.reports[task_id] = status.state
        if status.state is TaskState.SHUTDOWN and task_id in self.managers.tasks:
            del self.managers.tasks[task_id]
            asyncio.get_running_loop().create_task(self.node.forgotten([task_id]))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        work = asyncio.get_running_loop().create_task(self.node.run())
        try:
            yield
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def addresses(self) -> list[str]:
        return [address for one in self.overlay.sandboxes[ID].attachments for address in one.addresses]


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def attached(world: World, *networks: str) -> str:
    _, path = await world.node.attach(ID, "mine", [Wanted(network=name) for name in networks])
    return path


async def restarted(world: World) -> None:
    """Another daemon, which has what the file says."""
    await world.make().take_up()


async def test_a_container_gets_a_namespace_on_its_networks(world: World) -> None:
    path = await attached(world, "app")
    sandbox = world.overlay.sandboxes[ID]
    assert path == str(world.directory / ID)
    assert world.addresses() == ["10.5.0.1/24"]
    assert sandbox.attachments[0].aliases == ("mine",)
    assert (sandbox.hostname, sandbox.attachments[0].endpoint_id) == (ID[:12], "task1")
    assert world.reports == {"task1": TaskState.RUNNING}


async def test_without_networks_it_has_a_way_out_and_can_be_connected_later(world: World) -> None:
    await attached(world)
    assert world.overlay.sandboxes[ID].egress
    place = await world.node.connect("mine", Wanted(network="app", aliases=("other",)))
    assert (place.addresses, place.interface) == (("10.5.0.1/24",), "eth0")
    with pytest.raises(AlreadyExists, match="already exists in network app"):
        await world.node.connect(ID[:4], Wanted(network="app"))


async def test_interfaces_keep_their_names_when_others_go(world: World) -> None:
    await attached(world, "one", "two")
    await world.node.disconnect("mine", "one")
    assert [(a.network_id, a.interface) for a in world.overlay.sandboxes[ID].attachments] == [("two", "eth1")]
    await world.node.connect("mine", Wanted(network="three"))
    names = {a.network_id: a.interface for a in world.overlay.sandboxes[ID].attachments}
    assert names == {"two": "eth1", "three": "eth0"}


async def test_only_internal_networks_mean_no_way_out(world: World) -> None:
    await attached(world, "closed")
    assert not world.overlay.sandboxes[ID].egress


async def test_disconnecting_what_is_not_connected(world: World) -> None:
    await attached(world, "app")
    with pytest.raises(FailedPrecondition, match="container mine is not connected to network other"):
        await world.node.disconnect("mine", "other")
    with pytest.raises(NotFound, match="No such container: nobody"):
        await world.node.disconnect("nobody", "app")
    await world.node.disconnect("mine", "other", force=True)
    await world.node.disconnect("nobody", "app", force=True)


async def test_detaching_gives_everything_back(world: World) -> None:
    await attached(world, "one", "two")
    await world.node.detach("mine")
    assert world.overlay.sandboxes == {}
    assert world.managers.tasks == {}
    assert world.node.list() == []
    await world.node.detach("mine")


async def test_a_refusal_leaves_nothing(world: World) -> None:
    world.managers.refusal = Forbidden("network app not manually attachable")
    with pytest.raises(Forbidden, match="not manually attachable"):
        await attached(world, "app")
    assert world.overlay.sandboxes == {}
    assert world.node.list() == []


async def test_a_refused_connection_leaves_the_container_as_it_was(world: World) -> None:
    await attached(world, "one")
    world.managers.refusal = Unavailable("no manager is reachable")
    with pytest.raises(Unavailable):
        await world.node.connect("mine", Wanted(network="two"))
    assert world.addresses() == ["10.5.0.1/24"]


async def test_a_task_that_comes_before_its_answer_is_not_ended(world: World) -> None:
    async with world.running():
        await attached(world, "app")
        await asyncio.sleep(0)
        assert world.reports == {"task1": TaskState.RUNNING}


async def test_a_task_of_no_container_is_ended(world: World) -> None:
    await world.managers.ask(pb.AttachRequest(container_id="gone", network="app"))
    async with world.running():
        await eventually(lambda: world.reports.get("task1") is TaskState.SHUTDOWN)


async def test_a_restarted_daemon_takes_its_containers_up_without_managers(world: World) -> None:
    await attached(world, "app")
    world.overlay.sandboxes.clear()
    world.managers.refusal = Unavailable("no manager is reachable")
    node = world.make()
    await node.take_up()
    assert world.addresses() == ["10.5.0.1/24"]
    assert node.container_ids == (ID,)


async def test_after_a_reboot_nothing_is_kept_and_the_places_are_given_back(world: World) -> None:
    await attached(world, "app")
    (world.directory / ID).unlink()
    world.make()
    async with world.running():
        await eventually(lambda: world.managers.tasks == {})
    assert world.node.list() == []


async def test_a_damaged_file_is_told_and_begun_anew(world: World) -> None:
    (world.directory / "plain.json").write_text("{")
    assert world.make().list() == []


async def test_what_the_managers_forgot_is_asked_for_again_with_the_same_address(world: World) -> None:
    await attached(world, "app")
    async with world.running():
        await world.managers.forget()
        await eventually(lambda: "task2" in world.managers.tasks and world.reports.get("task2") is TaskState.RUNNING)
    assert list(world.managers.requests[-1].addresses) == ["10.5.0.1"]
    assert world.addresses() == ["10.5.0.1/24"]


async def test_an_address_that_somebody_else_has_by_now_is_changed(world: World) -> None:
    await attached(world, "app")
    world.managers.taken.add("10.5.0.1")
    async with world.running():
        await world.managers.forget()
        await eventually(lambda: world.addresses() == ["10.5.0.2/24"])


async def test_without_managers_a_forgotten_container_keeps_what_it_has(world: World) -> None:
    await attached(world, "app")
    world.managers.refusal = Unavailable("no manager is reachable")
    async with world.running():
        asked = len(world.managers.requests)
        await world.managers.forget()
        await eventually(lambda: len(world.managers.requests) > asked)
    assert world.addresses() == ["10.5.0.1/24"]


async def test_a_network_that_is_gone_is_taken_from_the_container(world: World) -> None:
    await attached(world, "app")
    async with world.running():
        world.managers.refusal = NotFound("network app not found")
        await world.managers.forget()
        await eventually(lambda: world.addresses() == [])
    await restarted(world)
    assert world.addresses() == []


async def test_what_the_managers_tell_to_stop_is_detached(world: World) -> None:
    await attached(world, "app")
    async with world.running():
        await world.node.assigned([replace(world.managers.tasks["task1"], desired_state=TaskState.REMOVE)])
        await eventually(lambda: world.reports["task1"] is TaskState.SHUTDOWN)
        await eventually(lambda: world.addresses() == [])
    await restarted(world)
    assert world.addresses() == []


async def test_a_restarted_daemon_does_not_go_back_to_a_network_that_was_left(world: World) -> None:
    await attached(world, "one", "two")
    await world.node.disconnect("mine", "one")
    await restarted(world)
    assert [one.network_id for one in world.overlay.sandboxes[ID].attachments] == ["two"]


async def test_leaving_the_cluster_removes_all_namespaces(world: World) -> None:
    await attached(world, "app")
    await world.node.clear()
    assert world.overlay.sandboxes == {}
    assert world.make().list() == []


async def test_two_containers_of_one_name(world: World) -> None:
    await attached(world)
    with pytest.raises(AlreadyExists, match="already in use"):
        await world.node.attach("other", "mine", [])


def record(*places: str) -> PlainRecord:
    made = tuple(
        Place(network_id=name, network_name=f"{name}-name", interface=f"eth{n}") for n, name in enumerate(places)
    )
    return PlainRecord(container_id=ID, name="mine", places=made)


def test_a_container_is_found_by_id_name_or_beginning() -> None:
    known = [record(), PlainRecord(container_id="c0ffff", name="c0ffee")]
    assert core.find(known, ID).name == "mine"
    assert core.find(known, "mine").name == "mine"
    assert core.find(known, "c0ffee").container_id == "c0ffff"
    with pytest.raises(InvalidArgument, match="Multiple IDs found"):
        core.find(known, "c0f")
    with pytest.raises(NotFound):
        core.find(known, "")


@given(st.lists(st.sampled_from(["join", "leave"]), max_size=20))
def test_no_two_interfaces_have_one_name(steps: list[str]) -> None:
    current, number = record(), 0
    for step in steps:
        if step == "join":
            number += 1
            place = Place(network_id=f"n{number}", network_name="", interface=core.free_interface(current))
            current = current.having(place)
        elif current.places:
            current = current.without(current.places[0].network_id)
        names = [place.interface for place in current.places]
        assert len(names) == len(set(names))
