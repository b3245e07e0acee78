"""Follows the role, certificate and trust that the cluster gives this node: promotion, demotion, renewal, roots.

`next_step` decides, from the node's own object, its certificate and the clock; the loop performs it and looks again.
Order matters: a promoted node gets its certificate before its manager starts; a demoted one gives its manager up only
when the leader has taken it out of Raft (its `role` is WORKER then), so the quorum is never surprised.

A node that was demoted *and* promoted again while it was away may have a manager from before, which nobody knows any
more and which knows nobody. What a leader says may be old news, so that manager is never ended because of it: it is
introduced to the managers of today, hears from them that it was removed, and ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from enum import Enum

from pyswarm_common.errors import Forbidden, PyswarmError
from pyswarm_common.model import Node, NodeRole

_log = logging.getLogger(__name__)

_RETRY_S = 1.0
_INTRODUCE_AGAIN_S = 10.0
_LOOK_AGAIN_S = 60.0  # a certificate may live for an hour only, and clocks are set
_RENEW_FROM, _RENEW_UNTIL = 0.5, 0.8  # of a certificate's life


class Step(Enum):
    NOTHING = "nothing"
    PROMOTE = "promote"  # certificate of a manager, then the manager
    START_MANAGER = "start the manager"
    INTRODUCE = "tell the manager on this node where the others are"
    DEMOTE = "demote"  # stop the manager and forget its state, then the certificate of a worker
    TRUST = "trust other roots"
    RENEW = "renew"


def next_step(
    node: Node | None,
    certificate: NodeRole,
    *,
    is_manager_set_up: bool,
    renew_at: float,
    now: float,
    has_new_roots: bool = False,
    is_asked_to_renew: bool = False,
) -> Step:
    """What is to be done next. Without knowledge of the node's object only time and trust count."""
    if has_new_roots:
        return Step.TRUST
    if node is not None:
        if node.spec.role is NodeRole.MANAGER:
            step = _step_of_manager(node, certificate, is_manager_set_up)
            if step is not Step.NOTHING:
                return step
        has_manager = certificate is NodeRole.MANAGER or is_manager_set_up
        if node.spec.role is NodeRole.WORKER and node.role is NodeRole.WORKER and has_manager:
            return Step.DEMOTE
    return Step.RENEW if now >= renew_at or is_asked_to_renew else Step.NOTHING


def _step_of_manager(node: Node, certificate: NodeRole, is_manager_set_up: bool) -> Step:
    if certificate is NodeRole.WORKER:
        return Step.PROMOTE
    if not is_manager_set_up:
        # With a certificate from before it was demoted, it is a manager again only once it has asked for a new one.
        return Step.PROMOTE if node.role is NodeRole.WORKER else Step.START_MANAGER
    return Step.INTRODUCE if node.manager_status is None else Step.NOTHING


def renewal_time(not_before: float, not_after: float, fraction: float) -> float:
    """When to renew; `fraction` in [0, 1) spreads the nodes over the window."""
    share = _RENEW_FROM + (_RENEW_UNTIL - _RENEW_FROM) * fraction
    return not_before + (not_after - not_before) * share


class RoleLoop:
    """Woken by what the managers say of this node."""

    def __init__(self, step: Callable[[Node | None], Step], perform: Callable[[Step], Awaitable[None]]) -> None:
        self._step = step
        self._perform = perform
        self._node: Node | None = None
        self._changed = asyncio.Event()

    @property
    def node(self) -> Node | None:
        return self._node

    def on_node(self, node: Node) -> None:
        self._node = node
        self._changed.set()

    def wake(self) -> None:
        """Something that `step` looks at has changed."""
        self._changed.set()

    def forget(self) -> None:
        self._node = None

    async def run(self) -> None:
        """For ever."""
        wait_s = 0.0
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            wait_s = await self._once()

    async def _once(self) -> float:
        """Returns how long to wait for news."""
        step = self._step(self._node)
        if step is Step.NOTHING:
            return _LOOK_AGAIN_S
        _log.info("node's role and certificate: %s", step.value)
        started_at = time.monotonic()
        try:
            await self._perform(step)
        except PyswarmError as error:
            _log.warning("cannot %s now: %s", step.value, error)
            return _LOOK_AGAIN_S if isinstance(error, Forbidden) else _RETRY_S
        if step is Step.INTRODUCE:
            return _INTRODUCE_AGAIN_S  # it goes on until the manager is a member, or ends
        # Once more at once: what was done may call for the next step; but never busily.
        return max(0.0, _RETRY_S - (time.monotonic() - started_at))
