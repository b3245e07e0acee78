"""What is open on this machine while it is in a cluster: networks, agent, and what follows the cluster's wishes.

Decides nothing: `enter` and `exit` are called by whoever makes this machine a member, or ends that. Whatever is opened
here is closed here. Containers run on unless the machine leaves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from pyswarm_common.identity.locks import Locked
from pyswarm_runtime import Runtime

from . import certificates
from .identity import CurrentIdentity
from .lock_keeper import LockKeeper
from .member import Member, MemberHooks
from .paths import NodeRecord, Options
from .role_steps import RoleSteps
from .standing import Standing

_log = logging.getLogger(__name__)


class Stay:
    """One per daemon. Sets what `Standing` shows."""

    def __init__(
        self, options: Options, runtime: Runtime, standing: Standing, on_failed: Callable[[BaseException], None]
    ) -> None:
        self._options, self._runtime = options, runtime
        self._standing = standing
        self._on_failed = on_failed
        self._roles = RoleSteps(standing)
        self._following: asyncio.Task[None] | None = None
        self._reopening: asyncio.Task[None] | None = None

    async def enter(self, record: NodeRecord, identity: CurrentIdentity) -> None:
        """Be the node of the record. Undone by `exit`."""
        standing = self._standing
        hooks = MemberHooks(
            local_manager=standing.local_manager,
            on_node=self._roles.on_node,
            on_data_path_port=self._on_data_path_port,
            on_failed=self._on_failed,
            on_roots=self._roles.on_roots,
            removal=self._removal,
        )
        standing.record, standing.identity = record, identity
        try:
            standing.member = await Member.start(self._options, record, identity, self._runtime, hooks)
        except BaseException:
            standing.record = standing.identity = None
            raise
        if not standing.lock.is_locked:
            self.follow_cluster(identity)

    async def _removal(self) -> str:
        standing = self._standing
        try:
            return await certificates.removal(standing.identity(), standing.managers()) if standing.identity else ""
        except Locked:
            return ""

    async def reenter(self, record: NodeRecord) -> None:
        """The networks and the agent begin again with other settings."""
        standing = self._standing
        assert standing.identity is not None
        assert standing.member is not None
        record.save(self._options)
        await standing.member.close()
        standing.member = None
        await self._stop_following()
        await self.enter(record, standing.identity)

    async def exit(self) -> None:
        """With everything that runs on this node for the cluster."""
        standing = self._standing
        await self.stop_following()
        if standing.member is not None:
            await standing.member.leave()
        standing.member = standing.record = standing.identity = None
        standing.lock.forget()
        self._roles.forget()

    async def close(self) -> None:
        """The daemon ends, the membership does not."""
        await self.stop_following()
        if self._standing.member is not None:
            await self._standing.member.close()
            self._standing.member = None

    # ---------------------------------------------------------------- what the cluster wishes

    def follow_cluster(self, identity: CurrentIdentity) -> None:
        """Roles, certificate and lock, from now on."""
        standing = self._standing
        keeper = LockKeeper(standing.lock, identity, standing.manager.channel_if_up, standing.changing)

        async def follow() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._roles.run())
                group.create_task(keeper.run())

        self._following = asyncio.create_task(follow())

    async def stop_following(self) -> None:
        if self._reopening is not None:
            await _end(self._reopening)
            self._reopening = None
        await self._stop_following()

    async def _stop_following(self) -> None:
        if self._following is not None:
            await _end(self._following)
            self._following = None

    def forget_wishes(self) -> None:
        """The cluster has another state now: what it said of this node may not be true any more."""
        self._roles.forget()

    # ---------------------------------------------------------------- the cluster's VXLAN port

    def _on_data_path_port(self, port: int) -> None:
        """Only known once there is a session: a joining node begins with the default port."""
        record = self._standing.record
        is_under_way = self._reopening is not None and not self._reopening.done()
        if record is not None and port != record.data_path_port and not is_under_way:
            self._reopening = asyncio.create_task(self._reopen(port))

    async def _reopen(self, port: int) -> None:
        standing = self._standing
        try:
            async with standing.changing:
                if standing.record is None or standing.identity is None or standing.member is None:
                    return
                _log.info("the cluster's data path port is %d: opening the networks anew", port)
                await self.reenter(msgspec.structs.replace(standing.record, data_path_port=port))
        except Exception as error:
            self._on_failed(error)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
