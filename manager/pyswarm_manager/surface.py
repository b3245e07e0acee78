"""What a manager answers: every service behind one guard, by gRPC to nodes and people, and through the HTTPS door.

Decides nothing: who may call what is the table's (`api.authorisation`), what a call means its servicer's. A new service
is one more line in `_services`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc

from pyswarm.v1 import (
    access_pb2_grpc,
    attachments_pb2_grpc,
    backup_pb2_grpc,
    ca_pb2_grpc,
    control_pb2_grpc,
    exec_pb2_grpc,
    health_pb2_grpc,
    jobs_pb2_grpc,
    locking_pb2_grpc,
    logs_pb2_grpc,
    network_checks_pb2_grpc,
    operator_pb2_grpc,
    plans_pb2_grpc,
    raft_pb2_grpc,
    scheduling_pb2_grpc,
    secrets_pb2_grpc,
    security_pb2_grpc,
    watch_pb2_grpc,
)
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.random_ids import new_id
from pyswarm_common.rpc import GuardInterceptor
from pyswarm_manager.access.admission import StoreAdmission
from pyswarm_manager.access.connect import PeopleDoor, people_methods
from pyswarm_manager.access.entering import EnteringServicer
from pyswarm_manager.access.network_checks import NetworkChecksServicer
from pyswarm_manager.access.servicer import AccessServicer
from pyswarm_manager.access.tokens import Bearers
from pyswarm_manager.api.attachments import AttachmentsServicer
from pyswarm_manager.api.authorisation import TABLE
from pyswarm_manager.api.control import ControlServicer
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.health import HealthServicer
from pyswarm_manager.api.jobs import JobsServicer
from pyswarm_manager.api.logs import LogsServicer
from pyswarm_manager.api.operator import OperatorServicer
from pyswarm_manager.api.plans import PlansServicer
from pyswarm_manager.api.scheduling import SchedulingServicer
from pyswarm_manager.api.secrets import SecretsServicer
from pyswarm_manager.api.watch import WatchServicer
from pyswarm_manager.at_rest import AtRest
from pyswarm_manager.backup.servicer import BackupServicer
from pyswarm_manager.ca.certificates import CertificateBook
from pyswarm_manager.ca.gate import make_gate
from pyswarm_manager.ca.https import JoinServer
from pyswarm_manager.ca.security import SecurityServicer
from pyswarm_manager.ca.servicer import CAServicer
from pyswarm_manager.config import split_address
from pyswarm_manager.credentials import LiveIdentity
from pyswarm_manager.dispatcher.dispatcher import Dispatcher
from pyswarm_manager.dispatcher.servicer import DispatcherServicer
from pyswarm_manager.locking import LockingServicer
from pyswarm_manager.raft.driver import RaftNode
from pyswarm_manager.raft.lanes.receiving import Lanes
from pyswarm_manager.raft.servicer import RaftServicer
from pyswarm_manager.servers import Register, Services
from pyswarm_manager.speakers import Speakers
from pyswarm_manager.store.store import Store
from pyswarm_manager.whereabouts import Whereabouts

STOP_GRACE_S = 0.5
"""How long calls under way may take to end when the manager stops."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the services work with."""

    store: Store
    raft: RaftNode
    forwarder: LeaderForwarder
    identity: LiveIdentity
    at_rest: AtRest
    dispatcher: Dispatcher
    certificates: CertificateBook
    speakers: Speakers
    whereabouts: Whereabouts
    backups: Path
    manager_changes: asyncio.Lock


class Surface:
    """One per manager. What is opened is closed by the stack that comes with the call."""

    def __init__(self, parts: Parts) -> None:
        store, raft, identity = parts.store, parts.raft, parts.identity
        self._identity = identity
        self.backup = BackupServicer(store, raft, parts.forwarder, new_id, time.time, parts.backups)
        ca = CAServicer(store, raft, parts.forwarder, new_id, time.time, parts.manager_changes)
        cluster_id = identity().cluster_id
        admission = StoreAdmission(lambda: store.view, lambda: raft, identity, time.time)
        guard = GuardInterceptor(TABLE, lambda: cluster_id, admission, gate=make_gate(store, time.monotonic))
        lanes = Lanes()
        services = _services(parts, ca, self.backup, lanes)
        registrations = tuple(services.values())
        self._services = Services(guard, [f"pyswarm.v1.{name}" for name in services], registrations)
        bearers = Bearers(lambda: store.view, lambda: raft, time.monotonic)
        self._door = JoinServer(ca, identity, PeopleDoor(people_methods(guard, registrations), bearers), lanes)

    async def open(self, listen_address: str, stack: AsyncExitStack) -> None:
        """To everybody who reaches this machine. Raises FailedPrecondition where a port is taken."""
        await self.set_serving(False)
        server = await self._services.listen(listen_address, self._identity.server_credentials())
        stack.push_async_callback(server.stop, STOP_GRACE_S)
        await self._open_door(listen_address)
        stack.push_async_callback(self._door.close)

    async def open_locally(self, socket: Path, stack: AsyncExitStack) -> None:
        """To this machine's root."""
        server = await self._services.listen_locally(socket)
        stack.push_async_callback(_close_locally, server, socket)

    async def set_serving(self, is_serving: bool) -> None:
        """What the standard health service says."""
        await self._services.set_serving(is_serving)

    def reload(self) -> None:
        """The certificate is a new one; gRPC's servers look by themselves."""
        self._door.reload()

    async def _open_door(self, listen_address: str) -> None:
        """HTTPS for machines that have no certificate yet, on the port after gRPC's."""
        host, port = split_address(listen_address)
        try:
            await self._door.start(host, port + 1)
        except OSError as error:
            raise FailedPrecondition(
                f"cannot listen on {host}:{port + 1}, where machines join ({error.strerror}): "
                "stop what listens there, or choose another --listen-addr"
            ) from error


async def _close_locally(server: grpc.aio.Server, socket: Path) -> None:
    socket.unlink(missing_ok=True)
    await server.stop(STOP_GRACE_S)


def _services(parts: Parts, ca: CAServicer, backup: BackupServicer, lanes: Lanes) -> Mapping[str, Register]:
    """By their names in the .proto files."""
    store, raft, forwarder, identity = parts.store, parts.raft, parts.forwarder, parts.identity
    access = AccessServicer(store, raft, forwarder, new_id, time.time)
    control = ControlServicer(store, raft, forwarder, new_id, time.time, parts.manager_changes)
    entering = EnteringServicer(store, raft, forwarder, identity)
    attachments = AttachmentsServicer(store, raft, forwarder, new_id, time.time)
    jobs = JobsServicer(store, raft, forwarder, new_id, time.time)
    locking = LockingServicer(store, raft, parts.at_rest, identity)
    members = RaftServicer(raft, identity().cluster_id, parts.speakers, parts.whereabouts, lanes)
    checks = NetworkChecksServicer(store, raft, forwarder, identity, parts.dispatcher.table_versions)
    operator = OperatorServicer(store, raft, forwarder, identity)
    plans = PlansServicer(store, raft, forwarder, new_id, time.time, parts.dispatcher.images_of)
    scheduling = SchedulingServicer(store, raft, forwarder, new_id, time.time)
    files = SecretsServicer(store, raft, forwarder, new_id, time.time)
    security = SecurityServicer(store, raft, forwarder, new_id, time.time)
    return {
        "Access": partial(access_pb2_grpc.add_AccessServicer_to_server, access),
        "Attachments": partial(attachments_pb2_grpc.add_AttachmentsServicer_to_server, attachments),
        "Backup": partial(backup_pb2_grpc.add_BackupServicer_to_server, backup),
        "CA": partial(ca_pb2_grpc.add_CAServicer_to_server, ca),
        "Control": partial(control_pb2_grpc.add_ControlServicer_to_server, control),
        "Dispatcher": DispatcherServicer(parts.dispatcher, parts.certificates).add_to_server,
        "Exec": partial(exec_pb2_grpc.add_ExecServicer_to_server, entering),
        "Health": partial(health_pb2_grpc.add_HealthServicer_to_server, HealthServicer(raft, store, identity)),
        "Jobs": partial(jobs_pb2_grpc.add_JobsServicer_to_server, jobs),
        "Locking": partial(locking_pb2_grpc.add_LockingServicer_to_server, locking),
        "Logs": partial(logs_pb2_grpc.add_LogsServicer_to_server, LogsServicer(store, identity)),
        "NetworkChecks": partial(network_checks_pb2_grpc.add_NetworkChecksServicer_to_server, checks),
        "Operator": partial(operator_pb2_grpc.add_OperatorServicer_to_server, operator),
        "Plans": partial(plans_pb2_grpc.add_PlansServicer_to_server, plans),
        "Raft": partial(raft_pb2_grpc.add_RaftServicer_to_server, members),
        "Scheduling": partial(scheduling_pb2_grpc.add_SchedulingServicer_to_server, scheduling),
        "Secrets": partial(secrets_pb2_grpc.add_SecretsServicer_to_server, files),
        "Security": partial(security_pb2_grpc.add_SecurityServicer_to_server, security),
        "Watch": partial(watch_pb2_grpc.add_WatchServicer_to_server, WatchServicer(store)),
    }
