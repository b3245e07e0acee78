"""The peers as the managers last told them, for a daemon that starts while no manager is reached. Nothing secret."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.files import write_whole

from .types import TunnelPeer

_MAX_FILE = 64 << 20


class PeerFile:
    """Below the run directory. Blocking, but small."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, TunnelPeer]:
        try:
            if self._path.stat().st_size > _MAX_FILE:
                return {}
            return {peer.node_id: peer for peer in decode_json(self._path.read_bytes(), tuple[TunnelPeer, ...])}
        except (OSError, Malformed):
            return {}

    def save(self, peers: Iterable[TunnelPeer]) -> None:
        write_whole(self._path, msgspec.json.encode(list(peers)))

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()
