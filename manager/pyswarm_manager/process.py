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
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial

import grpc

from pyswarm.v1 import (
    access_pb2_grpc,
    backup_pb2_grpc,
    ca_pb2_grpc,
    control_pb2_grpc,
    health_pb2_grpc,
    locking_pb2_grpc,
    logs_pb2_grpc,
    operator_pb2_grpc,
    raft_pb2_grpc,
    security_pb2_grpc,
    watch_pb2_grpc,
)
from pyswarm_common.errors import FailedPrecondition, PyswarmError
from pyswarm_common.identity import role_name
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.ids import id_from_bits
from pyswarm_common.model import NodeRole
from pyswarm_common.rpc import GuardInterceptor, open_channel
from pyswarm_manager.access.admission import StoreAdmission
from pyswarm_manager.access.connect import PeopleDoor, people_methods
from pyswarm_manager.access.servicer import AccessServicer
from pyswarm_manager.access.tokens import Bearers
from pyswarm_manager.api.authorisation import TABLE
from pyswarm_manager.api.control import ControlServicer
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.health import HealthServicer
from pyswarm_manager.api.logs import LogsServicer
from pyswarm_manager.api.operator import OperatorServicer
from pyswarm_manager.api.watch import WatchServicer
from pyswarm_manager.at_rest import AtRest, run_rotation
from pyswarm_manager.backup.key import ensure_key
from pyswarm_manager.backup.servicer import BackupServicer
from pyswarm_manager.bootstrap import commit_bootstrap
from pyswarm_manager.ca.certificates import CertificateBook
from pyswarm_manager.ca.gate import make_gate
from pyswarm_manager.ca.https import JoinServer
from pyswarm_manager.ca.renewal import own_certificate
from pyswarm_manager.ca.roles import run_roles
from pyswarm_manager.ca.security import SecurityServicer
from pyswarm_manager.ca.servicer import CAServicer
from pyswarm_manager.ca.upkeep import run_upkeep
from pyswarm_manager.config import ManagerConfig, ManagerPaths, split_address
from pyswarm_manager.credentials import LiveIdentity
from pyswarm_manager.dispatcher.dispatcher import Dispatcher
from pyswarm_manager.dispatcher.servicer import DispatcherServicer
from pyswarm_manager.joining import join_raft
from pyswarm_manager.leader import run_planner
from pyswarm_manager.leadership import Loop, lead_while_leader
from pyswarm_manager.locking import LockingServicer
from pyswarm_manager.managers.keeper import keep_manager_count
from pyswarm_manager.raft.core.types import LogLost, MemberRole
from pyswarm_manager.raft.driver import RaftConfig, RaftNode
from pyswarm_manager.raft.servicer import RaftServicer
from pyswarm_manager.raft.storage.sqlite import SqliteStorage
from pyswarm_manager.raft.transport import GrpcTransport
from pyswarm_manager.rejoin import check_not_older
from pyswarm_manager.servers import Register, Services
from pyswarm_manager.speakers import Speakers
from pyswarm_manager.store.store import Store
from pyswarm_manager.whereabouts import Whereabouts

_log = logging.getLogger(__name__)

STOP_GRACE_S = 0.5
"""How long calls under way may take to end when the manager stops."""
_NAMES = (
    "Access",
    "Control",
    "Watch",
    "Logs",
    "Health",
    "Dispatcher",
    "CA",
    "Raft",
    "Backup",
    "Security",
    "Operator",
    "Locking",
)


class RemovedFromCluster(Exception):
    """The other managers took this one out of Raft; it can never take part again with this state."""


def new_id() -> str:
    """A random object id."""
    return id_from_bits(secrets.randbits(128))


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
        self._dispatcher = Dispatcher(
            store, time.time, new_id, lambda: raft.leader_address, self._silent_members, seeds=self._seeds
        )
        self._speakers = Speakers(store, lambda: raft.hears_leader)
        self._whereabouts = Whereabouts(config, paths, identity, store, raft, self._speakers, removed.set)
        self._set_own_address = set_own_address
        self._manager_changes = asyncio.Lock()
        self._ca = CAServicer(store, raft, self._forwarder, new_id, time.time, self._manager_changes)
        self._backup = BackupServicer(store, raft, self._forwarder, new_id, time.time, paths.backups)
        self._certificates = CertificateBook(store)
        self._security = SecurityServicer(store, raft, self._forwarder, new_id, time.time)
        cluster_id = identity().cluster_id
        admission = StoreAdmission(lambda: store.view, lambda: raft, identity, time.time)
        guard = GuardInterceptor(TABLE, lambda: cluster_id, admission, gate=make_gate(store, time.monotonic))
        registrations = self._registrations()
        self._services = Services(guard, [f"pyswarm.v1.{name}" for name in _NAMES], registrations)
        bearers = Bearers(lambda: store.view, lambda: raft, time.monotonic)
        self._door = JoinServer(self._ca, identity, PeopleDoor(people_methods(guard, registrations), bearers))
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
            self._door.reload()
        except (PyswarmError, ValueError) as error:  # ValueError: not PEM at all
            _log.error("the certificate was not reloaded: %s", error)
        else:
            _log.info("certificate reloaded")

    async def run(self) -> None:
        """Serve until told to stop, removed, or something fails (raises)."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._forwarder.close)
            await self._services.set_serving(False)
            server = await self._services.listen(self._config.listen_address, self._identity.server_credentials())
            stack.push_async_callback(server.stop, STOP_GRACE_S)
            await self._open_door()
            stack.push_async_callback(self._door.close)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._raft.run())
                await self._renew_own_certificate()
                parts = [
                    group.create_task(part)
                    for part in (
                        self._lead(),
                        self._join(),
                        self._watch_removal(),
                        self._backup.run(),
                        self._whereabouts.run(),
                    )
                ]
                parts.append(group.create_task(run_rotation(self._at_rest, self._raft, self._store, time.time)))
                local = await self._services.listen_locally(self._paths.socket)
                stack.push_async_callback(self._close_local, local)
                _log.info("manager %x listens on %s", self._config.raft_id, self._config.listen_address)
                await self._stopping.wait()
                await self._services.set_serving(False)
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
        self._door.reload()
        _log.warning("the certificate of this manager had expired: it has issued itself another one")

    async def _open_door(self) -> None:
        """HTTPS for machines that have no certificate yet, on the port after gRPC's."""
        host, port = split_address(self._config.listen_address)
        try:
            await self._door.start(host, port + 1)
        except OSError as error:
            raise FailedPrecondition(
                f"cannot listen on {host}:{port + 1}, where machines join ({error.strerror}): "
                "stop what listens there, or choose another --listen-addr"
            ) from error

    async def _lead(self) -> None:
        loops: list[Loop] = [
            partial(commit_bootstrap, self._store, self._paths.bootstrap, new_id),
            partial(run_planner, self._store, new_id, random.random, time.time),
            self._dispatcher.run,
            partial(run_roles, self._store, self._raft),
            self._certificates.run,
            partial(run_upkeep, self._store, time.time),
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
        await self._services.set_serving(True)
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

    async def _close_local(self, server: grpc.aio.Server) -> None:
        self._paths.socket.unlink(missing_ok=True)
        await server.stop(STOP_GRACE_S)

    def _seeds(self) -> tuple[str, ...]:
        return self._whereabouts.seeds

    def _silent_members(self) -> frozenset[int]:
        return frozenset(raft_id for raft_id, member in self._raft.members.items() if not member.is_active)

    def _registrations(self) -> Sequence[Register]:
        store, raft, forwarder, identity = self._store, self._raft, self._forwarder, self._identity
        raft_servicer = RaftServicer(raft, identity().cluster_id, self._speakers, self._whereabouts)
        access = AccessServicer(store, raft, forwarder, new_id, time.time)
        control = ControlServicer(store, raft, forwarder, new_id, time.time, self._manager_changes)
        operator = OperatorServicer(store, raft, forwarder, identity)
        return (
            partial(control_pb2_grpc.add_ControlServicer_to_server, control),
            partial(watch_pb2_grpc.add_WatchServicer_to_server, WatchServicer(store)),
            partial(logs_pb2_grpc.add_LogsServicer_to_server, LogsServicer(store, identity)),
            partial(health_pb2_grpc.add_HealthServicer_to_server, HealthServicer(raft, store, identity)),
            partial(access_pb2_grpc.add_AccessServicer_to_server, access),
            partial(ca_pb2_grpc.add_CAServicer_to_server, self._ca),
            partial(raft_pb2_grpc.add_RaftServicer_to_server, raft_servicer),
            partial(security_pb2_grpc.add_SecurityServicer_to_server, self._security),
            partial(
                locking_pb2_grpc.add_LockingServicer_to_server, LockingServicer(store, raft, self._at_rest, identity)
            ),
            DispatcherServicer(self._dispatcher, self._certificates).add_to_server,
            partial(backup_pb2_grpc.add_BackupServicer_to_server, self._backup),
            partial(operator_pb2_grpc.add_OperatorServicer_to_server, operator),
        )


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
