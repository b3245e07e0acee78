"""Asks other nodes where the managers are, while none of those that this node was told of answers.

A node may be away while the last manager that it knows hands over to new ones. What other nodes say is a hint: it is
dialled, and whoever answers there must prove by its certificate to be a manager of this cluster. So a node that lies
wastes a few connections, and no more. Decides when to ask; `KnownManagers` decides whom, and keeps the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import grpc

from pyswarm.v1 import agent_pb2
from pyswarm_common.errors import PyswarmError

from .known_managers import LAST_RESORT_S, KnownManagers

_log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 5.0
PAUSE_S = LAST_RESORT_S / 2


class Informant(Protocol):
    """Another node's agent."""

    async def get_managers(self) -> agent_pb2.GetManagersResponse: ...


Reach = Callable[[str], AbstractAsyncContextManager[Informant]]


class Inquiries:
    """One agent's."""

    def __init__(self, known: KnownManagers, reach: Reach, uniform: Callable[[float, float], float]) -> None:
        self._known, self._reach, self._uniform = known, reach, uniform

    async def run(self) -> None:
        """For ever; rests while there is a session."""
        while True:
            await self._known.wait_without()
            await asyncio.sleep(PAUSE_S * self._uniform(0.5, 1.0))
            address = self._known.next_informant()
            if address is not None:
                await self._ask(address)

    async def _ask(self, address: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._reach(address) as informant:
                answer = await informant.get_managers()
        except (PyswarmError, grpc.aio.AioRpcError, TimeoutError):
            return
        if news := self._known.hear(answer.addresses):
            _log.info("the node at %s says that there are managers at %s", address, ", ".join(news))
