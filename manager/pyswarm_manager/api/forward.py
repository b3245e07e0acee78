"""Writes happen on the leader: a follower passes the whole request on, and the leader's answer back.

Decides whether to answer here, to pass on, or to give up: without a leader it waits about a second, then refuses with
what is being waited for. It never passes on what was passed on to it, so a request cannot go round in circles, and
never sends a request twice that may have been carried out: that is told to the caller as Unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from pyswarm_common.errors import Unavailable, Unknown
from pyswarm_common.identity import NodeIdentity, role_name
from pyswarm_common.model import NodeRole
from pyswarm_common.rpc import Peer, open_channel
from pyswarm_manager.api.caller import Context, forwarding_metadata
from pyswarm_manager.ports import IdentityProvider, RaftPort

R = TypeVar("R", bound=Message)

LEADER_WAIT_S = 1.0
CALL_TIMEOUT_S = 20.0
_LOST_LEADER_GRACE_S = 0.5
_CONNECT_RETRY_S = 0.05
_NOT_LEADING = "pyswarm-not-leading"

NO_LEADER = (
    "no leader: the managers are electing one, or too few of them are up: try again in a moment; if that does not "
    "help, start (or unlock) the managers that are down (`pyswarm operator raft state` names all of them)"
)


class LeaderForwarder:
    """One per manager; keeps the channel to the leader of the moment."""

    def __init__(self, raft: RaftPort, identity: IdentityProvider) -> None:
        self._raft = raft
        self._identity = identity
        self._channel: grpc.aio.Channel | None = None
        self._channel_to: tuple[str, NodeIdentity] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close every channel; calls that are out are cancelled."""
        self._retire()
        await _cancel(*self._closing)

    async def on_leader(
        self,
        method: str,
        request: Message,
        response_type: type[R],
        caller: Peer,
        local: Callable[[], Awaitable[R]],
        *,
        is_read: bool = False,
    ) -> R:
        """The answer of `local` if this manager leads, else the leader's answer to the same method and request.

        A read that is lost with the leader is Unavailable, since asking again is always right."""
        deadline = asyncio.get_running_loop().time() + LEADER_WAIT_S
        while True:
            address = await self._find_leader(deadline)
            if address is None:
                return await local()
            channel = await self._connected(address, deadline)
            if channel is None:
                continue
            stub: Any = channel.unary_unary(
                method,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=response_type.FromString,
            )
            metadata = forwarding_metadata(caller, self._identity().node_id)
            try:
                sent = stub(request, timeout=CALL_TIMEOUT_S, metadata=metadata)
                answer: R | None = await self._send(sent, address)
            except Unknown:
                if is_read:
                    raise no_leader(self._raft) from None
                raise
            if answer is not None:
                return answer
            await asyncio.sleep(_CONNECT_RETRY_S)  # it stopped leading; the deadline ends this

    async def _find_leader(self, deadline: float) -> str | None:
        """Where the leader is; None if it is this manager."""
        while True:
            seen = self._raft.leadership
            if self._raft.is_leader:
                return None
            address = self._raft.leader_address
            if address is not None and self._raft.leader_id != self._raft.raft_id:
                self._require_time(deadline)
                return address
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._raft.wait_leadership_change(seen)
            self._require_time(deadline)

    def _require_time(self, deadline: float) -> None:
        if asyncio.get_running_loop().time() >= deadline:
            raise no_leader(self._raft)

    async def _connected(self, address: str, deadline: float) -> grpc.aio.Channel | None:
        """The channel once it stands; None if leadership moved meanwhile. Nothing is sent before it stands."""
        channel = self._channel_for(address)
        if channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return channel
        ready = asyncio.ensure_future(channel.channel_ready())
        moved = asyncio.ensure_future(self._raft.wait_leadership_change(self._raft.leadership))
        try:
            remaining = deadline - asyncio.get_running_loop().time()
            await asyncio.wait([ready, moved], timeout=max(0.0, remaining), return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                return channel
            if moved.done():
                moved.result()
                return None
        finally:
            await _cancel(ready, moved)
        raise Unavailable(f"waiting for the leader at {address}, which does not answer, or for another: try again")

    def _channel_for(self, address: str) -> grpc.aio.Channel:
        wanted = (address, self._identity())
        if self._channel is None or self._channel_to != wanted:
            self._retire()
            self._channel = open_channel(address, wanted[1], role_name(NodeRole.MANAGER))
            self._channel_to = wanted
        return self._channel

    def _retire(self) -> None:
        """Close the channel once the calls on it have ended; new ones take another."""
        channel, self._channel, self._channel_to = self._channel, None, None
        if channel is not None:
            task = asyncio.get_running_loop().create_task(channel.close(CALL_TIMEOUT_S))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _send(self, sent: Any, address: str) -> Any:
        """The leader's answer; None if it was no longer the leader, and so did nothing."""
        call = asyncio.ensure_future(_answer(sent))
        watcher = asyncio.ensure_future(self._leader_lost(address))
        try:
            await asyncio.wait([call, watcher], return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                await asyncio.wait([call], timeout=_LOST_LEADER_GRACE_S)
            if not call.done():
                _unknown(address)
            return call.result()
        except grpc.aio.AioRpcError as error:
            return _judge(error, address)
        finally:
            await _cancel(call, watcher)

    async def _leader_lost(self, address: str) -> None:
        """Return once somebody else leads: an answer that is still out may never come."""
        while True:
            seen = self._raft.leadership
            if self._raft.leader_address not in (None, address):
                return
            await self._raft.wait_leadership_change(seen)


def no_leader(raft: RaftPort) -> Unavailable:
    """Why nobody can be asked, as far as this manager knows."""
    if raft.disk_problem:
        return Unavailable(
            f"no leader, and {raft.disk_problem}: free some space there; nothing is lost, and it goes on by itself"
        )
    return Unavailable(NO_LEADER)


async def refuse_forwarded(context: Context) -> NoReturn:
    """Tell the manager that passed this request on that nothing was done, since this one does not lead."""
    await context.abort(grpc.StatusCode.UNAVAILABLE, NO_LEADER, ((_NOT_LEADING, "1"),))
    raise AssertionError("abort returned")


async def _answer(call: Any) -> Any:
    return await call


async def _cancel(*futures: asyncio.Future[Any]) -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


def _judge(error: grpc.aio.AioRpcError, address: str) -> None:
    """Pass the leader's refusal on; None if the manager did nothing because it does not lead."""
    trailers: Any = error.trailing_metadata() or ()
    keys = {key for key, _ in trailers}
    if _NOT_LEADING in keys:
        return
    refused_by_leader = "grpc-status-details-bin" in keys
    codes = grpc.StatusCode
    lost = error.code() in (codes.UNAVAILABLE, codes.DEADLINE_EXCEEDED, codes.CANCELLED)
    if lost and not refused_by_leader:
        _unknown(address)
    raise error


def _unknown(address: str) -> NoReturn:
    raise Unknown(
        f"the leader at {address} was lost before it answered: the change may or may not be made; look, then try again"
    )
