"""Starts overlay daemons by fork, since a hundred starts of Python would take longer than all that they are to do.

This process imports everything, has no threads and opens nothing. Each connection to its socket becomes a daemon that
speaks on it as `overlay_daemon` does on its standard streams. A daemon that is told `arm N` kills itself at the Nth
step from there on, a step being the beginning or the end of anything that changes the kernel or the disk.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import overlay_daemon
import uvloop

from pyswarm_common.errors import PyswarmError
from pyswarm_overlay import OverlayConfig, OverlayHost, records
from pyswarm_overlay.kernel import libc, netlink, nft

STEPS: tuple[tuple[Any, str], ...] = (
    (netlink.Netlink, "transact"),
    (netlink.Netlink, "run_batch"),
    (nft.Context, "run"),
    (libc, "bind_mount"),
    (libc, "unmount"),
    (records, "_write"),
)


class Fuse:
    """Counts steps; `left` is how many there are until the end, None for no end."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.steps = 0
        for owner, name in STEPS:
            setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **keywords: Any) -> Any:
            self._step()
            result = function(*arguments, **keywords)
            self._step()
            return result

        return counted

    def _step(self) -> None:
        self.steps += 1
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


async def serve(connection: socket.socket) -> None:
    fuse = Fuse()
    reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 24)
    host: OverlayHost | None = None
    while line := await reader.readline():
        method, arguments = msgspec.json.decode(line)
        answer: dict[str, Any]
        try:
            if method == "open":
                config = msgspec.convert(arguments[0], OverlayConfig, dec_hook=lambda kind, value: kind(value))
                host, answer = await OverlayHost.open(config), {"ok": None}
            elif method == "arm":
                fuse.left, answer = arguments[0], {"ok": None}
            elif method == "steps":
                answer = {"ok": fuse.steps}
            else:
                assert host is not None
                answer = {"ok": await overlay_daemon.call(host, method, arguments)}
        except PyswarmError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        writer.write(msgspec.json.encode(answer) + b"\n")
        await writer.drain()
    os.kill(os.getpid(), signal.SIGKILL)  # whoever drives it has gone, or wants it gone without a farewell


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(sys.argv[1])
    listening.listen(8)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            uvloop.run(serve(connection))
        connection.close()


if __name__ == "__main__":
    main()
