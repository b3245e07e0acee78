"""Verifies the tunnels of encrypted networks, as a part of the host's verification."""

from __future__ import annotations

from pyswarm_overlay.verified import InTheHost

from .encryption import Encryption


class TunnelAudit(InTheHost):
    """Devices, peers, addresses and routes in the tunnels' namespace."""

    def __init__(self, encryption: Encryption) -> None:
        self._encryption = encryption

    async def observe(self, key: str) -> list[str]:
        return [f"encryption: {problem}" for problem in await self._encryption.observe()]

    async def repair(self, key: str) -> None:
        await self._encryption.repair()

    def size(self) -> dict[str, int]:
        return {"tunnels": self._encryption.peer_count}
