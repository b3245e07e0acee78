"""What the daemon tells the relay: the whole of what it wants, each time. Pure values, one JSON line each."""

from __future__ import annotations

import msgspec

MAX_LINE = 8 << 20
FORMAT = 1


class RelayTarget(msgspec.Struct, frozen=True, array_like=True):
    """Where connections are handed on to, and which backend that is."""

    address: str
    port: int
    owner: str


class RelayPort(msgspec.Struct, frozen=True, kw_only=True):
    """A published port. `targets` take new connections; of `lingering` ones those that run may go on."""

    host_ip: str = ""
    port: int
    targets: tuple[RelayTarget, ...] = ()
    lingering: tuple[RelayTarget, ...] = ()
    is_sticky: bool = False


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Connections to what is named nowhere in it end now."""

    format: int = FORMAT
    ports: tuple[RelayPort, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`problems`: ports that could not be listened on, one sentence each."""

    problems: tuple[str, ...] = ()
    connections: int = 0
