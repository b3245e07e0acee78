"""How much one peer may ask of a server at once, whom it refuses, and whose calls it cuts.

A peer is a certificate's holder: a node, or a person's credential. The local socket's caller is root here, and has no
limit. The limits are far above what a node or a busy dashboard does; they keep one that has gone wrong from taking a
server away from all others. What is over a limit is refused with a sentence, never queued.

Calls under way are known by peer, so that those of a node that was removed end at once, streams included.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pyswarm_common import errors
from pyswarm_common.rpc.callers import Caller, Peer

MAX_PEERS: Final = 16_384
"""Whose last calls are remembered; who is longest quiet is forgotten."""


@dataclass(frozen=True, slots=True)
class Limit:
    """For one peer."""

    concurrent: int
    per_second: float
    burst: float


WORKER_LIMIT: Final = Limit(concurrent=128, per_second=50.0, burst=1_000.0)
MANAGER_LIMIT: Final = Limit(concurrent=8_192, per_second=10_000.0, burst=40_000.0)
"""A manager passes on what everybody else asked it."""
PERSON_LIMIT: Final = Limit(concurrent=512, per_second=200.0, burst=2_000.0)


@dataclass(slots=True)
class _Calls:
    """One peer's."""

    tokens: float
    counted_at: float
    running: dict[_Call, None] = field(default_factory=dict)


class _Call:
    """One call under way. `reason` is set when it is cut."""

    __slots__ = ("method", "reason", "task")

    def __init__(self, method: str, task: asyncio.Task[object] | None) -> None:
        self.method, self.task = method, task
        self.reason: errors.PyswarmError | None = None


class PeerGate:
    """One per server, or several servers share one."""

    def __init__(
        self,
        limits: Mapping[Caller, Limit],
        refusal: Callable[[Peer], errors.PyswarmError | None],
        clock: Callable[[], float],
        uncut: frozenset[str] = frozenset(),
    ) -> None:
        """`refusal` says why a peer is not let in; calls of `uncut` methods may end by themselves when it leaves."""
        self._limits, self._refusal, self._clock, self._uncut = limits, refusal, clock, uncut
        self._peers: OrderedDict[tuple[Caller, str], _Calls] = OrderedDict()

    @contextlib.contextmanager
    def entered(self, peer: Peer, method: str) -> Iterator[None]:
        """Around a call. Raises why the peer is not let in, at the beginning or (when it is cut) in the middle."""
        reason = self._refusal(peer)
        if reason is not None:
            raise reason
        limit = self._limits.get(peer.caller)
        if limit is None:
            yield
            return
        calls = self._count(peer, limit)
        call = _Call(method, asyncio.current_task())
        calls.running[call] = None
        try:
            yield
        except asyncio.CancelledError:
            if call.reason is None or call.task is None:
                raise
            call.task.uncancel()
            raise call.reason from None
        finally:
            calls.running.pop(call, None)

    def cut(self, node_id: str, reason: errors.PyswarmError) -> None:
        """End every call of that node that is under way."""
        for (_, key), calls in self._peers.items():
            if key != node_id:
                continue
            for call in calls.running:
                if call.method not in self._uncut and call.task is not None and call.reason is None:
                    call.reason = reason
                    call.task.cancel()

    def _count(self, peer: Peer, limit: Limit) -> _Calls:
        key, now = (peer.caller, peer.node_id or peer.credential_id), self._clock()
        calls = self._peers.pop(key, None) or _Calls(limit.burst, now)
        self._peers[key] = calls
        self._forget_quiet()
        calls.tokens = min(limit.burst, calls.tokens + (now - calls.counted_at) * limit.per_second)
        calls.counted_at = now
        if len(calls.running) >= limit.concurrent:
            raise errors.Exhausted(f"{limit.concurrent} calls of this certificate are under way: wait for some to end")
        if calls.tokens < 1.0:
            raise errors.Exhausted(f"more than {limit.per_second:g} calls a second with this certificate: slow down")
        calls.tokens -= 1.0
        return calls

    def _forget_quiet(self) -> None:
        """The longest quiet, but for those with calls under way: they are looked for when a node is cut."""
        while len(self._peers) > MAX_PEERS:
            key, calls = self._peers.popitem(last=False)
            if calls.running:
                self._peers[key] = calls
                return


def default_limits() -> dict[Caller, Limit]:
    """By kind of caller. The local socket has none."""
    people = dict.fromkeys((Caller.VIEWER, Caller.OPERATOR, Caller.ADMIN), PERSON_LIMIT)
    return {Caller.WORKER: WORKER_LIMIT, Caller.MANAGER: MANAGER_LIMIT, **people}
