"""Into the containers of this node's tasks, for managers: commands to speak with, and files in and out.

Decides nothing about who may (the table in `server.py` does: managers only): it turns messages into steps of the
runtime and back. Input is taken only as fast as the command takes it, and output sent only as fast as it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress

from pyswarm.v1 import exec_pb2 as pb
from pyswarm_common.errors import InvalidArgument, NotFound, PyswarmError, Unsupported
from pyswarm_common.model import Task
from pyswarm_runtime.exec_sessions import NotStarted
from pyswarm_runtime.types import ExecOptions

from .ports import CommandSession, ContainerAccess

Inputs = AsyncIterator[pb.ExecInput]
HEAR_OUT_S = 30.0


class Entering:
    """One per agent. `container_of` gives a task and its container here, or raises NotFound."""

    def __init__(self, access: ContainerAccess | None, container_of: Callable[[str], tuple[Task, str]]) -> None:
        self._access = access
        self._container_of = container_of

    async def run(self, inputs: Inputs) -> AsyncIterator[pb.ExecOutput]:
        """What `Agent.RunInTask` answers."""
        start = await _first(inputs)
        task, container_id = self._container_of(start.target)
        access = self._require_access()
        started = pb.ExecOutput(started=pb.ExecStarted(task_id=task.id, task_name=task.name))
        try:
            if start.detach:
                await access.exec_detached(container_id, tuple(start.argv), options_of(start))
                yield started
                yield pb.ExecOutput(exit_code=0)
                return
            async with access.exec(container_id, tuple(start.argv), options_of(start)) as session:
                session.resize(start.size.rows, start.size.columns)
                yield started
                async for answer in _converse(session, inputs):
                    yield answer
        except NotStarted as refusal:
            yield pb.ExecOutput(stderr=f"{refusal}\n".encode())
            yield pb.ExecOutput(exit_code=refusal.exit_code)

    async def copy_from(self, request: pb.CopyFromRequest) -> AsyncIterator[pb.ArchiveChunk]:
        """What `Agent.CopyFromTask` answers."""
        _, container_id = self._container_of(request.target)
        async with aclosing(self._require_access().read_archive(container_id, request.path)) as chunks:
            async for chunk in chunks:
                yield pb.ArchiveChunk(data=chunk)

    async def copy_to(self, requests: AsyncIterator[pb.CopyToRequest]) -> None:
        """What `Agent.CopyToTask` does."""
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("start"):
            raise InvalidArgument("the first message must say where the files go")
        async with _heard_out(requests):
            _, container_id = self._container_of(first.start.target)
            await self._require_access().write_archive(container_id, first.start.path, _data(requests))

    def _require_access(self) -> ContainerAccess:
        if self._access is None:
            raise Unsupported("this node's containers cannot be entered")
        return self._access


def options_of(start: pb.ExecStart) -> ExecOptions:
    """How the command is to be run."""
    return ExecOptions(
        tty=start.tty,
        stdin=start.stdin,
        env=tuple(start.env),
        user=start.user,
        working_dir=start.working_dir,
        privileged=start.privileged,
    )


async def _first(inputs: Inputs) -> pb.ExecStart:
    first = await anext(aiter(inputs), None)
    if first is None or not first.HasField("start"):
        raise InvalidArgument("the first message must say what to run")
    if not first.start.argv:
        raise InvalidArgument("No exec command specified: give at least the program's name")
    return first.start


async def _converse(session: CommandSession, inputs: Inputs) -> AsyncIterator[pb.ExecOutput]:
    feeding = asyncio.get_running_loop().create_task(_feed(session, inputs))
    try:
        async with aclosing(session.output()) as output:
            async for stream, data in output:
                yield pb.ExecOutput(stderr=data) if stream == "stderr" else pb.ExecOutput(stdout=data)
        yield pb.ExecOutput(exit_code=await session.wait())
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])


async def _feed(session: CommandSession, inputs: Inputs) -> None:
    async for message in inputs:
        match message.WhichOneof("message"):
            case "stdin":
                await session.write(message.stdin)
            case "resize":
                session.resize(message.resize.rows, message.resize.columns)
            case "end_of_input":
                await session.close_input()


async def _data(requests: AsyncIterator[pb.CopyToRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.data


@asynccontextmanager
async def _heard_out(requests: AsyncIterator[pb.CopyToRequest]) -> AsyncIterator[None]:
    """A refusal is told once the sender has sent what it has. To one that is still sending gRPC may tell that its
    sending failed, and not why."""
    try:
        yield
    except PyswarmError:
        with suppress(TimeoutError):
            async with asyncio.timeout(HEAR_OUT_S):
                async for _ in requests:
                    pass
        raise


def container_of_task(
    get: Callable[[str], Task | None], container_of: Callable[[str], str | None]
) -> Callable[[str], tuple[Task, str]]:
    """Finds a task of this node and its container. Raises NotFound."""

    def find(task_id: str) -> tuple[Task, str]:
        task, container_id = get(task_id), container_of(task_id)
        if task is None or container_id is None:
            raise NotFound(f"task {task_id} has no container on this node")
        return task, container_id

    return find
