"""Performs what `roles` decides: the manager on this machine is made and removed, the certificate fetched anew.

A step is decided again once it has its turn: what looked like a missing manager may have been one that only stood
still for a change that was under way, and "start the manager" begins with a fresh state directory.
"""

from __future__ import annotations

import random
import time

from pyswarm_common.model import Node, NodeRole
from pyswarm_common.random_ids import new_raft_id

from . import certificates
from .paths import NodeRecord
from .roles import RoleLoop, Step, next_step, renewal_time
from .standing import Standing
from .trust import TrustWishes


class RoleSteps:
    """One per daemon; `run` it while there is a membership."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._loop = RoleLoop(self._next_step, self._perform)
        self._trust = TrustWishes()
        self._renewal_fraction = random.random()

    async def run(self) -> None:
        """For ever."""
        await self._loop.run()

    def on_node(self, node: Node) -> None:
        self._loop.on_node(node)

    def on_roots(self, roots: bytes) -> None:
        self._trust.on_roots(roots)
        self._loop.wake()

    def forget(self) -> None:
        """What the managers said of the node is not true any more."""
        self._loop.forget()

    def _next_step(self, node: Node | None) -> Step:
        identity, manager = self._standing.identity, self._standing.manager
        assert identity is not None
        not_before, not_after = identity().validity
        return next_step(
            node,
            identity().role,
            is_manager_set_up=manager.is_set_up,
            renew_at=renewal_time(not_before, not_after, self._renewal_fraction),
            now=time.time(),
            has_new_roots=self._trust.has_new_roots(identity()),
            is_asked_to_renew=self._trust.is_asked_to_renew(identity(), node),
        )

    async def _perform(self, step: Step) -> None:
        async with self._standing.changing:
            if self._standing.identity is None or self._next_step(self._loop.node) is not step:
                return
            match step:
                case Step.PROMOTE:
                    await self._take_role()
                    await self._start_manager()
                case Step.START_MANAGER:
                    await self._start_manager()
                case Step.INTRODUCE:
                    await self._introduce()
                case Step.DEMOTE:
                    await self._standing.manager.remove()
                    self._open_for_good()
                    await self._renew()
                case Step.RENEW:
                    await self._renew()
                    self._standing.manager.reload()
                case Step.TRUST:
                    await self._trust_other_roots()
                case Step.NOTHING:
                    pass

    async def _start_manager(self) -> None:
        record, identity, manager = self._standing.record, self._standing.identity, self._standing.manager
        assert record is not None
        assert identity is not None
        if identity().role is not NodeRole.MANAGER:
            return  # the role was taken back meanwhile
        await manager.remove()
        manager.configure(record, new_raft_id(), self._others(record))
        manager.start()

    async def _introduce(self) -> None:
        record, node = self._standing.record, self._loop.node
        assert record is not None
        assert node is not None
        self._standing.manager.introduce(self._others(record))
        if node.role is NodeRole.WORKER:
            await self._take_role()

    async def _take_role(self) -> None:
        """With the certificate the leader makes the node a manager: what was said of it before is old news."""
        await self._renew()
        self._loop.forget()

    def _others(self, record: NodeRecord) -> tuple[str, ...]:
        return tuple(address for address in self._standing.managers() if address != record.manager_address)

    def _open_for_good(self) -> None:
        """Workers have no lock: they hold nothing of the managers' any more."""
        assert self._standing.identity is not None
        if self._standing.lock.master is not None:
            self._standing.identity.open_for_good()
            self._standing.lock.take_off()

    async def _renew(self) -> None:
        record, identity, member = self._standing.record, self._standing.identity, self._standing.member
        assert record is not None
        assert identity is not None
        assert member is not None
        before, node, managers = identity(), self._loop.node, self._standing.managers()
        if time.time() < before.validity[1]:
            after = await certificates.renew(before, managers)
        else:
            after = await certificates.renew_expired(before, (*managers, *record.seeds))
        self._trust.renewed(before, after, node)
        identity.replace(after)
        await member.agent.identity_changed()

    async def _trust_other_roots(self) -> None:
        identity, member = self._standing.identity, self._standing.member
        assert identity is not None
        assert member is not None
        identity.replace(self._trust.with_new_roots(identity()))
        await member.agent.trust_changed()
        self._standing.manager.reload()
