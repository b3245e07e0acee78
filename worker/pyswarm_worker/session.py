"""The session with the leading manager: finds it, says Hello, and carries messages both ways until it breaks.

Decides whom to dial next: where a manager points to, then the local manager, then the others it knows, for ever, with
short pauses. Decides nothing about tasks: what arrives is handed to the listener in order, and a message out of
sequence ends the session, since the next one begins with everything.

All messages of a session go out through one bounded queue; a manager that does not read for so long that it fills up is
left for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol

import grpc

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import dispatcher_pb2_grpc
from pyswarm_common.errors import NODE_REMOVED_KEY, PyswarmError, Unavailable
from pyswarm_common.identity import NodeIdentity, role_name
from pyswarm_common.identity.locks import Locked
from pyswarm_common.model import NodeRole
from pyswarm_common.resolving import is_named, resolved
from pyswarm_common.rpc import CHANNEL_OPTIONS, error_from_rpc

from .statuses import StatusOutbox

_log = logging.getLogger(__name__)

_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs
_NOT_CONNECTED = "failed to connect to all addresses"
LEADER_METADATA = "pyswarm-leader"
_START_TIMEOUT_S = 5.0
_LOCATE_TIMEOUT_S = 5.0
_WATCHFUL = {"grpc.keepalive_time_ms": 1_000, "grpc.keepalive_timeout_ms": 1_500}
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_SPREAD_FROM_S, _LONGEST_SPREAD_S = 1.0, 20.0
_MAX_HINTS = 3  # in one round: managers that point at one another must not keep us busy
_MAX_QUEUE = 4_096
_REMOVED_AFTER = 3
"""So many answers must say that this node does not exist, with no session in between..."""
_REMOVED_AFTER_S = 3.0
"""...and the first so long ago that no leader which has been replaced without knowing can have given them all."""

_ASK_AFTER_S, _ASK_AGAIN_LONGEST_S = 15.0, 600.0
"""After so long without a session `removal` is asked, then less and less often: managers that have replaced the root
let nobody in by TLS whose certificate is of the old one, and a removed node would never hear why."""

Dial = Callable[[str], "AbstractAsyncContextManager[dispatcher_pb2_grpc.DispatcherAsyncStub]"]
"""Connects to the manager at an address."""


def longest_spread_s(heartbeat_period_s: float) -> float:
    """In a large cluster all agents lose the same leader at once, and each handshake costs the next one something: they
    come back as spread as their heartbeats are, whose period beyond a second grows with the number of nodes."""
    return min(max(0.0, heartbeat_period_s - _SPREAD_FROM_S), _LONGEST_SPREAD_S)


class SessionListener(Protocol):
    """Who acts on what the managers say."""

    def hello(self) -> pb.Hello: ...

    async def on_started(self, started: pb.SessionStarted) -> None: ...

    async def on_message(self, message: pb.ManagerMessage) -> None: ...

    async def inventory(self) -> pb.ImageInventory: ...

    def on_broken(self, reason: str) -> None: ...


class Removed(PyswarmError):
    """The cluster does not know this node any more."""


class _OutOfStep(Exception):
    """The session cannot go on; a new one begins with everything."""


class Session:
    """One at a time; `run` goes from one to the next."""

    def __init__(
        self,
        identity: Callable[[], NodeIdentity],
        managers: Callable[[], Sequence[str]],
        listener: SessionListener,
        outbox: StatusOutbox,
        *,
        dial: Dial | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
        removal: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        """`managers` gives the addresses to dial, the likeliest first; `dial` and `uniform` are the simulator's.
        `removal` asks the managers, where no session comes about, whether this node was removed."""
        self._removal = removal
        self._dial = dial or partial(_dial, identity)
        self._uniform = uniform
        self._managers = managers
        self._listener = listener
        self._outbox = outbox
        self._stub: dispatcher_pb2_grpc.DispatcherAsyncStub | None = None
        self._queue: asyncio.Queue[pb.AgentMessage] | None = None
        self._period_s = 1.0
        self._has_started = False
        self.manager = ""
        """Whom we dialled last."""
        self._hint = ""
        self._not_found = 0
        self._not_found_since = 0.0
        self._images_changed = asyncio.Event()
        self._redial = asyncio.Event()

    @property
    def is_up(self) -> bool:
        return self._queue is not None

    def say(self, message: pb.AgentMessage) -> None:
        """Lost when there is no session: the next one begins with everything anyway."""
        if self._queue is None:
            return
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self._redial.set()

    def images_changed(self) -> None:
        self._images_changed.set()

    def redial(self) -> None:
        """End the session and begin another: the certificate is a new one."""
        self._redial.set()

    async def locate_image(self, reference: str) -> list[str]:
        if self._stub is None:
            raise Unavailable("no manager is reachable")
        try:
            request = pb.LocateImageRequest(reference=reference)
            answer = await self._stub.LocateImage(request, timeout=_LOCATE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(str(error_from_rpc(error))) from error
        return list(answer.agent_addresses)

    # ---------------------------------------------------------------- finding the leader

    async def run(self) -> None:
        """For ever. Raises Removed when the managers say that this node does not exist."""
        pause_s = _FIRST_PAUSE_S
        ask_at, ask_again_s = _now() + _ASK_AFTER_S, _ASK_AFTER_S
        while True:
            self._has_started = False
            reason = await self._round()
            if self._is_removed():
                raise Removed(reason)
            if self._has_started:
                ask_at, ask_again_s = _now() + _ASK_AFTER_S, _ASK_AFTER_S
            elif self._removal is not None and _now() >= ask_at:
                if said := await self._removal():
                    raise Removed(said)
                ask_again_s = min(ask_again_s * 2, _ASK_AGAIN_LONGEST_S)
                ask_at = _now() + ask_again_s
            pause_s = _FIRST_PAUSE_S if self._has_started else min(pause_s * 2, _LONGEST_PAUSE_S)
            self._listener.on_broken(reason)
            await asyncio.sleep(pause_s * self._uniform(0.5, 1.0))
            if self._has_started and (longest_s := longest_spread_s(self._period_s)):
                await asyncio.sleep(self._uniform(0.0, longest_s))

    def _is_removed(self) -> bool:
        since_s = _now() - self._not_found_since
        return self._not_found >= _REMOVED_AFTER and since_s >= _REMOVED_AFTER_S

    async def _round(self) -> str:
        """Try every manager once, following their hints, until one has served us; says why the last did not."""
        waiting = list(dict.fromkeys(self._managers()))
        hints, reason = 0, "no manager is known"
        while waiting or self._hint:
            if self._hint:
                address, self._hint = self._hint, ""
                hints += 1
                waiting = [other for other in waiting if other != address]
            else:
                address = waiting.pop(0)
            if is_named(address):
                found = await resolved(address)
                waiting[:0] = [other for other in found if other not in waiting]
                reason = reason if found else f"{address}: the name leads nowhere"
                continue
            reason = await self._attempt(address)
            if self._has_started:
                return reason
            if hints >= _MAX_HINTS:
                self._hint = ""
        return reason

    async def _attempt(self, address: str) -> str:
        """One session with one manager, however long it lasts; says why it ended."""
        self.manager = address
        try:
            async with self._dial(address) as stub:
                await self._converse(stub)
        except grpc.aio.AioRpcError as error:
            self._hint = _leader_of(error, address)
            if _says_removed(error):
                # An answer of somebody who does not lead says nothing about it either way.
                self._not_found_since = self._not_found_since or _now()
                self._not_found += 1
            return f"{address}: {_in_short(error)}"
        except Locked as error:
            return str(error)
        except TimeoutError:
            return f"{address}: no answer within {_START_TIMEOUT_S:g} s"
        except _OutOfStep as error:
            return f"{address}: {error}"
        except ValueError as error:  # a number this version has no name for
            _log.error("the manager at %s says what this version does not understand: %s", address, error)
            return f"{address}: {error}"
        return f"{address}: the manager ended the session"

    # ---------------------------------------------------------------- one session

    async def _converse(self, stub: dispatcher_pb2_grpc.DispatcherAsyncStub) -> None:
        open_session: Any = stub.Session  # the stubs do not know that requests may be written one by one
        call = open_session()
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await _send(call, pb.AgentMessage(hello=self._listener.hello()))
                first = await call.read()
            if first is _EOF or first.WhichOneof("message") != "started":
                raise _OutOfStep("the session did not begin with its start")
            await self._serve(stub, call, first.started)
        finally:
            self._stub = self._queue = None
            call.cancel()

    async def _serve(
        self, stub: dispatcher_pb2_grpc.DispatcherAsyncStub, call: Any, started: pb.SessionStarted
    ) -> None:
        self._has_started, self._not_found, self._not_found_since = True, 0, 0.0
        self._period_s = started.heartbeat_period_s or self._period_s
        self._redial.clear()
        self._queue, self._stub = asyncio.Queue(_MAX_QUEUE), stub
        self._outbox.begin_session()
        self._images_changed.set()
        await self._listener.on_started(started)
        parts = (self._read(call), self._write(call), self._heartbeats(), self._statuses(), self._inventories())
        await _until_one_ends([*parts, self._wait_redial()])

    async def _wait_redial(self) -> None:
        await self._redial.wait()
        raise _OutOfStep("dialling again")

    async def _read(self, call: Any) -> None:
        expected: int | None = None
        while (message := await call.read()) is not _EOF:
            match message.WhichOneof("message"):
                case "status_ack":
                    await self._outbox.acknowledged(message.status_ack.sequence)
                case "heartbeat_period":
                    self._period_s = message.heartbeat_period.period_s
                case "assignments":
                    sequence = message.assignments.sequence
                    if expected is not None and sequence != expected:
                        raise _OutOfStep(f"assignments {sequence} came where {expected} was due")
                    expected = sequence + 1
                    await self._listener.on_message(message)
                case _:
                    await self._listener.on_message(message)

    async def _write(self, call: Any) -> None:
        assert self._queue is not None
        while True:
            await _send(call, await self._queue.get())

    async def _put(self, message: pb.AgentMessage) -> None:
        assert self._queue is not None
        await self._queue.put(message)

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            await self._put(pb.AgentMessage(heartbeat=pb.Heartbeat()))

    async def _statuses(self) -> None:
        while True:
            await self._put(pb.AgentMessage(statuses=await self._outbox.next_batch()))

    async def _inventories(self) -> None:
        while True:
            await self._images_changed.wait()
            self._images_changed.clear()
            await self._put(pb.AgentMessage(images=await self._listener.inventory()))


def _now() -> float:
    return asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def _dial(
    identity: Callable[[], NodeIdentity], address: str
) -> AsyncIterator[dispatcher_pb2_grpc.DispatcherAsyncStub]:
    """By gRPC, with the identity that the node has at that moment."""
    async with _open_channel(address, identity()) as channel:
        yield dispatcher_pb2_grpc.DispatcherStub(channel)


def _open_channel(address: str, identity: NodeIdentity) -> grpc.aio.Channel:
    """As every channel, but a manager whose host has gone silent is noticed in a few seconds."""
    options = {**dict(CHANNEL_OPTIONS), **_WATCHFUL, "grpc.ssl_target_name_override": role_name(NodeRole.MANAGER)}
    return grpc.aio.secure_channel(address, identity.channel_credentials(), options=tuple(options.items()))


async def _send(call: Any, message: pb.AgentMessage) -> None:
    """Into a call that has ended nothing is written: its reader says how it ended."""
    try:
        await call.write(message)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.code()
        await asyncio.sleep(0)


async def _until_one_ends(parts: Sequence[Any]) -> None:
    """Run them together; when one ends, in whatever way, end the others, and pass on how it ended."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    # The reader knows best why: its error carries the manager's status.
    for task in sorted(done, key=tasks.index):
        task.result()


def _in_short(error: grpc.aio.AioRpcError) -> str:
    """gRPC tells a failed connection as a chain of layers, of which the last one has the reason."""
    details = error.details() or error.code().name
    if details.startswith(_NOT_CONNECTED):
        return "cannot connect: " + details.rpartition(": ")[2].lower()
    return details


def _says_removed(error: grpc.aio.AioRpcError) -> bool:
    """Whether the manager says that this node is not part of the cluster any more."""
    pairs: Any = error.trailing_metadata() or ()
    return error.code() is grpc.StatusCode.NOT_FOUND or any(key == NODE_REMOVED_KEY for key, _ in pairs)


def _leader_of(error: grpc.aio.AioRpcError, asked: str) -> str:
    """Where the manager says that the leader is; nothing if it is itself."""
    pairs: Any = error.trailing_metadata() or ()
    for key, value in pairs:
        if key == LEADER_METADATA and value and value != asked:
            return value.decode() if isinstance(value, bytes) else str(value)
    return ""
