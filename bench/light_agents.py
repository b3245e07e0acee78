"""Many agents in one process, for `bench.agents`: real sessions over gRPC and mTLS, without containers.

    python -m bench.light_agents FOLDER MANAGER...

FOLDER holds one folder per agent with its certificate. Each agent speaks as a node does: hello, a heartbeat per period,
what it has programmed, and statuses, which it repeats in its next session until they are acknowledged. A task that is
told to run is RUNNING at once, one that is told to stop is SHUTDOWN at once. Answers each line on standard input with a
line of JSON: how many sessions are open, tasks run and are acknowledged, and when the last news came and was
acknowledged (by the clock that all processes share).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvloop

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import dispatcher_pb2_grpc, types_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.identity import NodeIdentity
from pyswarm_common.model import NodeDescription, Resources, TaskState, TaskStatus
from pyswarm_common.rpc import CHANNEL_OPTIONS

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _START_TIMEOUT_S = 0.1, 1.0, 5.0
_STARTS_PER_S = 6
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs
# A real agent looks for another leader when a ping stays unanswered for 1.5 s: here hundreds of agents share a process
# that is itself late on a busy machine. A pool of its own each, or all agents would share what gRPC shares.
_OPTIONS = {
    **dict(CHANNEL_OPTIONS),
    "grpc.keepalive_time_ms": 5_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.ping_timeout_ms": 10_000,
    "grpc.ssl_target_name_override": "swarm-manager",
    "grpc.use_local_subchannel_pool": 1,
}


@dataclass(slots=True)
class Counters:
    """Of all agents of this process."""

    sessions: int = 0
    opened: int = 0
    running: int = 0
    acknowledged: int = 0
    told_at: float = 0.0
    acknowledged_at: float = 0.0
    round_trips: list[float] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    """How often a session ended, or did not begin, for which reason."""

    def broke(self, reason: str) -> None:
        """The reason, without what differs from node to node."""
        key = reason.rpartition(": ")[2][:80]
        self.reasons[key] = self.reasons.get(key, 0) + 1

    def report(self) -> dict[str, Any]:
        """Everything so far; the heartbeats' round trips only once."""
        trips, self.round_trips = self.round_trips, []
        return {
            "sessions": self.sessions,
            "opened": self.opened,
            "running": self.running,
            "acknowledged": self.acknowledged,
            "told_at": self.told_at,
            "acknowledged_at": self.acknowledged_at,
            "round_trips": [round(trip * 1e3, 2) for trip in trips],
            "cpu_s": time.process_time(),
            "reasons": self.reasons,
        }


class LightAgent:
    """One node."""

    def __init__(self, identity: NodeIdentity, managers: list[str], counters: Counters) -> None:
        self._identity, self._managers, self._counters = identity, managers, counters
        self._running: dict[str, None] = {}
        self._in_flight: dict[int, dict[str, TaskState]] = {}
        self._sequence = 0
        self._period_s = 1.0
        self._beat_at = 0.0
        self._opened = 0

    async def run(self, delay_s: float) -> None:
        """For ever, from one session to the next, with the pauses of real agents."""
        await asyncio.sleep(delay_s)
        address, pause_s = self._managers[0], _FIRST_PAUSE_S
        while True:
            opened = self._opened
            hint = await self._session(address)
            address = hint or random.choice(self._managers)
            pause_s = _FIRST_PAUSE_S if self._opened > opened else min(pause_s * 2, _LONGEST_PAUSE_S)
            if not hint:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    async def _session(self, address: str) -> str:
        """One session; where the leader is, if that was said at its end."""
        credentials = self._identity.channel_credentials()
        async with grpc.aio.secure_channel(address, credentials, options=tuple(_OPTIONS.items())) as channel:
            call: Any = dispatcher_pb2_grpc.DispatcherStub(channel).Session()  # type: ignore[call-arg]
            try:
                async with asyncio.timeout(_START_TIMEOUT_S):
                    await call.write(pb.AgentMessage(hello=self._hello()))
                    first = await call.read()
                if first is _EOF:
                    return ""
                return await self._serve(call, first.started)
            except grpc.aio.AioRpcError as error:
                self._counters.broke(error.details() or error.code().name)
                trailers: Any = error.trailing_metadata() or ()
                return str(dict(tuple(pair) for pair in trailers).get("pyswarm-leader", ""))
            except (asyncio.InvalidStateError, TimeoutError):
                return ""
            finally:
                call.cancel()

    async def _serve(self, call: Any, started: pb.SessionStarted) -> str:
        self._period_s = started.heartbeat_period_s
        self._counters.sessions += 1
        self._counters.opened += 1
        self._opened += 1
        await self._repeat(call)
        beats = asyncio.create_task(self._beats(call))
        try:
            while (message := await call.read()) is not _EOF:
                await self._handle(call, message)
        finally:
            beats.cancel()
            self._counters.sessions -= 1
        return ""

    async def _repeat(self, call: Any) -> None:
        lost = {task_id: state for batch in self._in_flight.values() for task_id, state in batch.items()}
        self._in_flight.clear()
        self._sequence = 0
        if lost:
            await self._report(call, lost)

    async def _beats(self, call: Any) -> None:
        await asyncio.sleep(random.uniform(0.0, self._period_s))  # they did not all start at the same moment
        while True:
            self._beat_at = time.monotonic()
            try:
                await call.write(pb.AgentMessage(heartbeat=pb.Heartbeat()))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return
            await asyncio.sleep(self._period_s)

    async def _handle(self, call: Any, message: pb.ManagerMessage) -> None:
        match message.WhichOneof("message"):
            case "heartbeat_period":
                self._period_s = message.heartbeat_period.period_s
                if self._beat_at:
                    self._counters.round_trips.append(time.monotonic() - self._beat_at)
                    self._beat_at = 0.0
            case "assignments":
                await self._obey(call, message.assignments)
            case "status_ack":
                self._acknowledged(message.status_ack.sequence)

    async def _obey(self, call: Any, assignments: pb.Assignments) -> None:
        if assignments.type == pb.Assignments.TYPE_COMPLETE:
            named = {task.id for task in assignments.update_tasks}
            self._forget([task_id for task_id in self._running if task_id not in named])
        self._forget(assignments.remove_task_ids)
        for table in assignments.networks:
            programmed = pb.TablesProgrammed(network_id=table.network_id, version=table.version)
            await call.write(pb.AgentMessage(tables_programmed=programmed))
        news = {task.id: state for task in assignments.update_tasks if (state := self._next(task)) is not None}
        if news:
            self._counters.told_at = time.monotonic()
            await self._report(call, news)

    def _next(self, task: types_pb2.Task) -> TaskState | None:
        has_ended = task.status.state > types_pb2.TASK_STATE_RUNNING
        if has_ended or task.desired_state > types_pb2.TASK_STATE_RUNNING:
            self._forget([task.id])
            return None if has_ended else TaskState.SHUTDOWN
        if task.id in self._running or task.desired_state < types_pb2.TASK_STATE_RUNNING:
            return None if task.id in self._running else TaskState.READY
        self._running[task.id] = None
        self._counters.running += 1
        return TaskState.RUNNING

    def _forget(self, task_ids: Any) -> None:
        for task_id in task_ids:
            if task_id in self._running:
                del self._running[task_id]
                self._counters.running -= 1

    async def _report(self, call: Any, news: dict[str, TaskState]) -> None:
        self._sequence += 1
        self._in_flight[self._sequence] = news
        now = time.time()
        batch = pb.TaskStatusBatch(sequence=self._sequence)
        for task_id, state in news.items():
            batch.updates.add(task_id=task_id, status=to_proto(TaskStatus(state=state, timestamp=now)))
        await call.write(pb.AgentMessage(statuses=batch))

    def _acknowledged(self, sequence: int) -> None:
        for number in [number for number in self._in_flight if number <= sequence]:
            states = self._in_flight.pop(number).values()
            self._counters.acknowledged += sum(state is TaskState.RUNNING for state in states)
            self._counters.acknowledged_at = time.monotonic()

    def _hello(self) -> pb.Hello:
        description = NodeDescription(
            hostname=f"h{self._identity.node_id[:8]}",
            os="linux",
            architecture="x86_64",
            engine_version="bench",
            resources=Resources(nano_cpus=64_000_000_000, memory_bytes=256 << 30),
            data_path_address="127.0.0.1",
            agent_address="127.0.0.1:7946",
        )
        return pb.Hello(description=to_proto(description), address="127.0.0.1")


async def serve(folder: Path, managers: list[str]) -> None:
    """Run every agent of the folder; answer standard input, and end with it."""
    counters = Counters()
    identities = [identity for path in sorted(folder.iterdir()) if (identity := NodeIdentity.load(path)) is not None]
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    agents = [LightAgent(identity, managers, counters) for identity in identities]
    tasks = [asyncio.create_task(agent.run(number / _STARTS_PER_S)) for number, agent in enumerate(agents)]
    while await lines.readline():
        print(json.dumps(counters.report()), flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), sys.argv[2:]))
