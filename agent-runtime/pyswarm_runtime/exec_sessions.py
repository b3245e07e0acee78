"""A command in a running container with which somebody speaks: input, output as it comes, a terminal, an exit code.

Decides how bytes get to the command and back, and that it does not outlive its session: whoever drops a session ends
the command. With a terminal, the OCI runtime makes the pseudo-terminal inside the container and hands its other end
over a socket (OCI runtime specification, `process.terminal`; the socket is crun's and runc's `--console-socket`), so
that its size can be changed while the command runs. Never keeps output: what is not read stops the command, as with
any pipe. `execution.py` is for commands whose whole output is wanted.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import signal
import socket
import struct
import termios
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from pyswarm_common.errors import FailedPrecondition
from pyswarm_runtime.execution import exec_process, read_spec
from pyswarm_runtime.ocirun import OciRuntime
from pyswarm_runtime.processes import send_signal
from pyswarm_runtime.types import ExecOptions, LogStream
from pyswarm_runtime.users import ProcessUser

CHUNK = 32 * 1024
CONSOLE_TIMEOUT_S = 10.0
DRAIN_S = 0.5  # a grandchild may hold the output open after the command's end
MAX_SIZE = 65_535
CANNOT_EXECUTE, NOT_FOUND = 126, 127
MAX_REASON = 1000
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|\d{4}-\d\d-\d\dT[\d:.]+Z: ")


def session_process(
    spec: dict[str, Any],
    argv: Sequence[str],
    options: ExecOptions,
    user: ProcessUser | None,
    every_capability: Iterable[str],
) -> dict[str, Any]:
    """The container's own process with other arguments and what the options say. Pure."""
    process = {**exec_process(spec, argv), "terminal": options.tty}
    terminal = ("TERM=xterm",) if options.tty else ()
    process["env"] = _merged((*process.get("env", ()), *terminal, *options.env))
    if options.working_dir:
        process["cwd"] = options.working_dir
    if user is not None:
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)}
    if options.privileged:
        held = sorted(every_capability)
        process["capabilities"] = {"bounding": held, "effective": held, "permitted": held}
    return process


def _merged(entries: Iterable[str]) -> list[str]:
    """Later entries win; an entry without `=` takes that variable away, as docker's do."""
    merged: dict[str, str] = {}
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())


class ExecSession:
    """One command. Use it as an asynchronous context manager: leaving it ends the command."""

    def __init__(self, process: asyncio.subprocess.Process, pid_file: Path) -> None:
        self._process = process
        self._pid_file = pid_file
        self.console: Console | None = None
        """Our end of its terminal, if it has one."""

    async def output(self) -> AsyncGenerator[tuple[LogStream, bytes], None]:
        """What the command writes, until it has ended; with a terminal all of it is standard output."""
        queue: asyncio.Queue[tuple[LogStream, bytes] | None] = asyncio.Queue(maxsize=1)
        # No task group: who closes a generator early must not see that as an error.
        readers = asyncio.get_running_loop().create_task(self._read_all(queue))
        try:
            while (item := await queue.get()) is not None:
                yield item
        finally:
            readers.cancel()
            await asyncio.wait([readers])

    async def _read_all(self, queue: asyncio.Queue[tuple[LogStream, bytes] | None]) -> None:
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(_pump(stream, read, queue)) for stream, read in self._sources()]
            await self._process.wait()
            await asyncio.wait(readers, timeout=DRAIN_S)
            for reader in readers:
                reader.cancel()
        await queue.put(None)

    def _sources(self) -> list[tuple[LogStream, Callable[[], Awaitable[bytes]]]]:
        if self.console is not None:
            return [("stdout", self.console.read), ("stderr", _reader(self._process.stderr))]
        return [("stdout", _reader(self._process.stdout)), ("stderr", _reader(self._process.stderr))]

    async def write(self, data: bytes) -> None:
        """To the command's input; what a command that has closed it does not take is dropped."""
        if self.console is not None:
            await self.console.write(data)
        elif self._process.stdin is not None:
            with suppress(ConnectionError, RuntimeError):
                self._process.stdin.write(data)
                await self._process.stdin.drain()

    async def close_input(self) -> None:
        """The end of the input. On a terminal that is a character (control-D), which only its user can mean."""
        if self.console is None and self._process.stdin is not None:
            with suppress(ConnectionError, RuntimeError):
                self._process.stdin.close()

    def resize(self, rows: int, columns: int) -> None:
        """Of the terminal, in characters; without one nothing happens."""
        if self.console is not None:
            self.console.resize(rows, columns)

    async def wait(self) -> int:
        """The command's exit code; 128 and the number for a signal."""
        code = await self._process.wait()
        return 128 - code if code < 0 else code

    async def __aenter__(self) -> ExecSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """Kills the command if it still runs, and lets go of everything."""
        if self._process.returncode is None:
            with suppress(OSError, ValueError):
                send_signal(int(self._pid_file.read_text()), None, signal.SIGKILL)
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self.console is not None:
            self.console.close()
        self._pid_file.unlink(missing_ok=True)


async def open_session(
    oci: OciRuntime,
    container_id: str,
    bundle: Path,
    argv: Sequence[str],
    options: ExecOptions,
    user: ProcessUser | None,
    every_capability: Iterable[str],
) -> ExecSession:
    """Starts the command. Raises FailedPrecondition where the container does not run."""
    spec = read_spec(bundle / "config.json")
    name = f"exec-{secrets.token_hex(8)}"
    process_file, pid_file, console_path = (bundle / f"{name}.{kind}" for kind in ("json", "pid", "tty"))
    process_file.write_bytes(msgspec.json.encode(session_process(spec, argv, options, user, every_capability)))
    listener = _listen(console_path) if options.tty else None
    try:
        process = await oci.exec_session(
            container_id, process_file, pid_file, console_path if options.tty else None, with_input=options.stdin
        )
        session = ExecSession(process, pid_file)
        try:
            if listener is not None:
                session.console = await _receive(listener, process)
            if not await _begun(process, pid_file):
                raise await _not_started(session)
        except BaseException:
            await session.end()
            raise
        return session
    finally:
        if listener is not None:
            listener.close()
        process_file.unlink(missing_ok=True)
        console_path.unlink(missing_ok=True)


async def start_detached(
    oci: OciRuntime,
    container_id: str,
    bundle: Path,
    process: dict[str, Any],
) -> None:
    """Starts the command and leaves it; what it writes goes nowhere. Raises NotStarted."""
    name = f"exec-{secrets.token_hex(8)}"
    process_file, log = bundle / f"{name}.json", bundle / f"{name}.log"
    process_file.write_bytes(msgspec.json.encode({**process, "terminal": False}))
    try:
        reason = await oci.exec_detached(container_id, process_file, log)
        if reason:
            raise NotStarted(reason)
    finally:
        process_file.unlink(missing_ok=True)
        log.unlink(missing_ok=True)


class NotStarted(FailedPrecondition):
    """The command could not be run at all; `exit_code` is what docker's CLI makes of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"OCI runtime exec failed: exec failed: unable to start container process: {reason}")
        is_missing = "no such file" in reason.lower() or "not found" in reason.lower()
        self.exit_code = NOT_FOUND if is_missing else CANNOT_EXECUTE


async def _not_started(session: ExecSession) -> NotStarted:
    text = b""
    async for _, data in session.output():
        text = (text + data)[-MAX_REASON:]
    lines = _DECORATION.sub("", text.decode("utf-8", "replace")).strip().splitlines()
    return NotStarted(lines[-1] if lines else "the container has ended")


async def _begun(process: asyncio.subprocess.Process, pid_file: Path) -> bool:
    """Whether the command runs, once it does or the OCI runtime has given up: it makes the pid file in between. There
    is nothing to wait on for that but the directory, so we look."""
    ended = asyncio.ensure_future(process.wait())
    try:
        while not ended.done() and not pid_file.exists():
            await asyncio.wait([ended], timeout=0.005)
    finally:
        ended.cancel()
    return pid_file.exists()


async def _pump(
    stream: LogStream,
    read: Callable[[], Awaitable[bytes]],
    queue: asyncio.Queue[tuple[LogStream, bytes] | None],
) -> None:
    while data := await read():
        await queue.put((stream, data))


def _reader(stream: asyncio.StreamReader | None) -> Callable[[], Awaitable[bytes]]:
    assert stream is not None
    return lambda: stream.read(CHUNK)


# ---- terminals


class Console:
    """Our end of the command's terminal."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()

    async def read(self) -> bytes:
        """Empty once no process holds the other end."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, CHUNK)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError:  # EIO: nobody is left at the other end
                return b""
        return b""

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._fd >= 0:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except OSError:
                return

    async def _ready(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        fd = self._fd
        add(fd, _set, ready)
        try:
            await ready
        finally:
            if self._fd == fd:  # once it is closed, its number may be somebody else's
                remove(fd)

    def resize(self, rows: int, columns: int) -> None:
        size = [min(max(number, 0), MAX_SIZE) for number in (rows, columns)]
        if self._fd >= 0 and all(size):
            with suppress(OSError):
                fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _listen(path: Path) -> socket.socket:
    """By a short name through /proc: a socket's path may have 107 bytes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


async def _receive(listener: socket.socket, process: asyncio.subprocess.Process) -> Console | None:
    """The terminal, from the OCI runtime; None where it ended without making one, and says why on its error output."""
    loop = asyncio.get_running_loop()
    accepting = asyncio.ensure_future(loop.sock_accept(listener))
    ended = asyncio.ensure_future(process.wait())
    try:
        async with asyncio.timeout(CONSOLE_TIMEOUT_S):
            await asyncio.wait([accepting, ended], return_when=asyncio.FIRST_COMPLETED)
        if not accepting.done():
            return None
        connection, _ = accepting.result()
        with connection:
            return await _receive_descriptor(connection)
    except TimeoutError as error:
        raise FailedPrecondition("the OCI runtime made no terminal: is the host overloaded?") from error
    finally:
        accepting.cancel()
        ended.cancel()


async def _receive_descriptor(connection: socket.socket) -> Console | None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection.fileno(), _set, ready)
    try:
        async with asyncio.timeout(CONSOLE_TIMEOUT_S):
            await ready
    finally:
        loop.remove_reader(connection.fileno())
    _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
    return Console(descriptors[0]) if descriptors else None
