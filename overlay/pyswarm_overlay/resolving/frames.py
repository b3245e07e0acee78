"""What the daemon tells the process that answers names, and how it is cut from a stream: lengths and msgpack.

Sockets travel beside the frame that needs them (SCM_RIGHTS), in its order. Everything told is state, and may be told
again. Pure, but for the digest of our own code.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import msgspec

from pyswarm_overlay.types import NetworkTable, TableDelta

MAX_FRAME = 64 << 20
_LENGTH_BYTES = 4


class SetUpstreams(msgspec.Struct, frozen=True, tag=True):
    """Whom to ask for other names; None: whom the host's /etc/resolv.conf names."""

    servers: tuple[str, ...] | None


class PutTable(msgspec.Struct, frozen=True, tag=True):
    table: NetworkTable


class Change(msgspec.Struct, frozen=True, tag=True):
    """Of a table that was put."""

    delta: TableDelta


class Forget(msgspec.Struct, frozen=True, tag=True):
    network_id: str


class Serve(msgspec.Struct, frozen=True, tag=True):
    """Two sockets come with it: UDP, TCP. They take the place of those the sandbox had."""

    sandbox_id: str
    networks: tuple[str, ...]
    own: dict[str, tuple[str, ...]]
    servers: tuple[str, ...] = ()


class Leave(msgspec.Struct, frozen=True, tag=True):
    sandbox_id: str


class Retain(msgspec.Struct, frozen=True, tag=True):
    """All there is: whatever else is known goes."""

    sandboxes: tuple[str, ...]
    networks: tuple[str, ...]


class Sync(msgspec.Struct, frozen=True, tag=True):
    """Answered with its number once all before it has been taken in."""

    number: int


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End, after so many seconds of serving on: another process has taken over."""

    linger_s: float = 0.0


Frame = SetUpstreams | PutTable | Change | Forget | Serve | Leave | Retain | Sync | Stop
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    data = _encoder.encode(frame)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def decode(buffer: bytearray) -> Iterator[Frame]:
    """The whole frames at the buffer's beginning, taken out of it; ValueError for what is none."""
    while len(buffer) >= _LENGTH_BYTES:
        length = int.from_bytes(buffer[:_LENGTH_BYTES], "big")
        if length > MAX_FRAME:
            raise ValueError("a frame is too long")
        end = _LENGTH_BYTES + length
        if len(buffer) < end:
            return
        data = bytes(buffer[_LENGTH_BYTES:end])
        del buffer[:end]
        yield _decoder.decode(data)


@cache
def digest() -> str:
    """Names the code that answers: a daemon of another version does not go on with an old process."""
    root = Path(__file__).parents[1]
    sources = [*sorted((root / "resolving").glob("*.py")), *sorted((root / "core").glob("dns_*.py"))]
    total = hashlib.blake2s(digest_size=6)
    for path in (*sources, root / "core" / "zone.py", root / "types.py"):
        total.update(path.read_bytes())
    return total.hexdigest()


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for a socket at `path`, however long that is: the kernel takes 108 bytes."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
