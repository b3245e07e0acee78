"""Configuration-only networks: settings that this node lends to networks of the cluster which name them.

`network create --config-only -o parent=eth1 --subnet … NAME` is typed on each node, and each node keeps its own on its
disk, as Docker does. A network with `--config-from NAME` is, on this node, what NAME says here. One JSON file each,
written whole and synced: they are the user's words, and nobody else has them.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import AlreadyExists, NotFound
from pyswarm_common.files import write_whole
from pyswarm_overlay.core.names import short

_MAX_FILE = 1 << 20


class ConfigNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """What is lent. Addresses as in a network's spec."""

    config_id: str
    name: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ip_ranges: tuple[str, ...] = ()
    auxiliary_addresses: dict[str, str] = {}
    ipam_driver: str = ""
    ipam_options: dict[str, str] = {}
    ipv6: bool = False
    created_at: float = 0.0


class Configs:
    """Those of this node. Blocking, but small: a handful of files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, config: ConfigNetwork) -> None:
        if any(known.name == config.name for known in self.all()):
            raise AlreadyExists(f"network with name {config.name} already exists")
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self._file(config.name), msgspec.json.encode(config), durable=True)

    def remove(self, reference: str) -> ConfigNetwork:
        """The one that was removed."""
        config = self.get(reference)
        self._file(config.name).unlink(missing_ok=True)
        return config

    def get(self, reference: str) -> ConfigNetwork:
        """By id, name, or the beginning of an id that only one has."""
        known = self.all()
        for config in known:
            if reference in (config.config_id, config.name):
                return config
        found = [config for config in known if reference and config.config_id.startswith(reference)]
        if len(found) != 1:
            raise NotFound(f"network {reference} not found")
        return found[0]

    def named(self, name: str) -> ConfigNetwork | None:
        return next((config for config in self.all() if config.name == name), None)

    def all(self) -> list[ConfigNetwork]:
        if not self._directory.is_dir():
            return []
        found = (_read(path) for path in sorted(self._directory.glob("*.json")))
        return sorted((config for config in found if config is not None), key=lambda config: config.name)

    def _file(self, name: str) -> Path:
        return self._directory / f"{short('config', name)}{short(name)}.json"


def _read(path: Path) -> ConfigNetwork | None:
    try:
        return decode_json(path.read_bytes(), ConfigNetwork) if path.stat().st_size <= _MAX_FILE else None
    except (OSError, Malformed):
        return None
