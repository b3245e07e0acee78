"""What a host's daemon does for its manager, as `pyswarm_node.roles` and `role_steps` decide and perform it.

It goes by what the agent was told of its node, which may be old news, and by the certificate it has. The simulator must
not import the daemon, so the rules are written here once more: whoever changes them there changes them here. Starting
the processes again is the host's part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from functools import partial

from pyswarm_common.model import Node, NodeRole
from pyswarm_simulator.host import Host


class Step(Enum):
    """The daemon's, without those that only time and trust call for."""

    NOTHING = auto()
    PROMOTE = auto()
    START_MANAGER = auto()
    INTRODUCE = auto()
    DEMOTE = auto()


def next_step(node: Node, certificate: NodeRole, is_set_up: bool) -> Step:
    """As `pyswarm_node.roles.next_step`."""
    if node.spec.role is NodeRole.MANAGER:
        if certificate is NodeRole.WORKER:
            return Step.PROMOTE
        if not is_set_up:
            return Step.PROMOTE if node.role is NodeRole.WORKER else Step.START_MANAGER
        return Step.INTRODUCE if node.manager_status is None else Step.NOTHING
    if node.role is NodeRole.WORKER and (certificate is NodeRole.MANAGER or is_set_up):
        return Step.DEMOTE
    return Step.NOTHING


class Daemon:
    """One host's. `look` is called now and then."""

    def __init__(self, host: Host, renew: Callable[[str], asyncio.Task[object]]) -> None:
        """`renew` asks the managers for a certificate of the node; gives its role, or a refusal."""
        self._host, self._renew = host, renew
        self._is_renewing = False

    def look(self) -> None:
        """Do what is to be done next."""
        host = self._host
        loop = host.agent_loop
        if loop is None or not loop.is_alive or loop.is_frozen or host.told is None or self._is_renewing:
            return
        self._perform(next_step(host.told, host.certificate, host.is_manager_set_up), host.told)

    def _perform(self, step: Step, node: Node) -> None:
        host = self._host
        match step:
            case Step.PROMOTE | Step.DEMOTE:
                if step is Step.DEMOTE:
                    host.wipe_manager()
                self._ask(step)
            case Step.START_MANAGER:
                self._start_anew()
            case Step.INTRODUCE:
                host.introduce()
                if node.role is NodeRole.WORKER:
                    self._ask(step)
            case Step.NOTHING:
                pass

    def _ask(self, step: Step) -> None:
        self._is_renewing = True
        self._renew(self._host.node_id).add_done_callback(partial(self._renewed, step, self._host.agent_loop))

    def _renewed(self, step: Step, loop: object, asked: asyncio.Task[object]) -> None:
        self._is_renewing = False
        host, role = self._host, asked.result()
        if not isinstance(role, NodeRole) or host.agent_loop is not loop or not host.is_agent_up:
            return  # refused, or the daemon that asked is gone
        host.certify(role)
        if step is not Step.DEMOTE:
            host.told = None
        if step is Step.PROMOTE and role is NodeRole.MANAGER:
            self._start_anew()

    def _start_anew(self) -> None:
        self._host.wipe_manager()
        self._host.introduce()
        self._host.start_manager()
