"""Verifies that the process that speaks the PROXY protocol is there while ports need it."""

from __future__ import annotations

from pyswarm_overlay.publisher import Publisher
from pyswarm_overlay.verified import InTheHost


class RelayAudit(InTheHost):
    """One for the host."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def observe(self, _key: str) -> list[str]:
        return await self._publisher.relay_problems()

    async def repair(self, _key: str) -> None:
        await self._publisher.tell_relay()

    def size(self) -> dict[str, int]:
        return {"ports with the PROXY protocol": self._publisher.relayed_ports}
