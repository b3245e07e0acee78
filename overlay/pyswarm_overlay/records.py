"""What a daemon must know after it was killed: its sandboxes, the last tables, the ingress ports, its gateway subnet.

One JSON file each, replaced by rename. They are a cache of what callers said and of addresses we chose: a file that
cannot be read counts as absent, and the callers say it again. Nothing here is synced to disk, since after a power cut
no namespace is left that it could describe.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.files import write_whole

from .core.names import short
from .types import IngressPort, NetworkTable, Sandbox

T = TypeVar("T")
_MAX_FILE = 64 << 20


class SandboxRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox and the address of its way out (with prefix length)."""

    sandbox: Sandbox
    gateway_address: str | None = None


class IngressRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of the last `set_ingress`."""

    addresses: tuple[str, ...] = ()
    ports: tuple[IngressPort, ...] = ()


class GatewayRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The subnet of the ways out, and which one was configured when it was chosen."""

    configured: str
    subnet: str
    subnet6: str | None = None
    configured6: str = ""


class Records:
    """The files below the state directory. Blocking, but small: a few hundred microseconds at most."""

    def __init__(self, state_dir: Path) -> None:
        self._sandboxes = state_dir / "sandboxes"
        self._networks = state_dir / "networks"
        self._ingress = state_dir / "ingress.json"
        self._gateway = state_dir / "gateway.json"
        for directory in (self._sandboxes, self._networks):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def save_sandbox(self, record: SandboxRecord) -> None:
        _write(self._file(self._sandboxes, record.sandbox.sandbox_id), record)

    def forget_sandbox(self, sandbox_id: str) -> None:
        self._file(self._sandboxes, sandbox_id).unlink(missing_ok=True)

    def sandboxes(self) -> list[SandboxRecord]:
        return list(_read_all(self._sandboxes, SandboxRecord))

    def save_network(self, table: NetworkTable) -> None:
        _write(self._file(self._networks, table.network_id), table)

    def forget_network(self, network_id: str) -> None:
        self._file(self._networks, network_id).unlink(missing_ok=True)

    def networks(self) -> list[NetworkTable]:
        return list(_read_all(self._networks, NetworkTable))

    def save_ingress(self, record: IngressRecord) -> None:
        _write(self._ingress, record)

    def ingress(self) -> IngressRecord:
        return _read(self._ingress, IngressRecord) or IngressRecord()

    def save_gateway(self, record: GatewayRecord) -> None:
        _write(self._gateway, record)

    def gateway(self) -> GatewayRecord | None:
        return _read(self._gateway, GatewayRecord)

    def remove_all(self) -> None:
        for directory in (self._sandboxes, self._networks):
            for file in directory.glob("*.json*"):
                file.unlink(missing_ok=True)
            with suppress(OSError):
                directory.rmdir()
        self._ingress.unlink(missing_ok=True)
        self._gateway.unlink(missing_ok=True)

    @staticmethod
    def _file(directory: Path, name: str) -> Path:
        """The id may be as long as a file name, so its hash keeps names apart and the suffix within limits."""
        return directory / f"{name[:64]}-{short(name)}.json"


def _write(path: Path, value: object) -> None:
    write_whole(path, msgspec.json.encode(value))


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        if path.stat().st_size > _MAX_FILE:
            return None
        return decode_json(path.read_bytes(), kind)
    except (OSError, Malformed):
        return None


def _read_all(directory: Path, kind: type[T]) -> Iterator[T]:
    for path in sorted(directory.glob("*.json")):
        value = _read(path, kind)
        if value is None:
            path.unlink(missing_ok=True)
        else:
            yield value
