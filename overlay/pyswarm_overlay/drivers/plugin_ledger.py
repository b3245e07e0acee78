"""What this node asked plugins for, on disk before it is asked: so that whatever happens, it is given back.

One file per network. An entry goes only when the plugin has answered that it is released. Read at the next start: what
belongs to no sandbox is released then.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.files import remove_from_folder, write_whole
from pyswarm_overlay.core.names import short

from .plugin_protocol import Joined


class PoolEntry(msgspec.Struct, frozen=True, kw_only=True):
    pool_id: str
    subnet: str
    gateway: str = ""
    """With prefix length."""


class EndpointEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox's endpoint: asked for when it is here, made when `joined` is."""

    endpoint_id: str
    sandbox_id: str
    addresses: tuple[str, ...] = ()
    of_pools: tuple[str, ...] = ()
    """The pool of each address, where a plugin gave it."""
    is_asked: bool = False
    mac: str = ""
    joined: Joined | None = None


class NetworkEntry(msgspec.Struct, frozen=True, kw_only=True):
    network_id: str
    name: str
    driver: str = ""
    """Of a plugin; empty where the driver is ours."""
    ipam_driver: str = ""
    is_asked: bool = False
    """CreateNetwork was asked for; `is_made`: and answered."""
    is_made: bool = False
    pools: tuple[PoolEntry, ...] = ()
    endpoints: dict[str, EndpointEntry] = {}

    def with_endpoint(self, entry: EndpointEntry) -> NetworkEntry:
        return msgspec.structs.replace(self, endpoints={**self.endpoints, entry.endpoint_id: entry})

    def without_endpoint(self, endpoint_id: str) -> NetworkEntry:
        left = {key: entry for key, entry in self.endpoints.items() if key != endpoint_id}
        return msgspec.structs.replace(self, endpoints=left)


class Ledger:
    """The files. Blocking, but small."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._entries: dict[str, NetworkEntry] = {}

    def load(self) -> None:
        """A file that cannot be read stays: what it said is not known to be released."""
        if not self._directory.is_dir():
            return
        for path in sorted(self._directory.glob("*.json")):
            try:
                entry = decode_json(path.read_bytes(), NetworkEntry)
            except (OSError, Malformed):
                continue
            self._entries[entry.network_id] = entry

    def get(self, network_id: str) -> NetworkEntry | None:
        return self._entries.get(network_id)

    def all(self) -> list[NetworkEntry]:
        return list(self._entries.values())

    def put(self, entry: NetworkEntry) -> NetworkEntry:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self._file(entry.network_id), msgspec.json.encode(entry), durable=True)
        self._entries[entry.network_id] = entry
        return entry

    def remove(self, network_id: str) -> None:
        remove_from_folder(self._file(network_id))
        self._entries.pop(network_id, None)

    def _file(self, network_id: str) -> Path:
        return self._directory / f"{network_id[:64]}-{short(network_id)}.json"
