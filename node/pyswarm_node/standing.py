"""What this machine is in a cluster at the moment, and what follows from that: whom to dial, what may be asked of it.

Decides nothing and opens nothing; `stay` sets what is here. Whoever changes the membership or its files holds
`changing`: a command by `change`, which waits for a moment, then refuses; what the cluster wants, by waiting for its
turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import grpc

from pyswarm_common.errors import FailedPrecondition, Unavailable
from pyswarm_common.identity.locks import Locked
from pyswarm_common.model import NodeRole
from pyswarm_worker.plain import PlainContainers

from .forward import no_manager
from .identity import CurrentIdentity
from .local_manager import LocalManager
from .machine_lock import MachineLock
from .member import Member
from .paths import NodeRecord, Options

ALREADY_MEMBER = 'This node is already part of a swarm. Use "pyswarm leave" to leave this swarm and join another one.'
NOT_A_MEMBER = "This node is not part of a swarm"
CHANGE_WAIT_S = 10.0
"""For what the cluster wants of this node; longer only another command takes."""


class Standing:
    """One per daemon. Record, identity and member are there together, or none of them is."""

    def __init__(self, options: Options) -> None:
        self.lock = MachineLock(options.certificates)
        self.manager = LocalManager(options, self.lock, self.known_managers)
        self.record: NodeRecord | None = None
        self.identity: CurrentIdentity | None = None
        self.member: Member | None = None
        self.changing = asyncio.Lock()

    # ---------------------------------------------------------------- what is known

    @property
    def node_id(self) -> str:
        return self.record.node_id if self.record is not None else ""

    def known_managers(self) -> Sequence[str]:
        """As the agent has heard of them."""
        return self.member.agent.managers if self.member is not None else ()

    def managers(self) -> Sequence[str]:
        """Whom to dial, the local one first."""
        local = self.local_manager()
        return tuple(dict.fromkeys((*((local,) if local else ()), *self.known_managers())))

    def local_manager(self) -> str | None:
        return self.record.manager_address if self.record is not None and self.manager.is_running else None

    def channel(self) -> grpc.aio.Channel:
        """To the manager on this machine. Raises FailedPrecondition when there is none, Locked while it waits for the
        unlock key, Unavailable while it starts."""
        if self.record is not None and self.lock.is_locked:
            raise Locked
        if not self.manager.is_wanted:
            raise no_manager(self.record is not None)
        return self.manager.channel()

    def images_changed(self) -> None:
        if self.member is not None:
            self.member.agent.images_changed()

    async def is_in_cluster(self, reference: str) -> bool:
        """Whether some node has an image under that name; not known is no."""
        try:
            return self.member is not None and await self.member.agent.is_in_cluster(reference)
        except Unavailable:
            return False

    def plain_containers(self) -> PlainContainers:
        """Those of this machine that are no tasks. Raises FailedPrecondition where it is in no swarm."""
        if self.member is None:
            raise FailedPrecondition(NOT_A_MEMBER)
        return self.member.agent.plain

    # ---------------------------------------------------------------- what may be asked of it

    def check_not_member(self) -> None:
        if self.record is not None:
            raise FailedPrecondition(ALREADY_MEMBER)

    def check_same_cluster(self, cluster_id: str) -> None:
        """Raises FailedPrecondition for another cluster's backup."""
        if self.record is not None and self.record.cluster_id != cluster_id:
            raise FailedPrecondition(ALREADY_MEMBER)

    def check_manager(self, *, needs_state: bool = True) -> None:
        """Raises FailedPrecondition unless this is a manager (with its state) whose keys can be read."""
        if self.record is None:
            raise FailedPrecondition(NOT_A_MEMBER)
        if self.lock.is_locked:
            raise Locked
        was_one = self.identity is not None and self.identity().role is NodeRole.MANAGER
        if not (self.manager.has_state or (was_one and not needs_state)):
            raise no_manager(True)

    @contextlib.asynccontextmanager
    async def change(self) -> AsyncIterator[None]:
        """One command at a time. What the cluster wants of this node takes a moment, and is waited for."""
        try:
            async with asyncio.timeout(CHANGE_WAIT_S):
                await self.changing.acquire()
        except TimeoutError:
            raise Unavailable("this node's membership is being changed already: try again in a moment") from None
        try:
            yield
        finally:
            self.changing.release()
