"""Where a health probe by the agent goes: `http://:8080/path`, `https://…`, and `:8080` for a connection alone.

Pure; parsed by whoever takes the text in (command, managers) and by the agent that probes. A probe is made from within
the container's network namespace, so it reaches what the container reaches: a host is left out (the container's own
address), `localhost`, or an address. Names are not looked up.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from pyswarm_common.errors import InvalidArgument

MAX_LENGTH = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443}
_VISIBLE = re.compile(r"[!-~]+")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class TcpTarget:
    """`address` is empty for the container's own."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class HttpTarget:
    address: str
    port: int
    path: str  # with its query
    is_tls: bool = False


def http_target(url: str) -> HttpTarget:
    """Refuses whatever is no URL that can be probed."""
    if len(url) > MAX_LENGTH or not _VISIBLE.fullmatch(url):
        raise _refusal(url, f"it has at most {MAX_LENGTH} characters, without spaces")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refusal(url, str(error)) from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise _refusal(url, "it begins with http:// or https://")
    if parts.username is not None or parts.fragment:
        raise _refusal(url, "it has no user and no fragment")
    if port == 0:
        raise _refusal(url, "a port is from 1 to 65535")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    address = _address(host, url)
    return HttpTarget(address, port or _DEFAULT_PORTS[parts.scheme], path, is_tls=parts.scheme == "https")


def tcp_target(text: str) -> TcpTarget:
    """`:8080`, `8080`, `127.0.0.1:8080`, `[::1]:8080`."""
    host, _, number = text.rpartition(":")
    if len(text) > MAX_LENGTH or not _PORT.fullmatch(number) or not 1 <= int(number) <= 65535:
        raise InvalidArgument(f'invalid TCP health probe "{text[:64]}": write :PORT, from 1 to 65535')
    return TcpTarget(_address(host.removeprefix("[").removesuffix("]"), text), int(number))


def _address(host: str, whole: str) -> str:
    if not host:
        return ""
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise _refusal(whole, "its host is an address, localhost, or left out for the container's own") from None


def _refusal(text: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f'invalid health probe "{text[:64]}": {reason}')
