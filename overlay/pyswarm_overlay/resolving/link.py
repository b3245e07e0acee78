"""The daemon's side of the process that answers names: finds it or starts it, and keeps it told.

Level-triggered: what is wanted is held here, and told again whenever the process is another one. It outlives the
daemon, so a restarted daemon finds it answering and takes it over; one that runs other code is replaced, and ends once
the new one has been told everything. `sync` returns when the process answers from that state of a network, so a table
counts as programmed only then. Bounded: without a process that answers, `sync` fails after a while, and is tried again
by whoever programs tables.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyswarm_common.errors import Unavailable
from pyswarm_overlay.core.tables import TableState
from pyswarm_overlay.types import OverlayConfig, TableDelta

from . import frames

log = logging.getLogger(__name__)

_SYNC_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 20.0
_POLL_S = 0.02
_AGAIN_S, _SETTLED_S = 1.0, 5.0
_OLD_LINGER_S = 10.0
_NUMBER_BYTES = 8
_LOG = "resolver.log"


@dataclass(frozen=True, slots=True)
class Served:
    """One sandbox: its sockets stay ours, the process gets copies."""

    sockets: tuple[socket.socket, socket.socket]
    networks: tuple[str, ...]
    own: Mapping[str, tuple[str, ...]]
    servers: tuple[str, ...]

    def frame(self, sandbox_id: str) -> frames.Serve:
        return frames.Serve(sandbox_id, self.networks, dict(self.own), self.servers)


class ResolverLink:
    """Owned by `OverlayHost`: `start` first, `close` at the end (the process goes on), or `stop` (it ends)."""

    def __init__(self, directory: Path, upstreams: tuple[str, ...] | None, linger_s: float) -> None:
        self._directory = directory
        self._upstreams = upstreams
        self._linger_s = linger_s
        self._states: dict[str, TableState] = {}
        self._told: dict[str, TableState] = {}
        self._sandboxes: dict[str, Served] = {}
        self._socket: socket.socket | None = None
        self._outgoing: list[tuple[frames.Frame, tuple[socket.socket, ...]]] = []
        self._has_outgoing = asyncio.Event()
        self._is_connected = asyncio.Event()
        self._is_complete = False
        """Whether all that an earlier daemon had has been told again, so that what was not may go."""
        self._number = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None

    @staticmethod
    def of(config: OverlayConfig) -> ResolverLink:
        return ResolverLink(config.run_dir, config.upstream_dns, config.names_linger_s)

    @property
    def _path(self) -> Path:
        return self._directory / f"resolver-{frames.digest()}.sock"

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The process is found or started meanwhile; nobody waits for it but `sync`."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="resolver link")

    async def close(self) -> None:
        """Let go of it: it goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def stop(self) -> None:
        """End the process, also one of an earlier daemon."""
        await self.close()
        for path in self._directory.glob("resolver-*.sock"):
            await _stop(path, 0.0)
        if self._process is not None:
            self._process.kill()  # it may not have come as far as to listen
            await asyncio.to_thread(self._process.wait)
            self._path.unlink(missing_ok=True)
        (self._directory / _LOG).unlink(missing_ok=True)

    async def _run(self) -> None:
        """For ever: connect, tell, and again when the process is gone: at once, unless it goes again and again."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                self._socket = await self._connect()
                self._tell_everything()
                self._is_connected.set()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._write(self._socket))
                    group.create_task(self._read(self._socket))
            except* OSError as errors:
                log.warning("the process that answers names is gone: %s", errors.exceptions[0])
            finally:
                self._hang_up()
            if loop.time() - began < _SETTLED_S:
                await asyncio.sleep(_AGAIN_S)

    def _hang_up(self) -> None:
        self._is_connected.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._told.clear()
        self._outgoing.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the process that answers names is gone: it is started again"))
        self._waiting.clear()
        if self._process is not None and self._process.poll() is not None:
            self._process = None

    async def _connect(self) -> socket.socket:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while True:
                with suppress(FileNotFoundError, ConnectionRefusedError):
                    return await _connected(self._path)
                if self._process is None or self._process.poll() is not None:
                    self._process = self._spawn()
                await asyncio.sleep(_POLL_S)

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Its own session, and no descriptor of ours: it is to outlive us."""
        command = [sys.executable, "-m", __package__ + ".process", str(self._path), str(self._linger_s)]
        with (self._directory / _LOG).open("wb") as output:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
            )

    # -- telling -------------------------------------------------------------------------------------------------------

    def _tell_everything(self) -> None:
        self._tell(frames.SetUpstreams(self._upstreams))
        for network_id in self._states:
            self._tell_network(network_id)
        for sandbox_id, served in self._sandboxes.items():
            self._tell(served.frame(sandbox_id), served.sockets)
        if self._is_complete:
            self._tell(frames.Retain(tuple(self._sandboxes), tuple(self._states)))

    def _tell(self, frame: frames.Frame, sockets: tuple[socket.socket, ...] = ()) -> None:
        if self._socket is not None:
            self._outgoing.append((frame, sockets))
            self._has_outgoing.set()

    def _tell_network(self, network_id: str) -> None:
        """The difference to what it was told last."""
        state, told = self._states[network_id], self._told.get(network_id)
        if self._socket is None or state is told:
            return
        self._told[network_id] = state
        if told is None:
            self._tell(frames.PutTable(state.to_table()))
        else:
            self._tell(frames.Change(difference(told, state)))

    async def _write(self, connection: socket.socket) -> None:
        while True:
            await self._has_outgoing.wait()
            self._has_outgoing.clear()
            waiting, self._outgoing = self._outgoing, []
            plain = bytearray()
            for frame, sockets in waiting:
                if sockets:
                    await _send(connection, bytes(plain), ())
                    plain.clear()
                    await _send(connection, frames.encode(frame), sockets)
                else:
                    plain += frames.encode(frame)
            await _send(connection, bytes(plain), ())

    async def _read(self, connection: socket.socket) -> None:
        """Answers to `Sync`, until it hangs up."""
        loop, buffer = asyncio.get_running_loop(), b""
        while data := await loop.sock_recv(connection, 4096):
            buffer += data
            while len(buffer) >= _NUMBER_BYTES:
                number, buffer = int.from_bytes(buffer[:_NUMBER_BYTES], "big"), buffer[_NUMBER_BYTES:]
                future = self._waiting.pop(number, None)
                if future is not None and not future.done():
                    future.set_result(None)
        raise ConnectionResetError("it hung up")

    # -- what is wanted ------------------------------------------------------------------------------------------------

    def put(self, state: TableState) -> None:
        """A network's state, to be answered from as soon as may be."""
        self._states[state.table.network_id] = state
        self._tell_network(state.table.network_id)

    def ask(self) -> asyncio.Future[None] | None:
        """Done once the process answers from all that was put: `sync` waits for it. None while there is no process."""
        if not self._is_connected.is_set():
            return None
        self._number += 1
        future = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieve)
        self._tell(frames.Sync(self._number))
        return future

    async def sync(self, asked: asyncio.Future[None] | None = None) -> None:
        """Wait until the process answers from all that was put, or was when it was asked."""
        try:
            async with asyncio.timeout(_SYNC_TIMEOUT_S):
                while asked is None:
                    await self._is_connected.wait()
                    asked = self.ask()
                await asked
        except TimeoutError:
            raise Unavailable("the process that answers names does not answer: see resolver.log") from None

    def forget(self, network_id: str) -> None:
        self._told.pop(network_id, None)
        if self._states.pop(network_id, None) is not None:
            self._tell(frames.Forget(network_id))

    def serve(
        self,
        sandbox_id: str,
        sockets: tuple[socket.socket, socket.socket],
        networks: tuple[str, ...],
        own: Mapping[str, tuple[str, ...]],
        servers: tuple[str, ...] = (),
    ) -> bool:
        """Answer on these sockets; questions that come before it does wait in them. True if they were served before and
        otherwise: until the next `sync`, answers may be the old ones."""
        served, before = Served(sockets, networks, own, servers), self._sandboxes.get(sandbox_id)
        if before == served:
            return False
        self._sandboxes[sandbox_id] = served
        self._tell(served.frame(sandbox_id), sockets)
        return before is not None

    def leave(self, sandbox_id: str) -> None:
        """No-op if unknown. Its sockets may be closed now."""
        if self._sandboxes.pop(sandbox_id, None) is not None:
            self._outgoing = [item for item in self._outgoing if not _is_of(item[0], sandbox_id)]
            self._tell(frames.Leave(sandbox_id))

    async def take_over(self, kept: Collection[str]) -> None:
        """Everything of an earlier daemon has been told again, but for the sandboxes `kept` that could not be: what
        else is known may go, and so may processes of other code. Waits a moment for the process, so that what is told
        from now on is told at once, and a daemon that is killed right then leaves no sandbox without names."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLED_S):
                await self._is_connected.wait()
        self._is_complete = True
        self._tell(frames.Retain((*self._sandboxes, *kept), tuple(self._states)))
        for path in self._directory.glob("resolver-*.sock"):
            if path != self._path:
                await self.sync()
                await _stop(path, _OLD_LINGER_S)


def _retrieve(future: asyncio.Future[None]) -> None:
    """Whoever asked may have given up meanwhile."""
    if not future.cancelled():
        future.exception()


def difference(before: TableState, after: TableState) -> TableDelta:
    """Records that stayed are the same objects, mostly, so this is quick."""
    old_endpoints, old_services = before.endpoints, before.services
    return TableDelta(
        network_id=after.table.network_id,
        from_version=before.version,
        version=after.version,
        upsert_endpoints=tuple(e for key, e in after.endpoints.items() if _differs(old_endpoints.get(key), e)),
        remove_endpoints=tuple(key for key in old_endpoints if key not in after.endpoints),
        upsert_services=tuple(s for key, s in after.services.items() if _differs(old_services.get(key), s)),
        remove_services=tuple(key for key in old_services if key not in after.services),
    )


def _differs(old: object, new: object) -> bool:
    return old is not new and old != new


def _is_of(frame: frames.Frame, sandbox_id: str) -> bool:
    return isinstance(frame, frames.Serve) and frame.sandbox_id == sandbox_id


async def _connected(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        with frames.short_path(path) as name:
            await asyncio.get_running_loop().sock_connect(made, name)
    except BaseException:
        made.close()
        raise
    return made


async def _stop(path: Path, linger_s: float) -> None:
    """One that does not listen any more has left its socket behind."""
    try:
        connection = await _connected(path)
    except OSError:
        path.unlink(missing_ok=True)
        return
    with connection, suppress(OSError):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, frames.encode(frames.Stop(linger_s)))
        if linger_s == 0:
            async with asyncio.timeout(_SYNC_TIMEOUT_S):
                await loop.sock_recv(connection, 1)


async def _send(connection: socket.socket, data: bytes, sockets: tuple[socket.socket, ...]) -> None:
    loop = asyncio.get_running_loop()
    if sockets:
        descriptors = [sock.fileno() for sock in sockets]
        if -1 in descriptors:
            return  # closed meanwhile: its sandbox is going
        while True:
            try:
                data = data[socket.send_fds(connection, [data], descriptors) :]
                break
            except BlockingIOError:
                await _writable(loop, connection)
    await loop.sock_sendall(connection, data)


async def _writable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    event = asyncio.Event()
    loop.add_writer(connection.fileno(), event.set)
    try:
        await event.wait()
    finally:
        loop.remove_writer(connection.fileno())
