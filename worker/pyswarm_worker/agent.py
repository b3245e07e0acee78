"""The agent of one node: composes session, tasks, networks, images and the state on disk.

Decides the order in which an arriving message takes effect: first it is on disk, then networks, then tasks; and what a
restart does: networks as they were known, running containers taken up again, those of ended tasks kept, containers
without a task stopped and removed. It needs no manager for any of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.codec import from_proto, to_proto
from pyswarm_common.errors import PyswarmError
from pyswarm_common.identity.locks import Locked
from pyswarm_common.model import Node, Task, TaskStatus
from pyswarm_runtime.reference import parse_reference
from pyswarm_runtime.types import ContainerState

from .attaching import asker
from .core.assembly import sandbox, uses_host_network
from .core.assignments import AssignmentChange, change_of
from .core.materials import NodeFacts
from .images import ImageFetcher
from .inquiries import Inquiries
from .known_managers import KnownManagers
from .networks import Networks
from .peers import connector
from .plain import PlainContainers
from .ports import ContainerRuntime, ImageStore, Overlay
from .server import AgentServicer
from .session import Removed, Session
from .session_log import SessionLog
from .settings import REAL, AgentConfig, AgentHooks, AgentWires
from .statistics import Statistics
from .statuses import StatusOutbox
from .store import (
    AgentStore,
    Operation,
    SavedState,
    drop_table,
    drop_task,
    put_ingress,
    put_table,
    put_task,
    put_trust,
)
from .tasks import Host, Tasks, has_started, task_id_of
from .trust import RemovedNodes
from .tunnels import assign_peers

_log = logging.getLogger(__name__)

_MAX_REFERENCES = 1_000
_ORPHAN_GRACE_S = 10.0


class Agent:
    """Make one with `open`, then `run` it; `close` leaves every container running."""

    def __init__(
        self,
        config: AgentConfig,
        hooks: AgentHooks,
        runtime: ContainerRuntime,
        images: ImageStore,
        overlay: Overlay,
        *,
        store: AgentStore,
        wires: AgentWires = REAL,
    ) -> None:
        self._config = config
        self._hooks = hooks
        self._runtime = runtime
        self._images = images
        self._overlay = overlay
        self._store = store
        self._outbox = StatusOutbox(store)
        self._known = KnownManagers(config.managers, config.seeds)
        self._session = Session(
            hooks.identity,
            self._managers,
            self,
            self._outbox,
            dial=wires.dial,
            uniform=wires.uniform,
            removal=hooks.removal,
        )
        self._session_log = SessionLog(asyncio.get_running_loop().time())
        self._networks = Networks(overlay, self._session.say, self._forget_network)
        self._tunnels = wires.tunnels
        connect = wires.connect or connector(hooks.identity)
        self._inquiries = Inquiries(self._known, connect, wires.uniform)
        fetcher = ImageFetcher(images, self._locate_image, connect, wires.pull)
        self.files = wires.files(config.task_files, self._facts)
        host = Host(runtime, images, overlay, self._networks, fetcher, self.files)
        self.tasks = Tasks(host, on_status=self._outbox.add, on_gone=self._outbox.forget, clock=wires.clock)
        plain_file = wires.plain_file(config.state_dir / "plain.json")
        ask = wires.ask_place or asker(hooks.identity, self._asked_managers)
        self.plain = PlainContainers(plain_file, overlay, self._networks, ask, self._outbox.add, wires.clock)
        self._statistics = Statistics(runtime, self.tasks, self._session.say, asyncio.get_running_loop().time)
        self._removed = RemovedNodes(wires.clock, asyncio.get_running_loop().time)
        servicer = AgentServicer(
            self.tasks,
            runtime,
            images,
            self._name,
            self._removed.gate,
            lambda: self.managers,
            wires.access,
            wires.inspector,
        )
        self._server = wires.serve(servicer, config.listen_address)
        self._orphans: set[asyncio.Task[None]] = set()
        self.port = 0
        self.error = ""
        self.has_had_session = False
        self.is_removed = False

    @classmethod
    async def open(
        cls,
        config: AgentConfig,
        hooks: AgentHooks,
        runtime: ContainerRuntime,
        images: ImageStore,
        overlay: Overlay,
        *,
        store: AgentStore | None = None,
        wires: AgentWires = REAL,
    ) -> Agent:
        """Takes up what the last daemon left, then listens. No manager is needed for that."""
        store = store or await AgentStore.open(config.state_dir / "agent.db")
        agent = cls(config, hooks, runtime, images, overlay, store=store, wires=wires)
        try:
            await agent._take_up(await store.load())
            with contextlib.suppress(Locked):  # nobody could verify it: it listens once the node's key is unlocked
                agent.port = await agent._server.start(hooks.identity())
        except BaseException:
            await agent.close()
            raise
        return agent

    async def run(self) -> None:
        """Until cancelled. A node that was removed from its cluster stops its tasks and stays as it is."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._outbox.run())
            group.create_task(self.tasks.run_exits())
            group.create_task(self._networks.run_retries())
            group.create_task(self._inquiries.run())
            group.create_task(self._statistics.run())
            group.create_task(self.plain.run())
            group.create_task(self._run_session())

    async def _run_session(self) -> None:
        try:
            await self._session.run()
        except Removed as removed:
            self.is_removed = True
            self.error = f"this node was removed from its cluster: leave it, then join again ({removed})"
            _log.error("%s", self.error)
            await self.stop_tasks()

    async def stop_tasks(self) -> None:
        """Stop and remove every task's container, its networks and published ports."""
        ids = (*self.tasks.ids, *self.plain.task_ids)
        await self._store.write(operation for task_id in ids for operation in drop_task(task_id))
        for task_id in self.tasks.ids:
            self.tasks.forget(task_id)
        await self.tasks.wait_gone()
        await self.plain.clear()
        await self._networks.apply((), self._networks.ids, pb.IngressTable())

    async def close(self) -> None:
        await self._server.stop()
        await self.tasks.close()
        for orphan in self._orphans:
            orphan.cancel()
        await asyncio.gather(*self._orphans, return_exceptions=True)
        await self._store.close()

    # ---------------------------------------------------------------- what the daemon asks and tells

    @property
    def is_connected(self) -> bool:
        return self._session.is_up

    @property
    def is_busy(self) -> bool:
        """Tasks come or go, or what is known of their networks changes."""
        return self.tasks.is_busy or self._networks.is_busy

    @property
    def managers(self) -> tuple[str, ...]:
        return self._known.addresses

    def description_changed(self) -> None:
        """The node says something else of itself than before."""
        self._session.say(pb.AgentMessage(description=to_proto(self._hooks.describe())))

    def images_changed(self) -> None:
        """The image store has other references than before."""
        self._session.images_changed()

    async def identity_changed(self) -> None:
        """The node has a new certificate: serve and dial with it."""
        await self.trust_changed()
        self._session.redial()

    async def trust_changed(self) -> None:
        """The node trusts other roots than before: whoever connects from now on is held to them."""
        self.port = await self._server.start(self._hooks.identity())

    # ---------------------------------------------------------------- the session's listener

    def hello(self) -> pb.Hello:
        return pb.Hello(description=to_proto(self._hooks.describe()), address=self._config.address)

    async def on_started(self, started: pb.SessionStarted) -> None:
        self.error, self.has_had_session = "", True
        self._session_log.started(self._session.manager)
        self._known.session_started()
        await self._learn_managers(started.managers)
        if started.data_path_port:
            self._hooks.on_data_path_port(started.data_path_port)
        self._hooks.on_node(from_proto(Node, started.node))

    async def on_message(self, message: pb.ManagerMessage) -> None:
        match message.WhichOneof("message"):
            case "assignments":
                await self._assign(message.assignments)
            case "trust":
                await self._trust(message.trust)
            case "statistics_wanted":
                self._statistics.ask(message.statistics_wanted)
            case "managers":
                await self._learn_managers(message.managers)
            case "node":
                self._hooks.on_node(from_proto(Node, message.node))
            case other:
                _log.warning("a message of an unknown kind was passed over: %s", other)

    async def inventory(self) -> pb.ImageInventory:
        images = sorted(await self._images.list(), key=lambda image: -image.created_at)
        references = [parse_reference(name).familiar() for image in images for name in image.references]
        return pb.ImageInventory(references=references[:_MAX_REFERENCES])

    def on_broken(self, reason: str) -> None:
        self._session_log.broken(reason, asyncio.get_running_loop().time())
        self._known.session_broken()
        self.error = reason

    async def _assign(self, message: pb.Assignments) -> None:
        change = change_of(message, (*self.tasks.ids, *self.plain.task_ids), self._networks.ids)
        tables = self._networks.fitting(change.tables)
        operations: list[Operation] = [put_task(task) for task in change.update_tasks]
        operations += [operation for task_id in change.remove_task_ids for operation in drop_task(task_id)]
        operations += [operation for table in tables for operation in put_table(table)]
        if change.ingress is not None:
            operations.append(put_ingress(change.ingress))
        if operations:
            await self._store.write(operations)
        is_complete = message.type == pb.Assignments.TYPE_COMPLETE
        await assign_peers(self._tunnels, message)
        self.files.learn(change.update_files, change.remove_file_ids, complete=is_complete)
        await self._networks.apply(tables, change.remove_network_ids, change.ingress)
        if is_complete:
            await self._networks.remove_unknown()
            await self.files.sweep({*self.tasks.ids, *(task.id for task in change.update_tasks)})
        for task_id in change.remove_task_ids:
            self.tasks.forget(task_id)
        for task in change.update_tasks:
            if task.spec.attachment is None:
                self.tasks.update(task)
        await self._assign_plain(change)

    async def _assign_plain(self, change: AssignmentChange) -> None:
        for task_id in set(change.remove_task_ids).intersection(self.plain.task_ids):
            self._outbox.forget(task_id)
        await self.plain.forgotten(change.remove_task_ids)
        await self.plain.assigned(task for task in change.update_tasks if task.spec.attachment is not None)

    async def _learn_managers(self, managers: pb.ManagerList) -> None:
        if kept := self._known.learn(managers):
            await self._store.write(kept)

    async def _trust(self, update: pb.TrustUpdate) -> None:
        kept = self._removed.learn(update)
        if kept is not None:
            await self._store.write([put_trust(kept)])
        if update.root_ca_certs and update.root_ca_certs != self._hooks.identity().root_cert_pem:
            self._hooks.on_roots(update.root_ca_certs)

    # ---------------------------------------------------------------- for the parts

    def _managers(self) -> Sequence[str]:
        local = self._hooks.local_manager()
        return (*((local,) if local else ()), *self._known.candidates())

    def _asked_managers(self) -> Sequence[str]:
        """Those to ask for something: first the one that leads."""
        return (*((self._session.manager,) if self._session.is_up else ()), *self._managers())

    async def is_in_cluster(self, reference: str) -> bool:
        """Whether some node has an image under that name. Unavailable while no manager can tell."""
        return await self._images.exists(reference) or bool(await self._session.locate_image(reference))

    async def _locate_image(self, reference: str) -> list[str]:
        own = self._hooks.describe().agent_address
        return [address for address in await self._session.locate_image(reference) if address != own]

    async def _forget_network(self, network_id: str) -> None:
        await self._store.write(drop_table(network_id))

    def _facts(self) -> NodeFacts:
        return NodeFacts.of(self._hooks.identity().node_id, self._hooks.describe())

    def _name(self) -> tuple[str, str]:
        return self._hooks.identity().node_id, self._hooks.describe().hostname

    # ---------------------------------------------------------------- after a restart

    async def _take_up(self, saved: SavedState) -> None:
        self._known.load(saved)
        self._removed.load(saved.trust)
        self._outbox.restore(saved.statuses, saved.unacknowledged)
        await self._networks.restore(saved.tables, saved.ingress)
        containers = await self._adopted_containers(saved)
        running = [task_id for task_id, state in containers.items() if state.status != "exited"]
        plain = [task for task in saved.tasks.values() if task.spec.attachment is not None]
        self.plain.load(plain)
        await self._overlay.retain([*running, *self.plain.container_ids])
        await self.plain.take_up()
        await asyncio.gather(*(self._reattach(saved, task_id) for task_id in running))
        for task_id, task in saved.tasks.items():
            if task.spec.attachment is not None:
                continue
            self.tasks.resume(task, _known_status(saved, task), containers.get(task_id))
        if running:
            _log.info("%d running containers taken up again", len(running))

    async def _reattach(self, saved: SavedState, task_id: str) -> None:
        """A sandbox that cannot be brought up again now is left to its container; the overlay repairs what it can."""
        task = saved.tasks[task_id]
        if uses_host_network(task):
            return
        try:
            await self._overlay.attach(sandbox(task, self._networks.internal_ids))
        except PyswarmError as error:
            _log.warning("networks of task %s cannot be taken up: %s", task_id, error)

    async def _adopted_containers(self, saved: SavedState) -> dict[str, ContainerState]:
        """The containers of our tasks that have started. Others of ours go: half-made, doubled, or without a task."""
        kept: dict[str, ContainerState] = {}
        unwanted = []
        for state in sorted(await self._runtime.list(), key=lambda state: -state.created_at):
            task_id = task_id_of(state)
            if not task_id:
                continue  # not a task's container
            if task_id in saved.tasks and task_id not in kept and has_started(state) and not _is_stray(saved, state):
                kept[task_id] = state
            elif task_id in saved.tasks and not has_started(state):
                await self._runtime.remove(state.id, force=True)  # its task will make it again, under the same name
            else:
                unwanted.append(state)
        for state in unwanted:
            self._orphans.add(asyncio.create_task(self._remove_orphan(state)))
        return kept

    async def _remove_orphan(self, state: ContainerState) -> None:
        _log.info("container %s has no task: stopping and removing it", state.config.name)
        try:
            await self._runtime.stop(state.id, _ORPHAN_GRACE_S)
            await self._runtime.remove(state.id, force=True)
        except PyswarmError as error:
            _log.warning("container %s cannot be removed: %s", state.id[:12], error)


def _is_stray(saved: SavedState, state: ContainerState) -> bool:
    """Runs although its task has ended: it could not be stopped then."""
    return _known_status(saved, saved.tasks[task_id_of(state)]).state.is_terminal and state.status != "exited"


def _known_status(saved: SavedState, task: Task) -> TaskStatus:
    """What was reported last; that the task has ended may be known of the managers alone."""
    return task.status if task.status.state.is_terminal else saved.statuses.get(task.id, task.status)
