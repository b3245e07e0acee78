"""Verifies that the process that speaks the PROXY protocol is there while ports need it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pyswarm_overlay.publisher import Publisher
from pyswarm_overlay.verified import HOST_KEY


class RelayAudit:
    """One for the host."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    @property
    def place(self) -> Literal["host"]:
        return "host"

    def places(self) -> Collection[str]:
        return [HOST_KEY]

    async def observe(self, _key: str) -> list[str]:
        return await self._publisher.relay_problems()

    async def repair(self, _key: str) -> None:
        await self._publisher.tell_relay()

    def size(self) -> dict[str, int]:
        return {"ports with the PROXY protocol": self._publisher.relayed_ports}
