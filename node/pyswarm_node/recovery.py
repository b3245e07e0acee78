"""The two ways back after the managers are lost: a backup, or one manager that still has its data.

Decides when either may be done at all (no cluster here yet; a cluster that has no leader) and in which order; what the
new state is, `pyswarm_manager.backup` decides. A restore that fails leaves nothing behind. Forcing may be done again
after a crash at any step: addresses are written first, then the log in one transaction, then the manager starts.
Containers are not touched by either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

import msgspec

from pyswarm.v1 import health_pb2, node_pb2
from pyswarm_common.errors import FailedPrecondition, InvalidArgument
from pyswarm_common.model import Availability
from pyswarm_common.random_ids import new_raft_id
from pyswarm_manager.backup import forcing, restoring
from pyswarm_manager.config import ManagerConfig
from pyswarm_manager.raft.storage.port import StorageCorrupt, StorageFailed, StorageFull
from pyswarm_runtime import Runtime

from .addresses import choose_advertised, read_interfaces
from .describe import describe
from .joining import Joining, NewManager
from .moving import followed
from .paths import NodeRecord, Options
from .standing import Standing
from .standstill import Standstill

_log = logging.getLogger(__name__)

_MAX_BACKUP_BYTES = 16 << 30
_NO_LEADER_FOR_S = 3.0
"""Longer than managers take to elect one: who has none for this long has no majority."""
_POLL_S = 0.1
_LIVES = (
    "this swarm has a leader, so there is nothing to restore: to go back to a backup, let every node leave the swarm "
    "first"
)


class Recovery:
    """One per daemon."""

    def __init__(
        self, options: Options, runtime: Runtime, standing: Standing, joining: Joining, standstill: Standstill
    ) -> None:
        self._options, self._runtime = options, runtime
        self._standing, self._joining, self._standstill = standing, joining, standstill

    # ---------------------------------------------------------------- restore

    async def restore(self, requests: AsyncIterator[node_pb2.RestoreRequest]) -> node_pb2.RestoreResponse:
        """Make this machine the only manager of the cluster in the backup that is sent."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidArgument("the first message of a restore must be its header")
        header, availability = first.header, Availability(first.header.addresses.availability)
        if self._standing.record is not None:
            await self._require_lost(header.addresses)
        self._options.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            _in_plain_words(),
            tempfile.TemporaryFile(dir=self._options.state_dir) as file,
        ):  # has no name: a crash leaves nothing
            await _receive(requests, file)
            backup = await asyncio.to_thread(restoring.read_backup, file, header.key)

        async def prepare(plan: NodeRecord) -> NewManager:
            return await asyncio.to_thread(self._prepare, backup, plan, availability)

        if self._standing.record is None:
            record = await self._joining.restore_from(header.addresses, prepare)
        else:
            self._standing.check_same_cluster(backup.cluster.id)
            record = await self._standstill.restore_in_place(prepare)
        _log.info("restored swarm %s as it was at index %d", record.cluster_id, backup.header.index)
        return node_pb2.RestoreResponse(
            node_id=record.node_id, cluster_id=record.cluster_id, manager_address=record.manager_address
        )

    async def _require_lost(self, addresses: node_pb2.InitRequest) -> None:
        """A member restores its own cluster in place, and only when that has no leader."""
        if addresses.advertise_addr or addresses.listen_addr or addresses.data_path_addr:
            raise InvalidArgument("this node is part of a swarm and keeps its addresses: leave out the address flags")
        self._standing.check_manager(needs_state=False)
        if await self._leader_seen() is not None:
            raise FailedPrecondition(_LIVES)

    def _prepare(self, backup: restoring.Verified, plan: NodeRecord, availability: Availability) -> NewManager:
        """Everything the manager starts with, on disk."""
        place = restoring.Place(
            address=plan.address,
            manager_address=plan.manager_address,
            description=describe(self._runtime.preflight, plan.data_path_address, ""),
            availability=availability,
            raft_id=new_raft_id(),
            identity=self._standing.identity() if self._standing.identity is not None else None,
        )
        state = restoring.restored(backup, place, time.time())
        with _in_plain_words():
            restoring.lay_log(self._options.manager, self._standing.lock.master, state, place.raft_id)
        record = msgspec.structs.replace(
            plan,
            node_id=state.identity.node_id,
            cluster_id=backup.cluster.id,
            data_path_port=backup.cluster.spec.data_path_port,
            managers=(plan.manager_address,),
        )
        return NewManager(record, state.identity, place.raft_id)

    # ---------------------------------------------------------------- force a new cluster

    async def plan_force_new_cluster(self, request: node_pb2.ForceNewClusterRequest) -> node_pb2.ForceNewClusterPlan:
        """What `force_new_cluster` would do. The manager, which can do nothing without a majority, is started anew."""
        if await self._is_alone(request):
            return self._plan_of_nothing()
        async with self._standstill.manager_stopped() as record:
            new = await _moved(record, request.advertise_addr)
            return await asyncio.to_thread(self._read_plan, new)

    async def force_new_cluster(self, request: node_pb2.ForceNewClusterRequest) -> node_pb2.ForceNewClusterPlan:
        """Make this manager, with what it has, the only one of its cluster."""
        if await self._is_alone(request):
            return self._plan_of_nothing()
        async with self._standstill.manager_stopped() as record:
            new = await _moved(record, request.advertise_addr)
            plan = await asyncio.to_thread(self._read_plan, new)
            await self._standstill.move(new)
            await asyncio.to_thread(self._rewrite, new)
            await self._standing.manager.start_and_wait()
        _log.warning("this manager is the only one of its swarm now; %d were dropped", len(plan.dropped))
        return plan

    async def _is_alone(self, request: node_pb2.ForceNewClusterRequest) -> bool:
        """Whether there is nothing to do. Refuses while the managers have a leader."""
        self._standing.check_manager()
        health = await self._leader_seen()
        return health is not None and self._is_only_one(health, request)

    async def _leader_seen(self) -> health_pb2.GetHealthResponse | None:
        """What the manager says as soon as it knows a leader; None if it knows none for a while."""
        deadline = time.monotonic() + _NO_LEADER_FOR_S
        while time.monotonic() < deadline:
            health = await self._standing.manager.health()
            if health is not None and health.leader_raft_id:
                return health
            await asyncio.sleep(_POLL_S)
        return None

    def _is_only_one(self, health: health_pb2.GetHealthResponse, request: node_pb2.ForceNewClusterRequest) -> bool:
        members = {member.raft_id: member.address for member in health.members}
        if set(members) == {health.raft_id} == {health.leader_raft_id}:
            return not request.advertise_addr
        leader = members.get(health.leader_raft_id, "another manager")
        raise FailedPrecondition(
            f"this swarm has a leader ({leader}), so no new cluster is needed: remove lost managers with "
            "`pyswarm node demote` and `pyswarm node rm`"
        )

    def _plan_of_nothing(self) -> node_pb2.ForceNewClusterPlan:
        record = self._standing.record
        assert record is not None, "checked by check_manager"
        return node_pb2.ForceNewClusterPlan(
            is_done=True, cluster_id=record.cluster_id, node_id=record.node_id, manager_address=record.manager_address
        )

    def _read_plan(self, record: NodeRecord) -> node_pb2.ForceNewClusterPlan:
        with _in_plain_words():
            stored, state = forcing.read_held(self._options.manager, self._standing.lock.master)
        tables = state.tables
        plan = node_pb2.ForceNewClusterPlan(
            cluster_id=record.cluster_id,
            node_id=record.node_id,
            commit_index=state.commit_index,
            last_index=state.last_index,
            services=len(tables.services),
            tasks=len(tables.tasks),
            networks=len(tables.networks),
            nodes=len(tables.nodes),
            manager_address=record.manager_address,
        )
        for other in forcing.lost(state, stored.raft_id):
            dropped = plan.dropped.add(raft_id=other.raft_id, address=other.address)
            if other.node is not None:
                dropped.node_id, dropped.hostname = other.node.id, other.node.description.hostname
        return plan

    def _rewrite(self, record: NodeRecord) -> None:
        paths = self._options.manager
        config = ManagerConfig.load(paths)
        with _in_plain_words():
            msgspec.structs.replace(config, advertise_address=record.manager_address, join_addresses=()).save(paths)
            forcing.rewrite_log(paths, self._standing.lock.master, record.manager_address)


@contextlib.contextmanager
def _in_plain_words() -> Iterator[None]:
    """What a disk does to us is no bug of ours, and whoever asked should read it."""
    try:
        yield
    except (StorageFailed, StorageFull, StorageCorrupt) as error:
        raise FailedPrecondition(str(error)) from error
    except OSError as error:
        raise FailedPrecondition(
            f"the disk refuses ({error.strerror or error}): look at its room and health"
        ) from error


async def _receive(requests: AsyncIterator[node_pb2.RestoreRequest], file: BinaryIO) -> None:
    size = 0
    async for request in requests:
        size += len(request.data)
        if size > _MAX_BACKUP_BYTES:
            raise InvalidArgument("the backup is larger than any that this version makes")
        await asyncio.to_thread(file.write, request.data)
    file.seek(0)


async def _moved(record: NodeRecord, advertised: str) -> NodeRecord:
    """The record with the address that was asked for, which must be this machine's."""
    if not advertised:
        return record
    interfaces = await read_interfaces()
    new = followed(msgspec.structs.replace(record, advertise=advertised, managers=()), interfaces, None)
    wanted, _ = choose_advertised(advertised, interfaces)
    if new.address != wanted:
        raise InvalidArgument(f"this machine does not have the address {wanted}: give one that it has, or an interface")
    return new
