"""Asks a container how it is, from outside: a connection or an HTTP request, made in its network namespace.

A short-lived thread enters the namespace and opens the socket there; the event loop does the rest. Nothing is run in
the container, so images without a shell or a client can be probed too. What comes back is read as far as its first
line, and no further. The runner says when, and what the answer means.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl

from pyswarm_common.probe_targets import HttpTarget, TcpTarget
from pyswarm_overlay.kernel import libc
from pyswarm_overlay.kernel.threads import Threads

MAX_PARALLEL = 16
MAX_STATUS_LINE = 4096
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: ([ -~]*))?")
_LOOPBACK = "127.0.0.1"


class Prober:
    """One per node."""

    def __init__(self) -> None:
        self._threads = Threads(MAX_PARALLEL)

    async def ask(
        self, target: HttpTarget | TcpTarget, pid: int, own_address: str, timeout_s: float
    ) -> tuple[bool, str]:
        """Whether it is healthy, and why not. `own_address`: of the container, where the target names none."""
        address = target.address or own_address or _LOOPBACK
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(target, pid, address)
        except TimeoutError:
            return False, f"health check exceeded timeout ({timeout_s:g}s)"
        except (OSError, ValueError) as error:  # ValueError: a line without an end
            return False, f"{_shown(address, target.port)}: {error}"

    async def _ask(self, target: HttpTarget | TcpTarget, pid: int, address: str) -> tuple[bool, str]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = await self._threads.run(lambda: _socket_in(pid, family))
        try:
            await asyncio.get_running_loop().sock_connect(connection, (address, target.port))
            if isinstance(target, TcpTarget):
                return True, ""
            reader, writer = await asyncio.open_connection(
                sock=connection,
                ssl=_unverified() if target.is_tls else None,
                server_hostname="" if target.is_tls else None,
                limit=MAX_STATUS_LINE,
            )
        except BaseException:
            connection.close()
            raise
        finally:
            if isinstance(target, TcpTarget):
                connection.close()
        try:
            writer.write(_request(target, address))
            return _verdict(await reader.readline())
        finally:
            writer.close()


def _socket_in(pid: int, family: int) -> socket.socket:
    """Runs in a thread that ends with it."""
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.setns(namespace)
        made = socket.socket(family, socket.SOCK_STREAM)
    finally:
        os.close(namespace)
    made.setblocking(False)
    return made


def _unverified() -> ssl.SSLContext:
    """It asks whether somebody answers, and tells nothing; the container's certificate is for other names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _request(target: HttpTarget, address: str) -> bytes:
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {_shown(address, target.port)}",
        "User-Agent: pyswarm-health",
        "Accept: */*",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


def _verdict(line: bytes) -> tuple[bool, str]:
    match = _STATUS.fullmatch(line.rstrip(b"\r\n"))
    if match is None:
        return False, "the answer is not HTTP"
    code = int(match.group(1))
    return 200 <= code < 400, f"HTTP {code} {(match.group(2) or b'').decode('ascii')}".strip()


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
