"""Docker's plugin protocol from the caller's side: one JSON document each way by HTTP POST over a unix socket.

Everything that a plugin answers is outside input: bounded, of the types that we asked for, within a time limit. An
error names the plugin and the call, so that its owner knows where to look. One connection per call, as plugins expect.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import Unavailable

T = TypeVar("T")

_MEDIA_TYPE = "application/vnd.docker.plugins.v1.2+json"
_MAX_ANSWER = 1 << 20
_MAX_REASON = 300
CALL_TIMEOUT_S = 10.0
ACTIVATE_TIMEOUT_S = 2.0


class Refused(Unavailable):
    """The plugin answered, and said no."""


class Refusal(msgspec.Struct):
    """What every answer may hold. Some plugins write it in lower case, or in a field of another name."""

    Err: str = ""
    Error: str = ""
    err: str = ""

    @property
    def reason(self) -> str:
        return (self.Err or self.Error or self.err)[:_MAX_REASON]


class Empty(msgspec.Struct):
    """An answer of which only success matters."""


class Plugin:
    """One plugin of this node."""

    def __init__(self, name: str, socket: Path) -> None:
        self.name = name
        self.socket = socket

    async def call(self, method: str, request: object, kind: type[T], timeout_s: float = CALL_TIMEOUT_S) -> T:
        """The answer to `method` ("NetworkDriver.Join"). Raises Unavailable, whatever went wrong."""
        try:
            status, body = await self._post(method, msgspec.json.encode(request), timeout_s)
        except TimeoutError:
            raise Unavailable(f"{self._who(method)} did not answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{self._who(method)} cannot be asked at {self.socket}: {error}") from error
        if len(body) > _MAX_ANSWER:
            raise Unavailable(f"{self._who(method)} answered with more than {_MAX_ANSWER} bytes")
        return self._answer(method, status, body, kind)

    async def _post(self, method: str, data: bytes, timeout_s: float) -> tuple[int, bytes]:
        headers = {"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE}
        connector = aiohttp.UnixConnector(path=str(self.socket), force_close=True)
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.post(f"http://plugin/{method}", data=data, headers=headers, allow_redirects=False) as response,
        ):
            return response.status, await _bounded(response)

    def _answer(self, method: str, status: int, body: bytes, kind: type[T]) -> T:
        try:
            refusal = decode_json(body or b"{}", Refusal)
            if refusal.reason or status >= 400:
                raise Refused(f"{self._who(method)}: {refusal.reason or f'HTTP status {status}'}")
            return decode_json(body or b"{}", kind)
        except Malformed as error:
            reason = f"HTTP status {status}" if status >= 400 else str(error)
            raise Unavailable(f"{self._who(method)} answered with what is no answer: {reason}") from error

    def _who(self, method: str) -> str:
        return f"network plugin {self.name}: {method}"


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(1 << 16):
        parts.append(part)
        size += len(part)
        if size > _MAX_ANSWER:
            break
    return b"".join(parts)


class Activation(msgspec.Struct):
    Implements: list[str] = []


async def activate(plugin: Plugin) -> tuple[str, ...]:
    """What it implements: "NetworkDriver", "IpamDriver"."""
    answer: Any = await plugin.call("Plugin.Activate", {}, Activation, ACTIVATE_TIMEOUT_S)
    return tuple(answer.Implements[:16])
