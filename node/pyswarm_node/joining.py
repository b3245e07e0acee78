"""The ways into a cluster: making one (init), joining one, and being made its only manager from a backup.

Whatever fails half-way is undone in the reverse order, so that nothing half-made is left. `node.json` is written last:
it exists exactly while the machine is a member.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from pyswarm.v1 import ca_pb2, node_pb2
from pyswarm_common.errors import InvalidArgument, PyswarmError, Unavailable
from pyswarm_common.identity import JoinToken, NodeIdentity
from pyswarm_common.identity.join_client import join_address
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.model import Availability, NodeRole
from pyswarm_common.random_ids import new_raft_id
from pyswarm_runtime import Runtime

from . import certificates
from .addresses import is_ip
from .describe import describe
from .entrance import get_certificate, grpc_address
from .founding import Founding, cluster_root, cluster_spec, found
from .identity import CurrentIdentity
from .paths import NodeRecord, Options
from .settling import first_record
from .standing import Standing
from .stay import Stay

_log = logging.getLogger(__name__)

_SESSION_TIMEOUT_S = 20.0
_SESSION_POLL_S = 0.02
_MAX_REMOTES = 16


@dataclass(frozen=True, slots=True, repr=False)
class NewManager:
    """A manager whose state is on disk already."""

    record: NodeRecord
    identity: NodeIdentity
    raft_id: int


class Joining:
    """One per daemon."""

    def __init__(self, options: Options, runtime: Runtime, standing: Standing, stay: Stay) -> None:
        self._options, self._runtime = options, runtime
        self._standing, self._stay = standing, stay

    # ---------------------------------------------------------------- init

    async def init(self, request: node_pb2.InitRequest) -> node_pb2.InitResponse:
        """Make a new cluster with this machine as its first manager."""
        async with self._standing.change():
            self._standing.check_not_member()
            founding, record = self._found(request, await first_record(request))
            cluster = founding.bootstrap.cluster
            async with self._undone_on_failure() as undo:
                founding.bootstrap.save(self._options.manager.bootstrap)
                self._standing.manager.configure(record, founding.raft_id, ())
                await self._become(undo, record, founding.identity)
            _log.info("made swarm %s: this is its manager %s at %s", cluster.id, record.node_id, record.manager_address)
            return node_pb2.InitResponse(
                node_id=record.node_id,
                worker_token=cluster.join_tokens.worker,
                manager_token=cluster.join_tokens.manager,
                manager_address=record.manager_address,
                unlock_key=LockKey(cluster.unlock_key).token() if cluster.unlock_key else "",
            )

    def _found(self, request: node_pb2.InitRequest, record: NodeRecord) -> tuple[Founding, NodeRecord]:
        spec = cluster_spec(request)
        founding = found(
            spec,
            address=record.address,
            manager_address=record.manager_address,
            description=describe(self._runtime.preflight, record.data_path_address, ""),
            availability=Availability(request.availability),
            now=time.time(),
            root=cluster_root(request, time.time()),
        )
        return founding, msgspec.structs.replace(
            record,
            node_id=founding.bootstrap.node.id,
            cluster_id=founding.bootstrap.cluster.id,
            data_path_port=spec.data_path_port,
            managers=(record.manager_address,),
        )

    # ---------------------------------------------------------------- join

    async def join(self, request: node_pb2.JoinRequest) -> node_pb2.JoinResponse:
        """Become a node of the token's cluster, in the token's role."""
        async with self._standing.change():
            self._standing.check_not_member()
            token = JoinToken.parse(request.token)
            if not 0 < len(request.remote_addrs) <= _MAX_REMOTES:
                raise InvalidArgument(f"give the address of a manager to join at (at most {_MAX_REMOTES})")
            record = await first_record(request)
            identity, answer = await get_certificate(request, token, record.address, record.data_path_address)
            record = _joined(record, request, answer)
            async with self._undone_on_failure() as undo:
                undo.push_async_callback(_take_back, identity, record.managers)
                if identity.role is NodeRole.MANAGER:
                    self._standing.manager.configure(record, new_raft_id(), record.managers)
                await self._become(undo, record, identity)
            _log.info("joined swarm %s as %s %s", record.cluster_id, identity.role.name.lower(), record.node_id)
            await self._wait_session()
            return node_pb2.JoinResponse(node_id=record.node_id, role=int(identity.role))  # type: ignore[arg-type]

    async def _wait_session(self) -> None:
        assert self._standing.member is not None
        agent = self._standing.member.agent
        deadline = time.monotonic() + _SESSION_TIMEOUT_S
        while not agent.has_had_session:
            if time.monotonic() > deadline:
                raise Unavailable(
                    "Timeout was reached before node joined. The attempt to join the swarm will continue in the "
                    f"background. ({agent.error})"
                )
            await asyncio.sleep(_SESSION_POLL_S)

    # ---------------------------------------------------------------- from a backup

    async def restore_from(
        self, addresses: node_pb2.InitRequest, prepare: Callable[[NodeRecord], Awaitable[NewManager]]
    ) -> NodeRecord:
        """Become a cluster's only manager; `prepare` lays its state on disk, given this machine's addresses."""
        async with self._standing.change():
            self._standing.check_not_member()
            settled = await first_record(addresses)
            async with self._undone_on_failure() as undo:
                new = await prepare(settled)
                self._standing.manager.configure(new.record, new.raft_id, ())
                await self._become(undo, new.record, new.identity)
            return new.record

    # ---------------------------------------------------------------- shared

    @contextlib.asynccontextmanager
    async def _undone_on_failure(self) -> AsyncIterator[contextlib.AsyncExitStack]:
        async with contextlib.AsyncExitStack() as undo:
            self._options.forget_membership()
            undo.callback(self._options.forget_membership)
            yield undo
            undo.pop_all()

    async def _become(self, undo: contextlib.AsyncExitStack, record: NodeRecord, identity: NodeIdentity) -> None:
        standing = self._standing
        identity.save(self._options.certificates)
        if identity.role is NodeRole.MANAGER:
            undo.push_async_callback(standing.manager.stop)
            await standing.manager.start_and_wait()
        undo.push_async_callback(self._stay.exit)
        await self._stay.enter(record, CurrentIdentity(self._options.certificates, identity, standing.lock))
        record.save(self._options)


def _joined(record: NodeRecord, request: node_pb2.JoinRequest, answer: ca_pb2.IssueCertificateResponse) -> NodeRecord:
    return msgspec.structs.replace(
        record,
        node_id=answer.node_id,
        cluster_id=answer.cluster_id,
        managers=tuple(answer.manager_addresses) or tuple(grpc_address(a) for a in request.remote_addrs),
        seeds=tuple(grpc_address(a) for a in request.remote_addrs if not is_ip(join_address(a)[0])),
    )


async def _take_back(identity: NodeIdentity, managers: Sequence[str]) -> None:
    """The cluster already counts us in: tell it that we are not coming."""
    with contextlib.suppress(PyswarmError):
        await certificates.leave(identity, managers, force=True)
