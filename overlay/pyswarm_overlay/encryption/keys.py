"""This node's tunnel keys: made here, kept in the run directory, never said to anybody.

The run directory is in memory (`/run`), so a key outlives the daemon but not the machine: after a reboot nothing is
left that it could have sealed, and a node that starts anew makes a new one. Never decides when: `core.rotation` does.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import Exhausted
from pyswarm_common.files import write_whole
from pyswarm_common.secrecy import shown_without

from .core.peers import OwnKey

FIRST_PORT = 51820
PORTS = 32
_MAX_FILE = 1 << 16


class SavedKey(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    slot: int
    private: bytes
    port: int
    made_at: float
    retired_at: float = 0.0

    def __repr__(self) -> str:
        return shown_without(self, "private")


class KeyFile:
    """Readable by root only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> tuple[OwnKey, ...]:
        """None where there is no file, or none that can be used: the node then makes new ones."""
        try:
            if self._path.stat().st_size > _MAX_FILE:
                return ()
            saved = decode_json(self._path.read_bytes(), tuple[SavedKey, ...])
            keys = tuple(_restored(one) for one in saved)
        except (OSError, Malformed, ValueError):
            return ()
        slots = {key.slot for key in keys}
        return keys if len(keys) <= 2 and slots <= {0, 1} and len(slots) == len(keys) else ()

    def save(self, keys: Sequence[OwnKey]) -> None:
        """Replaces the file: a key that went is nowhere any more."""
        saved = [
            SavedKey(
                number=key.number,
                slot=key.slot,
                private=key.private,
                port=key.port,
                made_at=key.made_at,
                retired_at=key.retired_at,
            )
            for key in keys
        ]
        write_whole(self._path, msgspec.json.encode(saved))

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()


def _restored(saved: SavedKey) -> OwnKey:
    public = X25519PrivateKey.from_private_bytes(saved.private).public_key().public_bytes_raw()
    return OwnKey(saved.number, saved.slot, saved.private, public, saved.port, saved.made_at, saved.retired_at)


def new_key(keys: Sequence[OwnKey], now: float) -> OwnKey:
    """One more, in the slot and at a port that none of these has. Its number rises over restarts, like the clock."""
    private = X25519PrivateKey.generate()
    return OwnKey(
        number=max([int(now), *(key.number + 1 for key in keys)]),
        slot=0 if all(key.slot != 0 for key in keys) else 1,
        private=private.private_bytes_raw(),
        public=private.public_key().public_bytes_raw(),
        port=free_port(key.port for key in keys),
        made_at=now,
    )


def free_port(taken: Iterable[int]) -> int:
    """In the calling thread's namespace. Blocking, but short."""
    used = set(taken)
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        if port not in used and _is_free(port):
            return port
    raise Exhausted(
        f"UDP ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are all in use: free one for encrypted networks"
    )


def _is_free(port: int) -> bool:
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - as WireGuard will
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((anywhere, port))
            except OSError:
                return False
    return True
