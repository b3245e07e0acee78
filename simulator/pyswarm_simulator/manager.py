"""A manager's process: what `pyswarm_manager.process` composes, with the simulator's clock, disk and network.

The Raft node, the store, the planner, the roles loop, the dispatcher and the writes of the API are the product's. What
the daemon around it does (a process that ends is started again, a removed manager's state is wiped) is the host's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from pyswarm_common.errors import OutOfSequence, Unavailable, Unknown
from pyswarm_common.ids import id_from_bits
from pyswarm_manager.autoscale.autoscaler import Autoscaler
from pyswarm_manager.bootstrap import Bootstrap, missing_changes
from pyswarm_manager.ca.roles import run_roles
from pyswarm_manager.dispatcher.dispatcher import Dispatcher, NotLeading
from pyswarm_manager.dispatcher.servicer import DispatcherServicer
from pyswarm_manager.files.upkeep import run_files
from pyswarm_manager.leader import run_planner
from pyswarm_manager.leadership import Loop, lead_while_leader
from pyswarm_manager.raft.core.types import Entry, HardState, LogLost, Snapshot
from pyswarm_manager.raft.driver import RaftConfig, RaftNode
from pyswarm_manager.raft.ports import StateMachine
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_manager.raft.storage.port import StorageFull
from pyswarm_manager.store.store import Store
from pyswarm_manager.writes import Writer
from pyswarm_simulator.answers import Answers
from pyswarm_simulator.disk import DiskThread, DiskWeather
from pyswarm_simulator.network import Network, address_of
from pyswarm_simulator.raft_transport import Receiver, SimTransport
from pyswarm_simulator.switchboard import Endpoint, NoAnswer, Party, Switchboard
from pyswarm_simulator.world import EPOCH, ProcessLoop, World

TICK_S = 0.1
JOIN_TIMEOUT_S = 3.0
JOIN_PAUSE_S = 0.3
ASK_AROUND_S = 1.0
REMOVE_FILES_S = 10.0


class RemovedFromCluster(Exception):
    """The other managers took this one out."""


class RaftDisk(MemoryStorage):
    """One manager's log on its host's disk, which may be full, and which a killed process may have left unsynced."""

    def __init__(self, weather: DiskWeather) -> None:
        super().__init__()
        self._weather = weather

    def save(self, hard_state: HardState, entries: Sequence[Entry], snapshot: Snapshot | None) -> None:
        self._refuse_if_full()
        super().save(hard_state, entries, snapshot)

    def save_snapshot(self, snapshot: Snapshot, first_kept: int) -> None:
        self._refuse_if_full()
        super().save_snapshot(snapshot, first_kept)

    def sync(self) -> None:
        """Not by a process that is gone."""
        if not self._weather.is_cut_short:
            super().sync()

    def _refuse_if_full(self) -> None:
        if self._weather.is_full:
            raise StorageFull("no space left on device")


class Watcher(Protocol):
    """Who looks at what managers do."""

    def machine(self, manager: ManagerProcess, store: Store) -> StateMachine:
        """The store as Raft's state machine, watched."""
        ...

    def opened(self, manager: ManagerProcess) -> None:
        """Its Raft node was made."""
        ...


class Surroundings(Protocol):
    """The run that managers are part of."""

    world: World
    network: Network
    board: Switchboard
    watcher: Watcher
    raft_options: Mapping[str, Any]

    def manager_at(self, address: str) -> Receiver | None: ...


class ManagerProcess:
    """From its start to its end; its disk is its host's."""

    def __init__(
        self,
        run: Surroundings,
        host: str,
        loop: ProcessLoop,
        disk: RaftDisk,
        weather: DiskWeather,
        identity: tuple[str, int],
        *,
        wall_skew_s: Callable[[], float],
        bootstrap: Bootstrap | None = None,
        join: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`identity` is (node id, raft id). `join`: managers that the daemon knows, to ask to be let in, and where the
        others are."""
        self._run, self.host, self.loop, self.disk = run, host, loop, disk
        self.node_id, self.raft_id = identity
        self.address = address_of(host, 2377)
        self.raft: RaftNode | None = None
        self.store: Store | None = None
        self._thread = DiskThread(run.world, loop, weather)
        self._wall_skew_s, self._bootstrap, self._join = wall_skew_s, bootstrap, join
        self._removed = asyncio.Event()
        self.transport = SimTransport(
            run.network, host, self.raft_id, self.address, loop, run.manager_at, self._removed.set
        )

    def wall(self) -> float:
        """What its host's calendar shows."""
        return EPOCH + self._run.world.now + self._wall_skew_s()

    @property
    def is_writing(self) -> bool:
        """Whether its disk has something to do for it."""
        return self._thread.is_busy

    def _new_id(self) -> str:
        return id_from_bits(self._run.world.rng.getrandbits(128))

    async def main(self) -> None:
        """Until it is killed, removed, or fails."""
        run, world = self._run, self._run.world
        store = Store(self.wall)
        config = RaftConfig(raft_id=self.raft_id, address=self.address, **run.raft_options)
        is_first = self._bootstrap is not None and self.disk.load() is None
        raft = await RaftNode.open(
            config,
            self.disk,
            self.transport,
            run.watcher.machine(self, store),
            {self.raft_id: self.address} if is_first else None,
            writer=self._thread,
            random_below=world.rng.randrange,
            clock_us=lambda: int(self.loop.time() * 1_000_000),
        )
        store.connect(raft)
        self.raft, self.store = raft, store
        run.watcher.opened(self)
        async with asyncio.TaskGroup() as group:
            group.create_task(raft.run())
            group.create_task(self._serve(raft, store))
            group.create_task(self._get_in(raft))
            group.create_task(self._watch_removal(raft))
            group.create_task(self._ask_around(raft))

    # -- what the leader runs ------------------------------------------------------------------------------------------

    async def _serve(self, raft: RaftNode, store: Store) -> None:
        world = self._run.world
        silent = partial(_silent_members, raft)
        autoscaler = Autoscaler(store, self.wall, self.loop.time)
        dispatcher = Dispatcher(
            store,
            self.wall,
            self._new_id,
            lambda: raft.leader_address,
            silent,
            self.loop.time,
            on_usage=autoscaler.report,
        )
        servicer = DispatcherServicer(dispatcher)
        writer = Writer(store, raft, self._new_id, self.wall)
        endpoint = Endpoint(Party(self.host, self.loop), session=servicer.session)
        endpoint.unary = Answers(writer, raft, store, dispatcher, self._node_of).handlers()
        self._run.board.listen(self.address, endpoint)
        loops: list[Loop] = [
            partial(self._commit_bootstrap, store),
            partial(run_planner, store, self._new_id, world.rng.random, self.wall, handover=dispatcher.handover),
            dispatcher.run,
            autoscaler.run,
            partial(run_roles, store, raft),
            partial(run_files, store, REMOVE_FILES_S),
        ]
        await lead_while_leader(raft, loops)

    def _node_of(self, host: str) -> str:
        store = self.store
        assert store is not None
        return next((n.id for n in store.view.nodes.values() if n.description.hostname == host), "")

    async def _commit_bootstrap(self, store: Store) -> None:
        if self._bootstrap is None:
            return
        changes = missing_changes(store.view, self._bootstrap, self._new_id)
        if changes:
            await store.propose(changes)

    # -- membership ----------------------------------------------------------------------------------------------------

    async def _get_in(self, raft: RaftNode) -> None:
        """As a node does that is to be a manager: ask whoever is known, until let in."""
        while self._join() and raft.raft_id not in raft.members:
            for address in self._join():
                if await self._is_let_in(address, raft):
                    break
            await asyncio.sleep(JOIN_PAUSE_S)

    async def _is_let_in(self, address: str, raft: RaftNode) -> bool:
        question = (self.node_id, self.raft_id, self.address, raft.last_index)
        try:
            try:
                needs_new_raft_id = await self._call(address, "JoinRaft", question)
            except NotLeading as elsewhere:  # a follower passes it on
                if elsewhere.leader_address is None:
                    return False
                needs_new_raft_id = await self._call(elsewhere.leader_address, "JoinRaft", question)
        except (Unavailable, NoAnswer, Unknown, OutOfSequence):
            return False
        if needs_new_raft_id and raft.raft_id not in raft.members:
            raise LogLost("removed, or forgotten")
        return True

    async def _call(self, address: str, method: str, question: object) -> Any:
        return await self._run.board.call(Party(self.host, self.loop), address, method, question, JOIN_TIMEOUT_S)

    async def _ask_around(self, raft: RaftNode) -> None:
        """As `whereabouts` does: without a leader, whoever is known is asked, and says if this manager was removed."""
        while True:
            await asyncio.sleep(ASK_AROUND_S)
            for address in self._join() if raft.leader_id is None else ():
                with suppress(Unavailable, NoAnswer):
                    if await self._call(address, "IsRemoved", self.raft_id):
                        self._removed.set()

    async def _watch_removal(self, raft: RaftNode) -> None:
        own_log = asyncio.ensure_future(raft.wait_removed())
        own_log.add_done_callback(lambda _: self._removed.set())
        try:
            await self._removed.wait()
        finally:
            own_log.cancel()
        raise RemovedFromCluster


def _silent_members(raft: RaftNode) -> frozenset[int]:
    return frozenset(raft_id for raft_id, member in raft.members.items() if not member.is_active)
