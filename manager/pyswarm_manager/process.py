"""One manager process: what it consists of, in which order it starts, and how it ends.

It listens before it asks to be let into Raft, and opens the daemon's socket last, when it can answer. It ends when it
is told to (handing leadership over first), when it was removed from the cluster, or when any part fails: then
everything else is cancelled, and the daemon starts it again. Decides nothing about the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from functools import partial

from pyswarm_common.errors import PyswarmError
from pyswarm_common.identity import role_name
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.model import NodeRole
from pyswarm_common.random_ids import new_id
from pyswarm_common.rpc import open_channel
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.at_rest import AtRest, run_rotation
from pyswarm_manager.autoscale.autoscaler import Autoscaler
from pyswarm_manager.backup.key import ensure_key
from pyswarm_manager.bootstrap import commit_bootstrap
from pyswarm_manager.ca.certificates import CertificateBook
from pyswarm_manager.ca.renewal import own_certificate
from pyswarm_manager.ca.roles import run_roles
from pyswarm_manager.ca.upkeep import run_upkeep
from pyswarm_manager.config import ManagerConfig, ManagerPaths
from pyswarm_manager.credentials import LiveIdentity
from pyswarm_manager.dispatcher.dispatcher import Dispatcher
from pyswarm_manager.files.upkeep import run_files
from pyswarm_manager.joining import join_raft
from pyswarm_manager.leader import run_planner
from pyswarm_manager.leadership import Loop, lead_while_leader
from pyswarm_manager.managers.keeper import keep_manager_count
from pyswarm_manager.outgoing_lanes import lane_to
from pyswarm_manager.raft.core.types import LogLost, MemberRole
from pyswarm_manager.raft.driver import RaftConfig, RaftNode
from pyswarm_manager.raft.storage.sqlite import SqliteStorage
from pyswarm_manager.raft.transport import GrpcTransport
from pyswarm_manager.rejoin import check_not_older
from pyswarm_manager.speakers import Speakers
from pyswarm_manager.store.store import Store
from pyswarm_manager.surface import Parts, Surface
from pyswarm_manager.whereabouts import Whereabouts

_log = logging.getLogger(__name__)


class RemovedFromCluster(Exception):
    """The other managers took this one out of Raft; it can never take part again with this state."""


class Manager:
    """Made by `open`; `run` until `stop` is called."""

    def __init__(
        self,
        config: ManagerConfig,
        paths: ManagerPaths,
        identity: LiveIdentity,
        store: Store,
        raft: RaftNode,
        at_rest: AtRest,
        removed: asyncio.Event,
        set_own_address: Callable[[str], None],
    ) -> None:
        self._config, self._paths, self._identity = config, paths, identity
        self._store, self._raft, self._at_rest = store, raft, at_rest
        self._forwarder = LeaderForwarder(raft, identity)
        self._autoscaler = Autoscaler(store, time.time, time.monotonic)
        self._dispatcher = Dispatcher(
            store,
            time.time,
            new_id,
            lambda: raft.leader_address,
            self._silent_members,
            seeds=self._seeds,
            on_usage=self._autoscaler.report,
        )
        speakers = Speakers(store, lambda: raft.heard_leader)
        self._whereabouts = Whereabouts(config, paths, identity, store, raft, speakers, removed.set)
        self._set_own_address = set_own_address
        self._manager_changes = asyncio.Lock()
        self._certificates = CertificateBook(store)
        self._surface = Surface(
            Parts(
                store=store,
                raft=raft,
                forwarder=self._forwarder,
                identity=identity,
                at_rest=at_rest,
                dispatcher=self._dispatcher,
                certificates=self._certificates,
                speakers=speakers,
                whereabouts=self._whereabouts,
                backups=paths.backups,
                manager_changes=self._manager_changes,
            )
        )
        self._removed = removed
        self._stopping = asyncio.Event()

    @classmethod
    async def open(cls, config: ManagerConfig, paths: ManagerPaths, master: LockKey | None = None) -> Manager:
        """Load what is on disk; `master` opens it where autolock has locked it. Raises a refusal that says what is
        missing."""
        identity = LiveIdentity(paths.certificates, master)
        paths.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = Store(time.time)
        removed = asyncio.Event()
        transport = GrpcTransport(
            identity().cluster_id,
            config.raft_id,
            config.advertise_address,
            lambda address: open_channel(address, identity(), role_name(NodeRole.MANAGER)),
            open_lane=lambda address, ticket: lane_to(address, ticket, identity()),
            on_removed=removed.set,
        )
        at_rest = AtRest.open(paths, master, time.time())
        raft = await _open_raft(config, paths, transport, store, at_rest.storage)
        try:
            check_not_older(paths, config.raft_id, raft.last_index)
        except LogLost:
            await raft.close(transfer=False)
            raise
        store.connect(raft)
        return cls(config, paths, identity, store, raft, at_rest, removed, transport.set_address)

    def stop(self) -> None:
        """End soon, without losing what is under way."""
        self._stopping.set()

    def reload(self) -> None:
        """The certificate files changed, or this machine's address did."""
        self._reload_address()
        self._reload_identity()

    def _reload_address(self) -> None:
        try:
            config = ManagerConfig.load(self._paths)
        except PyswarmError as error:
            _log.error("the address was not reloaded: %s", error)
            return
        if config.advertise_address != self._config.advertise_address:
            _log.info("this manager is reached at %s now", config.advertise_address)
            self._set_own_address(config.advertise_address)
        self._config = config
        self._whereabouts.moved(config)

    def _reload_identity(self) -> None:
        try:
            self._identity.reload()
            self._surface.reload()
        except (PyswarmError, ValueError) as error:  # ValueError: not PEM at all
            _log.error("the certificate was not reloaded: %s", error)
        else:
            _log.info("certificate reloaded")

    async def run(self) -> None:
        """Serve until told to stop, removed, or something fails (raises)."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._forwarder.close)
            await self._surface.open(self._config.listen_address, stack)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._raft.run())
                await self._renew_own_certificate()
                parts = [
                    group.create_task(part)
                    for part in (
                        self._lead(),
                        self._join(),
                        self._watch_removal(),
                        self._surface.backup.run(),
                        self._whereabouts.run(),
                        run_rotation(self._at_rest, self._raft, self._store, time.time),
                    )
                ]
                await self._surface.open_locally(self._paths.socket, stack)
                _log.info("manager %x listens on %s", self._config.raft_id, self._config.listen_address)
                await self._stopping.wait()
                await self._surface.set_serving(False)
                await self._raft.close()
                for part in parts:
                    part.cancel()

    async def _renew_own_certificate(self) -> None:
        """After a long sleep: with an expired certificate nobody talks to this manager, nor it to anybody."""
        identity = self._identity()
        if time.time() < identity.validity[1]:
            return
        await self._raft.wait_applied(self._raft.commit_index)
        try:
            answer = own_certificate(self._store.view, identity, time.time())
        except PyswarmError as error:
            _log.warning("%s: waiting for a manager that can renew it", error)
            return
        self._identity.adopt(answer.certificate, answer.root_ca_cert)
        self._surface.reload()
        _log.warning("the certificate of this manager had expired: it has issued itself another one")

    async def _lead(self) -> None:
        loops: list[Loop] = [
            partial(commit_bootstrap, self._store, self._paths.bootstrap, new_id),
            partial(run_planner, self._store, new_id, random.random, time.time, handover=self._dispatcher.handover),
            self._dispatcher.run,
            self._autoscaler.run,
            partial(run_roles, self._store, self._raft),
            self._certificates.run,
            partial(run_upkeep, self._store, time.time),
            partial(run_files, self._store),
            partial(keep_manager_count, self._store, self._raft, self._manager_changes),
            partial(ensure_key, self._store),
        ]
        await lead_while_leader(self._raft, loops)

    async def _join(self) -> None:
        """Get into Raft, unless the log says that we are in it; ready once this manager votes."""
        own = self._config.raft_id
        if self._config.join_addresses and own not in self._raft.members:
            await join_raft(lambda: self._config, self._identity, self._raft)
        while (member := self._raft.members.get(own)) is None or member.role is not MemberRole.VOTER:
            await self._raft.wait_applied(self._raft.applied_index + 1)  # changes of membership are entries
        await self._surface.set_serving(True)
        _log.info("ready: this manager votes")

    async def _watch_removal(self) -> None:
        """By its own log, or because the others refuse it: it may have been away when it was removed."""
        own_log = asyncio.ensure_future(self._raft.wait_removed())
        own_log.add_done_callback(lambda _: self._removed.set())
        try:
            await self._removed.wait()
        finally:
            own_log.cancel()
        raise RemovedFromCluster

    def _seeds(self) -> tuple[str, ...]:
        return self._whereabouts.seeds

    def _silent_members(self) -> frozenset[int]:
        return frozenset(raft_id for raft_id, member in self._raft.members.items() if not member.is_active)


async def _open_raft(
    config: ManagerConfig, paths: ManagerPaths, transport: GrpcTransport, store: Store, storage: SqliteStorage
) -> RaftNode:
    """The first manager of a cluster begins with itself as the only member; every other one is let in, or was."""
    try:
        is_first = paths.bootstrap.exists() and storage.load() is None
        raft_config = RaftConfig(raft_id=config.raft_id, address=config.advertise_address)
        first_members = {config.raft_id: config.advertise_address} if is_first else None
        return await RaftNode.open(raft_config, storage, transport, store, first_members)
    except BaseException:
        storage.close()
        raise
