"""The manager on this machine, as the membership sees it: its settings, its process, and the way to it.

Decides nothing: when there is to be a manager is the membership's business. What is stopped for good takes its channel
and, where it left Raft, its state along.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

import grpc
import msgspec

from pyswarm.v1 import health_pb2, health_pb2_grpc
from pyswarm_common.errors import Unavailable
from pyswarm_common.rpc import open_local_channel
from pyswarm_manager.config import ManagerConfig

from .machine_lock import MachineLock
from .manager_process import ManagerProcess
from .paths import NodeRecord, Options

_READY_TIMEOUT_S = 30.0
_HEALTH_TIMEOUT_S = 2.0


class LocalManager:
    """At most one process, and one channel to it."""

    def __init__(self, options: Options, lock: MachineLock, others: Callable[[], Sequence[str]] = tuple) -> None:
        self._options = options
        self._paths = options.manager
        self._process = ManagerProcess(options, master=lambda: lock.master, others=others)
        self._channel: grpc.aio.Channel | None = None

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    @property
    def is_wanted(self) -> bool:
        """Whether one is kept running, or was until it was removed from Raft."""
        return self._process.is_wanted

    @property
    def is_set_up(self) -> bool:
        return self._process.is_wanted and not self._process.is_removed

    @property
    def has_state(self) -> bool:
        """An earlier daemon ran one here."""
        return self._paths.config.exists()

    def channel(self) -> grpc.aio.Channel:
        """Raises Unavailable while the manager starts."""
        if not self._paths.socket.exists():
            raise Unavailable("the manager on this node is starting: try again in a moment")
        return self._open_channel()

    def channel_if_up(self) -> grpc.aio.Channel | None:
        """None while nothing answers."""
        return self._open_channel() if self._paths.socket.exists() else None

    def configure(self, record: NodeRecord, raft_id: int, join_addresses: Sequence[str]) -> None:
        """For its next start."""
        ManagerConfig(
            raft_id=raft_id,
            advertise_address=record.manager_address,
            listen_address=record.listen_address,
            join_addresses=tuple(join_addresses),
            seeds=record.seeds,
        ).save(self._paths)

    def introduce(self, addresses: Sequence[str]) -> None:
        """Tell it of the managers that the agent knows now; those it began with may all have left."""
        before = ManagerConfig.load(self._paths)
        if addresses and set(addresses) != set(before.join_addresses):
            msgspec.structs.replace(before, join_addresses=tuple(addresses)).save(self._paths)
            self.reload()

    async def readdress(self, record: NodeRecord) -> None:
        """The machine has another address. A running manager is told; one that listens elsewhere begins again."""
        if not self.has_state:
            return
        before = ManagerConfig.load(self._paths)
        now = msgspec.structs.replace(
            before,
            advertise_address=record.manager_address,
            listen_address=record.listen_address,
            seeds=record.seeds,
        )
        if now == before:
            return
        now.save(self._paths)
        if not self.is_wanted:
            return
        if now.listen_address == before.listen_address:
            self.reload()
        else:
            await self.stop()
            self.start()

    async def start_and_wait(self) -> None:
        """The first start: a failure is raised in the manager's own words."""
        await self._process.start_and_wait(self._is_ready, _READY_TIMEOUT_S)

    def start(self) -> None:
        self._process.start()

    def reload(self) -> None:
        """The node's certificate is a new one."""
        self._process.reload()

    async def stop(self) -> None:
        await self._process.stop()
        await self._close_channel()

    async def remove(self) -> None:
        """With its state: a manager that was taken out of Raft can only come back as a new one."""
        await self.stop()
        shutil.rmtree(self._paths.directory, ignore_errors=True)

    def set_aside(self) -> None:
        """Make room for other state, which may yet fail. The manager must not run."""
        self.put_back()
        if self._paths.directory.exists():
            self._paths.directory.rename(self._options.manager_aside)
        else:
            self._options.manager_aside.mkdir(mode=0o700)

    def put_back(self) -> None:
        """Undo `set_aside`, also one that a crash left."""
        if self._options.manager_aside.exists():
            shutil.rmtree(self._paths.directory, ignore_errors=True)
            self._options.manager_aside.rename(self._paths.directory)

    def forget_aside(self) -> None:
        """The new state holds."""
        shutil.rmtree(self._options.manager_aside, ignore_errors=True)

    async def health(self) -> health_pb2.GetHealthResponse | None:
        """What it says of itself; None while it does not answer."""
        if not self._paths.socket.exists():
            return None
        stub = health_pb2_grpc.HealthStub(self._open_channel())
        try:
            return await stub.GetHealth(health_pb2.GetHealthRequest(), timeout=_HEALTH_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return None

    async def _is_ready(self) -> bool:
        """It knows the cluster, and its leader."""
        health = None if self._paths.bootstrap.exists() else await self.health()
        if health is None:
            return False
        is_member = any(member.raft_id == health.raft_id for member in health.members)
        return bool(health.cluster_id) and health.leader_raft_id != 0 and is_member

    def _open_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = open_local_channel(str(self._paths.socket))
        return self._channel

    async def _close_channel(self) -> None:
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None
