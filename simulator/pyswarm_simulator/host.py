"""One host: its disk, its machine, and the processes on it, which it starts again when they end."""

from __future__ import annotations

import functools
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pyswarm.v1 import agent_pb2
from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.ids import id_from_bits
from pyswarm_common.model import GenericResource, Node, NodeDescription, NodeRole, Resources
from pyswarm_manager.bootstrap import Bootstrap
from pyswarm_simulator.disk import DiskThread, DiskWeather
from pyswarm_simulator.machine import MachineWeather, SimImages, SimOverlay, SimRuntime
from pyswarm_simulator.manager import ManagerProcess, RaftDisk, Surroundings
from pyswarm_simulator.network import address_of
from pyswarm_simulator.plain_containers import PlainContainersOnDisk, SimPlainFile, sim_asker
from pyswarm_simulator.sessions import dialler
from pyswarm_simulator.switchboard import Endpoint, Party, Switchboard
from pyswarm_simulator.task_files import SimTaskFiles
from pyswarm_simulator.world import EPOCH, ProcessLoop, new_loop
from pyswarm_worker.agent import Agent
from pyswarm_worker.server import AgentServicer
from pyswarm_worker.settings import AgentConfig, AgentHooks, AgentWires
from pyswarm_worker.store import AgentStore, connect

CLUSTER_ID = id_from_bits(1)
_CALL_TIMEOUT_S = 3.0
GIB = 1024**3


@functools.cache
def _authority() -> RootAuthority:
    return RootAuthority.create(CLUSTER_ID, EPOCH)


@functools.cache
def identity_of(node_id: str, role: NodeRole) -> NodeIdentity:
    """A node's certificate: real, and made once for all runs, since nothing depends on its key."""
    key = generate_key()
    root = _authority()
    lifetime_s = 365 * 24 * 3600.0
    cert = root.issue(
        make_csr(key), node_id=node_id, cluster_id=CLUSTER_ID, role=role, now=EPOCH, lifetime_s=lifetime_s
    )
    return NodeIdentity(cert, key_to_pem(key), root.cert_pem)


class Run(Surroundings, Protocol):
    """The run that hosts are part of."""

    def agent_opened(self, host: Host) -> None: ...
    def process_ended(self, host: Host, what: str, error: BaseException | None) -> None: ...
    def note(self, line: str) -> None: ...


@dataclass(slots=True)
class HostWeather:
    """How this host fares."""

    disk: DiskWeather = field(default_factory=DiskWeather)
    machine: MachineWeather = field(default_factory=MachineWeather)
    wall_skew_s: float = 0.0


class Host:
    """Everything at one address."""

    def __init__(self, run: Run, number: int, images: Sequence[str]) -> None:
        self.run, self.number, self.name = run, number, f"n{number}"
        self.node_id = id_from_bits(random.Random(number).getrandbits(128))
        self.weather = HostWeather()
        world = run.world
        self.runtime = SimRuntime(world, self.name, self.weather.machine)
        self.images = SimImages(world, self.weather.machine, images)
        self.overlay = SimOverlay()
        self.generic: tuple[GenericResource, ...] = ()
        self.files: dict[str, tuple[str, ...]] = {}
        """Ids of the secrets and configs that were put in place, by task."""
        self.plain = PlainContainersOnDisk()
        self.agent: Agent | None = None
        self.agent_loop: ProcessLoop | None = None
        self.manager: ManagerProcess | None = None
        self.raft_disk: RaftDisk | None = None
        self.raft_id = 0
        self.bootstrap: Bootstrap | None = None
        self.known_managers: tuple[str, ...] = ()
        """Those that the agent was told to begin with."""
        self.join: tuple[str, ...] = ()
        """Whom the manager may ask to be let in; kept in its settings on disk."""
        self.told: Node | None = None
        """What the managers said of this node at last; the daemon forgets it when it ends."""
        self.certificate = NodeRole.WORKER
        self.is_manager_removed = False
        """It ended because the others had removed it, and is not started again."""
        self.is_up = True
        self.has_joined = False
        """It was answered with a certificate; before that there is no agent."""
        self.is_scrapped = False
        """Removed from the cluster without power: nobody will start it again."""
        self._database = _new_database()
        self._starts = 0
        rng = world.rng
        self.clock_rate = 1.0 + rng.uniform(-0.01, 0.01)
        self._boot_offset = rng.uniform(0, 1000.0)

    def wall(self) -> float:
        """What its calendar shows."""
        return EPOCH + self.run.world.now + self.weather.wall_skew_s

    @property
    def agent_address(self) -> str:
        return address_of(self.name, 7946)

    @property
    def manager_address(self) -> str:
        return address_of(self.name, 2377)

    @property
    def loops(self) -> list[ProcessLoop]:
        """Of the processes that live."""
        found = (self.agent_loop, self.manager.loop if self.manager is not None else None)
        return [loop for loop in found if loop is not None and loop.is_alive]

    def _new_loop(self, what: str) -> ProcessLoop:
        self._starts += 1
        name = f"{self.name}.{what}.{self._starts}"
        return new_loop(self.run.world, name, rate=self.clock_rate, started_at=self._boot_offset)

    # -- the agent -----------------------------------------------------------------------------------------------------

    def start_agent(self) -> None:
        """The daemon starts, and takes up what the last one left."""
        loop = self.agent_loop = self._new_loop("agent")
        self.told = None
        self.runtime.serve(loop)
        task = loop.spawn(self._run_agent(loop))
        task.add_done_callback(lambda done: self._agent_ended(loop, done))

    async def _run_agent(self, loop: ProcessLoop) -> None:
        run = self.run
        party = Party(self.name, loop)
        thread = DiskThread(run.world, loop, self.weather.disk)
        hooks = AgentHooks(
            identity=self._identity,
            describe=self._describe,
            local_manager=self._local_manager,
            on_node=self._on_node,
            on_data_path_port=lambda port: None,
        )
        wires = AgentWires(
            dial=dialler(run.network, run.board, party, lambda: self._identity().cert_pem),
            connect=_peers(run.board, party),
            serve=lambda servicer, address: _AgentServer(run.board, party, self.agent_address, servicer),
            clock=self.wall,
            uniform=run.world.rng.uniform,
            files=functools.partial(SimTaskFiles, self.files),
            ask_place=sim_asker(run.board, party, self._asked_managers),
            plain_file=functools.partial(SimPlainFile, run.world, self.plain),
        )
        config = AgentConfig(Path("/nowhere"), f"10.9.0.{self.number}", managers=self.known_managers)
        store = AgentStore(self._database, thread)
        agent = await Agent.open(config, hooks, self.runtime, self.images, self.overlay, store=store, wires=wires)
        self.agent = agent
        run.agent_opened(self)
        await agent.run()

    def _identity(self) -> NodeIdentity:
        return identity_of(self.node_id, self.certificate)

    def _asked_managers(self) -> tuple[str, ...]:
        return self.agent.managers if self.agent is not None else self.known_managers

    def _on_node(self, node: Node) -> None:
        self.told = node

    @property
    def is_agent_up(self) -> bool:
        return self.agent_loop is not None and self.agent_loop.is_alive

    def certify(self, role: NodeRole) -> None:
        """The node has another certificate: its agent dials anew."""
        self.certificate = role
        if self.agent is not None and self.agent_loop is not None:
            self.agent_loop.spawn(self.agent.identity_changed())

    def _describe(self) -> NodeDescription:
        return NodeDescription(
            hostname=self.name,
            os="linux",
            architecture="amd64",
            resources=Resources(nano_cpus=8_000_000_000, memory_bytes=16 * GIB, generic=self.generic),
            engine_version="simulated",
            data_path_address=f"10.9.0.{self.number}",
            agent_address=self.agent_address,
        )

    def _local_manager(self) -> str | None:
        return self.manager_address if self.manager is not None and self.manager.loop.is_alive else None

    def _agent_ended(self, loop: ProcessLoop, done: Any) -> None:
        if loop.is_alive:
            self.run.process_ended(self, "agent", None if done.cancelled() else done.exception())

    # -- the manager ---------------------------------------------------------------------------------------------------

    @property
    def is_manager_set_up(self) -> bool:
        return self.raft_disk is not None and not self.is_manager_removed

    def introduce(self) -> None:
        """The manager's settings name the managers that the agent knows now."""
        known = self.agent.managers if self.agent is not None else self.known_managers
        self.join = tuple(address for address in known if address != self.manager_address) or self.join

    def lose_log(self) -> None:
        """What the manager wrote is gone: it must never speak under its raft id again, and joins under another."""
        self.kill_manager()
        self.introduce()
        self.raft_disk, self.bootstrap = None, None
        self.prepare_manager()

    def start_manager(self) -> None:
        """The daemon starts the manager's process: anew, or from what its disk holds."""
        self.prepare_manager()
        assert self.raft_disk is not None
        loop = self._new_loop("manager")
        manager = ManagerProcess(
            self.run,
            self.name,
            loop,
            self.raft_disk,
            self.weather.disk,
            (self.node_id, self.raft_id),
            wall_skew_s=lambda: self.weather.wall_skew_s,
            bootstrap=self.bootstrap,
            join=lambda: self.join,
        )
        self.manager = manager
        task = loop.spawn(manager.main())
        task.add_done_callback(lambda done: self._manager_ended(manager, done))

    def prepare_manager(self) -> None:
        """A disk for a manager, and a raft id, unless it has them."""
        if self.raft_disk is None:
            self.raft_disk = RaftDisk(self.weather.disk)
            self.raft_id = self.run.world.rng.getrandbits(62) + 1

    def _manager_ended(self, manager: ManagerProcess, done: Any) -> None:
        if manager.loop.is_alive and self.manager is manager:
            manager.loop.kill()
            self.run.process_ended(self, "manager", None if done.cancelled() else done.exception())

    def wipe_manager(self) -> None:
        """It is no manager any more, and keeps nothing of what it was."""
        if self.manager is not None:
            self.manager.loop.kill()
        self.manager, self.raft_disk, self.raft_id, self.bootstrap = None, None, 0, None
        self.is_manager_removed = False

    # -- what befalls it -----------------------------------------------------------------------------------------------

    def kill_agent(self) -> None:
        """kill -9; containers run on."""
        if self.agent_loop is not None:
            self.agent_loop.kill()
        self.agent = None

    def kill_manager(self) -> None:
        """kill -9; its disk keeps what reached it."""
        if self.manager is not None:
            self.manager.loop.kill()

    def power_off(self) -> None:
        """Everything on it ends, unsynced writes are lost, and nobody is told."""
        self.is_up = False
        for loop in self.loops:
            loop.resets_connections = False
        self.kill_agent()
        self.kill_manager()
        if self.raft_disk is not None:
            self.raft_disk.crash()
        self.runtime.power_off()
        self.overlay.power_off()
        self.plain.power_off()
        self.files.clear()

    def power_on(self) -> None:
        """Boot: the daemon starts, and the manager if there is one."""
        self.is_up = True
        self.start_daemon()

    def joined(self) -> None:
        """The cluster has answered: the agent starts, now or with the host."""
        self.has_joined = True
        if self.is_up and self.agent_loop is None:
            self.start_agent()

    def start_daemon(self) -> None:
        """Agent and manager, as far as its state and its certificate say."""
        if self.has_joined:
            self.start_agent()
        self.is_manager_removed = False
        if self.raft_disk is not None and self.certificate is NodeRole.MANAGER:
            self.start_manager()


def _new_database() -> sqlite3.Connection:
    """The agent's, in memory: a transaction is in it or not, and it outlives the agent's process."""
    return connect(Path(":memory:"))


class _AgentServer:
    """What the agent serves to other nodes, at its address."""

    def __init__(self, board: Switchboard, party: Party, address: str, servicer: AgentServicer) -> None:
        self._board, self._party, self._address, self._servicer = board, party, address, servicer

    async def start(self, identity: NodeIdentity) -> int:
        endpoint = Endpoint(
            self._party,
            {"GetImage": self._get_image, "ReadBlob": self._read_blob, "GetManagers": self._get_managers},
        )
        self._board.listen(self._address, endpoint)
        return 7946

    async def stop(self) -> None:
        """The process ends soon, and its endpoint with it."""

    async def _get_image(self, host: str, reference: str) -> bytes:
        answer = await self._servicer.GetImage(agent_pb2.GetImageRequest(reference=reference), None)
        return answer.SerializeToString()

    async def _get_managers(self, host: str, question: None) -> bytes:
        answer = await self._servicer.GetManagers(agent_pb2.GetManagersRequest(), None)
        return answer.SerializeToString()

    async def _read_blob(self, host: str, question: tuple[str, int]) -> list[bytes]:
        digest, offset = question
        request = agent_pb2.ReadBlobRequest(digest=digest, offset=offset)
        return [chunk.data async for chunk in self._servicer.ReadBlob(request, None)]


class _SimPeer:
    """Another node's agent, as the image fetcher sees it."""

    def __init__(self, board: Switchboard, party: Party, address: str) -> None:
        self._board, self._party, self._address = board, party, address

    async def get_image(self, reference: str) -> agent_pb2.GetImageResponse:
        data = await self._board.call(self._party, self._address, "GetImage", reference, _CALL_TIMEOUT_S)
        return agent_pb2.GetImageResponse.FromString(data)

    async def get_managers(self) -> agent_pb2.GetManagersResponse:
        data = await self._board.call(self._party, self._address, "GetManagers", None, _CALL_TIMEOUT_S)
        return agent_pb2.GetManagersResponse.FromString(data)

    async def read_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        chunks = await self._board.call(self._party, self._address, "ReadBlob", (digest, offset), _CALL_TIMEOUT_S)
        for chunk in chunks:
            yield chunk


def _peers(board: Switchboard, party: Party) -> Callable[[str], Any]:
    @asynccontextmanager
    async def connect_to(address: str) -> AsyncIterator[_SimPeer]:
        yield _SimPeer(board, party, address)

    return connect_to
