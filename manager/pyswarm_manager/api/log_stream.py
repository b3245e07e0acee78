"""One task's log, read from the agent on its node.

Decides how to reach the agent and what to say when it cannot be reached; every message leaves here with the names of
its task and node. Who acts next: `api.logs` merges the streams of many tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from pyswarm.v1 import agent_pb2, agent_pb2_grpc, logs_pb2
from pyswarm_common.codec import timestamp
from pyswarm_common.identity import NODE_SERVER_NAME, NodeIdentity
from pyswarm_common.model import Node, NodeState, Task
from pyswarm_common.rpc import open_channel
from pyswarm_manager.ports import IdentityProvider

CONNECT_TIMEOUT_S = 3.0
OpenChannel = Callable[[str, NodeIdentity, str], grpc.aio.Channel]


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What is wanted of each task."""

    follow: bool = False
    tail: int | None = None
    since: float = 0.0


class Agents:
    """Channels to the agents that one request needs, one per address; closed with it."""

    def __init__(self, identity: IdentityProvider, open_channel: OpenChannel = open_channel) -> None:
        self._identity, self._open = identity, open_channel
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def connected(self, address: str) -> grpc.aio.Channel:
        """Raises TimeoutError when nobody answers there."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._open(address, self._identity(), NODE_SERVER_NAME)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await channel.channel_ready()
        return channel

    async def close(self) -> None:
        await asyncio.gather(*(channel.close(None) for channel in self._channels.values()), return_exceptions=True)
        self._channels.clear()


@dataclass(frozen=True, slots=True)
class LogSource:
    """One task, and the node it is or was on (None: the node was removed)."""

    task: Task
    node: Node | None

    def labelled(self, message: logs_pb2.LogMessage) -> logs_pb2.LogMessage:
        message.task_id, message.task_name, message.node_id = self.task.id, self.task.name, self.task.node_id
        message.service_id = self.task.service_id
        message.node_hostname = self.node.description.hostname if self.node is not None else ""
        return message

    def warning(self, reason: str) -> logs_pb2.LogMessage:
        return self.note(f"the log of {self.task.name} ({self.task.id}) is missing: {reason}\n")

    def note(self, text: str) -> logs_pb2.LogMessage:
        return self.labelled(logs_pb2.LogMessage(stream=logs_pb2.LogMessage.STREAM_WARNING, data=text.encode()))

    def unreachable(self) -> str:
        """Why there is no use in asking; empty if there is."""
        if self.node is None:
            return f"node {self.task.node_id} was removed"
        name = self.node.description.hostname or self.node.id
        if self.node.status.state is NodeState.DOWN:
            return f"node {name} is down"
        if not self.node.description.agent_address:
            return f"node {name} has not said yet where its agent is"
        return ""


async def read_log(source: LogSource, agents: Agents, options: LogOptions) -> AsyncIterator[logs_pb2.LogMessage]:
    """The task's log as its agent gives it; ends with a warning where it cannot be had."""
    reason = source.unreachable()
    if reason:
        yield source.warning(reason)
        return
    assert source.node is not None
    try:
        channel = await agents.connected(source.node.description.agent_address)
        async for message in _stub(channel).ReadTaskLogs(_request(source.task, options)):
            yield source.labelled(message)
    except TimeoutError:
        yield source.warning(f"the agent of node {source.node.description.hostname} does not answer")
    except grpc.aio.AioRpcError as error:
        # An ended task's container may be gone already, with its log: nothing to warn of.
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            yield source.warning(f"node {source.node.description.hostname}: {error.details() or error.code().name}")


def _stub(channel: grpc.aio.Channel) -> Any:
    return agent_pb2_grpc.AgentStub(channel)


def _request(task: Task, options: LogOptions) -> agent_pb2.ReadTaskLogsRequest:
    request = agent_pb2.ReadTaskLogsRequest(task_id=task.id, follow=options.follow)
    if options.tail is not None:
        request.tail = options.tail
    if options.since:
        nanos = round(options.since * 1_000_000_000)
        request.since.seconds, request.since.nanos = divmod(nanos, 1_000_000_000)
    return request


def time_of(message: logs_pb2.LogMessage) -> float:
    return timestamp(message.timestamp) if message.HasField("timestamp") else 0.0
