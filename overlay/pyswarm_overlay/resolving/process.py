"""The process that answers names: started by the daemon, told by it what there is, and alive when it is not.

    python -m pyswarm_overlay.resolving.process SOCKET LINGER_S

It listens at SOCKET for its daemon, one at a time: a new connection takes the place of the one before. Without a daemon
it goes on answering from what it was told last, for LINGER_S at most, and ends when its host is gone: when nobody else
lives in its network namespace (a host of a lab; a machine has always somebody). It decides nothing and touches nothing:
the sockets it answers on were opened, and are led to, by the daemon.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import uvloop

from pyswarm_overlay.kernel.scheduling import be_prompt

from . import frames
from .server import NameServer

_SO_RCVBUFFORCE = 33
_QUEUE_BYTES = 4 << 20
"""Of questions that wait to be read: a burst, or all that come while this process is started again."""
_RECEIVE = 1 << 18
_MAX_SOCKETS = 16
_OLD_SOCKETS_S = 10.0
_LOOK_S = 5.0


class Process:
    """One listener, at most one daemon."""

    def __init__(self, listener: socket.socket, path: Path, linger_s: float) -> None:
        self._listener = listener
        self._path = path
        self._linger_s = linger_s
        self._server = NameServer()
        self._daemon: socket.socket | None = None
        self._buffer = bytearray()
        self._sockets: list[socket.socket] = []
        self._retired = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._orphaned: asyncio.TimerHandle | None = None
        self._alone_s = 0.0
        self._is_replaced = False

    async def run(self) -> None:
        """Until it is told to stop, or has been alone for too long."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener.fileno(), self._accept)
        self._lose_daemon()
        await self._ended.wait()
        if not self._is_replaced:
            self._path.unlink(missing_ok=True)
        loop.remove_reader(self._listener.fileno())
        self._lose_daemon()
        for task in list(self._tasks):
            task.cancel()
        await self._server.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        self._lose_daemon()
        if self._orphaned is not None:
            self._orphaned.cancel()
        self._daemon = connection
        asyncio.get_running_loop().add_reader(connection.fileno(), self._read)

    def _lose_daemon(self) -> None:
        loop = asyncio.get_running_loop()
        if self._daemon is not None:
            loop.remove_reader(self._daemon.fileno())
            self._daemon.close()
            self._daemon = None
        for left in self._sockets:
            left.close()
        self._sockets.clear()
        self._buffer.clear()
        if self._orphaned is not None:
            self._orphaned.cancel()
        self._alone_s = 0.0
        self._orphaned = loop.call_later(_LOOK_S, self._look_around)

    def _look_around(self) -> None:
        """Without a daemon: is it time to go?"""
        self._alone_s += _LOOK_S
        if self._alone_s >= self._linger_s or not _has_company():
            self._ended.set()
        else:
            self._orphaned = asyncio.get_running_loop().call_later(_LOOK_S, self._look_around)

    def _read(self) -> None:
        assert self._daemon is not None, "its reader"
        try:
            data, descriptors, _, _ = socket.recv_fds(self._daemon, _RECEIVE, _MAX_SOCKETS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        self._sockets += [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if not data:
            self._lose_daemon()
            return
        self._buffer += data
        try:
            for frame in frames.decode(self._buffer):
                self._take(frame)
        except (ValueError, msgspec.MsgspecError):
            self._lose_daemon()  # it speaks something else; it will come again, and tell everything

    def _take(self, frame: frames.Frame) -> None:
        match frame:
            case frames.SetUpstreams(servers):
                self._server.set_upstreams(servers)
            case frames.PutTable(table):
                self._server.put_table(table)
            case frames.Change(delta):
                self._server.change(delta)
            case frames.Forget(network_id):
                self._server.forget(network_id)
            case frames.Serve():
                self._serve(frame)
            case frames.Leave(sandbox_id):
                self._leave(sandbox_id)
            case frames.Retain(sandboxes, networks):
                self._retain(sandboxes, networks)
            case frames.Sync(number):
                self._answer(number)
            case frames.Stop(linger_s):
                self._stop(linger_s)

    def _serve(self, frame: frames.Serve) -> None:
        """Who asked on the sandbox's old sockets shall have an answer: they are served for a little longer."""
        if len(self._sockets) < 2:
            raise ValueError("its sockets are missing")
        udp, tcp = self._sockets.pop(0), self._sockets.pop(0)
        for sock in (udp, tcp):
            sock.setblocking(False)
        with suppress(OSError):  # not privileged
            udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE_BYTES)
        if frame.sandbox_id in self._server.sandboxes:
            self._retired += 1
            old = f"@{self._retired}@{frame.sandbox_id}"
            self._server.rename(frame.sandbox_id, old)
            asyncio.get_running_loop().call_later(_OLD_SOCKETS_S, lambda: self._own(self._server.remove(old)))
        self._server.add(frame.sandbox_id, (udp, tcp), frame.networks, frame.own, frame.servers)

    def _leave(self, sandbox_id: str) -> None:
        """With its old sockets too: they would keep its namespace, and all interfaces in it."""
        for known in list(self._server.sandboxes):
            if known == sandbox_id or (known.startswith("@") and known.endswith(f"@{sandbox_id}")):
                self._own(self._server.remove(known))

    def _retain(self, sandboxes: tuple[str, ...], networks: tuple[str, ...]) -> None:
        for sandbox_id in set(self._server.sandboxes).difference(sandboxes):
            if not sandbox_id.startswith("@"):
                self._leave(sandbox_id)
        for network_id in set(self._server.networks).difference(networks):
            self._server.forget(network_id)

    def _answer(self, number: int) -> None:
        assert self._daemon is not None, "it asked"
        with suppress(OSError):  # without an answer it comes again
            self._daemon.send(number.to_bytes(8, "big"))

    def _stop(self, linger_s: float) -> None:
        self._path.unlink(missing_ok=True)
        self._is_replaced = True  # whoever listens there from now on is another
        asyncio.get_running_loop().call_later(linger_s, self._ended.set)

    def _own(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _has_company() -> bool:
    """Whether another process lives in our network namespace."""
    own = Path("/proc/self/ns/net").stat().st_ino
    others = (path for path in Path("/proc").iterdir() if path.name.isdecimal() and path.name != str(os.getpid()))
    for path in others:
        with suppress(OSError):  # it has just ended
            if (path / "ns/net").stat().st_ino == own:
                return True
    return False


def _listen(path: Path) -> socket.socket:
    """Under another name first: who finds the socket can connect to it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    fresh = path.with_suffix(f".{os.getpid()}")
    with frames.short_path(fresh) as name:
        listener.bind(name)
    fresh.chmod(0o600)
    listener.listen(4)
    fresh.rename(path)
    return listener


def main() -> None:
    path, linger_s = Path(sys.argv[1]), float(sys.argv[2])
    be_prompt()
    # What lives here lives long and holds no circles: looking for them would only make somebody wait.
    gc.set_threshold(50_000, 50, 1000)

    async def run() -> None:
        await Process(_listen(path), path, linger_s).run()

    uvloop.run(run())


if __name__ == "__main__":
    main()
