"""How people get at what is in a container: commands to speak with, and files in and out of it.

Decides whether a container can be entered and how many may be at once; never changes what a container is. Files go
through a process of their own whose root is the container's (`container_files.py`), so that nothing in a hostile
container, be it a link or a directory swapped while we walk, leads it to a file of the host.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import Exhausted, FailedPrecondition, InvalidArgument, NotFound
from pyswarm_runtime.container_files import Outcome
from pyswarm_runtime.container_store import ContainerRecord, ContainerStore
from pyswarm_runtime.exec_sessions import ExecSession, open_session, session_process, start_detached
from pyswarm_runtime.execution import read_spec
from pyswarm_runtime.launcher import Launcher
from pyswarm_runtime.layers import layer_name
from pyswarm_runtime.ocirun import OciRuntime
from pyswarm_runtime.preflight import own_capabilities
from pyswarm_runtime.registry import Container, ContainerRegistry
from pyswarm_runtime.types import ExecOptions
from pyswarm_runtime.users import ProcessUser

MAX_SESSIONS = 256
MAX_TRANSFERS = 8
CHUNK = 256 * 1024
MAX_ANSWER = 64 * 1024


class ContainerAccess:
    """One per runtime."""

    def __init__(
        self, containers: ContainerRegistry, store: ContainerStore, oci: OciRuntime, launcher: Launcher
    ) -> None:
        self._containers, self._store, self._oci, self._launcher = containers, store, oci, launcher
        self._capabilities = own_capabilities()
        self._sessions = 0
        self._transfers = asyncio.Semaphore(MAX_TRANSFERS)

    @asynccontextmanager
    async def exec(self, container_id: str, argv: Sequence[str], options: ExecOptions) -> AsyncIterator[ExecSession]:
        """A command's session; leaving the block ends the command.

        Raises FailedPrecondition where the container does not run, and Exhausted beyond `MAX_SESSIONS`.
        """
        container = self._running(container_id)
        if self._sessions >= MAX_SESSIONS:
            raise Exhausted(f"{MAX_SESSIONS} commands are open in this node's containers: end some of them first")
        self._sessions += 1
        try:
            user = await asyncio.to_thread(self._user, container.record, options.user) if options.user else None
            bundle = self._store.paths(container.id).bundle
            try:
                session = await open_session(self._oci, container.id, bundle, argv, options, user, self._capabilities)
            except FileNotFoundError as error:  # the bundle goes as the container ends
                raise FailedPrecondition(f"Container {container_id} is not running") from error
            async with session:
                yield session
        finally:
            self._sessions -= 1

    async def exec_detached(self, container_id: str, argv: Sequence[str], options: ExecOptions) -> None:
        """Starts a command and leaves it running; it ends with its container at the latest."""
        container = self._running(container_id)
        user = await asyncio.to_thread(self._user, container.record, options.user) if options.user else None
        bundle = self._store.paths(container.id).bundle
        try:
            process = session_process(read_spec(bundle / "config.json"), argv, options, user, self._capabilities)
            await start_detached(self._oci, container.id, bundle, process)
        except FileNotFoundError as error:
            raise FailedPrecondition(f"Container {container_id} is not running") from error

    def _running(self, container_id: str) -> Container:
        container = self._containers.find(container_id)
        if not container.is_running:
            raise FailedPrecondition(f"Container {container_id} is not running")
        return container

    def _user(self, record: ContainerRecord, wanted: str) -> ProcessUser:
        return self._launcher.user_of(record, self._launcher.snapshot(record.id).rootfs, wanted)

    async def read_archive(self, container_id: str, path: str) -> AsyncGenerator[bytes, None]:
        """The file or directory as a tar stream whose entries begin with its base name (docker's `GET /archive`).

        Raises NotFound where there is none. Bounded by what the reader takes.
        """
        async with self._transfers:
            process = await self._start(container_id, "read", path)
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.close()
                while chunk := await process.stdout.read(CHUNK):
                    yield chunk
                _check(await _outcome(process), path)
            finally:
                await _end(process)

    async def write_archive(self, container_id: str, path: str, chunks: AsyncIterator[bytes]) -> None:
        """Unpacks a tar stream of one file or directory to that path: into it where it is a directory, else under its
        name (docker's rules for `cp`). What was written before a failure stays."""
        async with self._transfers:
            process = await self._start(container_id, "write", path)
            try:
                assert process.stdin is not None
                with suppress(ConnectionError):
                    async for chunk in chunks:
                        if process.stdin.is_closing():
                            break  # it has said why: uvloop has no ConnectionError for that
                        process.stdin.write(chunk)
                        await process.stdin.drain()
                    process.stdin.close()
                _check(await _outcome(process), path)
            finally:
                await _end(process)

    async def _start(self, container_id: str, action: str, path: str) -> asyncio.subprocess.Process:
        if not path or "\0" in path:
            raise InvalidArgument("the path in the container is missing: write TASK:/path")
        container = self._containers.find(container_id)
        root = await asyncio.to_thread(self._root_of, container)
        paths = os.pathsep.join(item for item in sys.path if item)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "pyswarm_runtime.container_files", action, str(root), path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.defpath, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def _root_of(self, container: Container) -> Path:
        """With its volumes while it runs; of one that has ended the files that are its own."""
        if container.is_running:
            return Path(f"/proc/{container.state.pid}/root")
        snapshot = self._launcher.snapshot(container.id)
        if not snapshot.rootfs.exists():
            raise FailedPrecondition(f"Container {container.id} was never started: it has no files yet")
        snapshot.mount([layer_name(diff_id) for diff_id in container.record.diff_ids])
        return snapshot.rootfs


async def _outcome(process: asyncio.subprocess.Process) -> Outcome:
    assert process.stderr is not None
    text = await process.stderr.read(MAX_ANSWER)
    await process.wait()
    try:
        return decode_json(text, Outcome)
    except Malformed:
        reason = text.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
        return Outcome(error=f"the copy ended early (status {process.returncode}): {reason}")


def _check(outcome: Outcome, path: str) -> None:
    if outcome.is_missing:
        raise NotFound(f"Could not find the file {path} in the container: {outcome.error}")
    if outcome.error:
        raise InvalidArgument(outcome.error)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
