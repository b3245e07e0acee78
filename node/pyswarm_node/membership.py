"""This machine's membership from one daemon to the next: taken up again at the start, unlocked, and ended by leaving.

`node.json` is removed first when leaving: it exists exactly while the machine is a member, and what else a crash left
behind without it is swept away at the next start. How a machine becomes a member is in `joining`, what is open while
it is one in `stay`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pyswarm_common.errors import FailedPrecondition, PyswarmError
from pyswarm_common.identity.locks import LOCKED, LockKey
from pyswarm_common.model import NodeRole
from pyswarm_runtime import Runtime
from pyswarm_worker.tasks import task_id_of

from . import certificates
from .address_watch import AddressWatch
from .identity import CurrentIdentity
from .joining import Joining
from .leaving import ask_why_not
from .member import open_overlay
from .paths import DEFAULT_DATA_PATH_PORT, NodeRecord, Options
from .standing import NOT_A_MEMBER, Standing
from .standstill import Standstill
from .stay import Stay

_log = logging.getLogger(__name__)


class Membership:
    """One per daemon: puts the parts together."""

    def __init__(self, options: Options, runtime: Runtime, on_failed: Callable[[BaseException], None]) -> None:
        self._options, self._runtime = options, runtime
        self.standing = Standing(options)
        self._stay = Stay(options, runtime, self.standing, on_failed)
        self._addresses = AddressWatch(options, self.standing, self._stay, on_failed)
        self.joining = Joining(options, runtime, self.standing, self._stay)
        self.standstill = Standstill(options, self.standing, self._stay)

    # ---------------------------------------------------------------- start and end of the daemon

    async def restore(self) -> None:
        """Take the membership up again, if there is one."""
        self._addresses.start()
        record = NodeRecord.load(self._options)
        if record is None:
            await self._sweep()
            return
        standing = self.standing
        standing.manager.put_back()
        identity = CurrentIdentity.load(self._options, record, standing.lock)
        record = await self._addresses.present(record)
        await standing.manager.readdress(record)
        if standing.lock.is_locked:
            _log.warning("%s", LOCKED)
        else:
            self._start_manager(identity)
        await self._stay.enter(record, identity)

    def _start_manager(self, identity: CurrentIdentity) -> None:
        if identity().role is NodeRole.MANAGER and self.standing.manager.has_state:
            self.standing.manager.start()

    async def _sweep(self) -> None:
        """What a crash in the middle of joining or leaving left: containers of tasks, networks, files."""
        for state in await self._runtime.list():
            if task_id_of(state):
                _log.info("container %s is of a swarm that this node has left: removing it", state.config.name)
                await self._runtime.remove(state.id, force=True)
        if self._options.network.exists():
            await (await open_overlay(self._options, "127.0.0.1", DEFAULT_DATA_PATH_PORT)).destroy()
        self._options.forget_membership()

    async def close(self) -> None:
        """Containers run on."""
        await self._addresses.close()
        await self._stay.close()
        await self.standing.manager.stop()

    # ---------------------------------------------------------------- autolock

    async def unlock(self, token: str) -> None:
        """Go on with what waited for the unlock key. Raises WrongKey."""
        standing = self.standing
        async with standing.change():
            if standing.identity is None or standing.member is None:
                raise FailedPrecondition(NOT_A_MEMBER)
            if not standing.lock.is_locked:
                raise FailedPrecondition("swarm is not locked")
            standing.lock.open(LockKey.parse(token))
            standing.identity.unlock()
            _log.info("unlocked")
            self._start_manager(standing.identity)
            await standing.member.agent.identity_changed()
            self._stay.follow_cluster(standing.identity)

    # ---------------------------------------------------------------- leave

    async def leave(self, *, force: bool) -> None:
        """Cease to be a member. What runs here for the cluster ends."""
        standing = self.standing
        async with standing.change():
            if standing.identity is None or standing.member is None:
                raise FailedPrecondition(NOT_A_MEMBER)
            if standing.identity.certified.role is NodeRole.MANAGER and not force:
                raise FailedPrecondition(await ask_why_not(standing.channel, standing.node_id))
            await self._stay.stop_following()
            await standing.member.end_session()
            try:
                await certificates.leave(standing.identity(), standing.managers(), force=force)
            except PyswarmError as error:
                _log.warning("the swarm was not told that this node leaves: %s", error)
            self._options.record.unlink(missing_ok=True)
            await self._stay.exit()
            await standing.manager.stop()
            self._options.forget_membership()
            _log.info("left the swarm")
