"""What the driver needs of others, and what it tells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from pyswarm_manager.raft.core.messages import Message
from pyswarm_manager.raft.core.types import MemberRole

MIB = 1024 * 1024


class RaftConfig(msgspec.Struct, frozen=True):
    """Who this member is, its timing and its limits."""

    raft_id: int  # random, 63 bits, never used again after a removal
    address: str  # where the other managers reach it
    tick_s: float = 0.05
    heartbeat_ticks: int = 3
    election_ticks: int = 12  # the timeout is drawn from 0.6-1.2 s
    lease_ticks: int = 5  # the leader reads alone for so long after a heartbeat that a majority answered; 0: never
    promise_ticks: int = 6  # and whoever answered elects nobody else for so long; the difference is for clock drift
    max_inflight_messages: int = 64  # per follower
    max_append_bytes: int = 512 * 1024
    max_entry_bytes: int = MIB + MIB // 2
    max_pending_proposals: int = 8192
    max_pending_bytes: int = 64 * MIB
    max_inbox_messages: int = 4096
    read_timeout_s: float = 2.0
    snapshot_entries: int = 20_000  # a snapshot is made after this many entries...
    snapshot_bytes: int = 64 * MIB  # ...or this many bytes of them
    keep_entries: int = 2_000  # kept before a snapshot, for followers that lag a little


class Transport(Protocol):
    """Carries messages to other members. Everything may be lost, doubled or reordered."""

    def bind(self, on_lost: Callable[[int], None], on_snapshot_failed: Callable[[int], None]) -> None:
        """Where to report a peer whose connection broke and was refused when tried again, and a lost snapshot."""
        ...

    def send(self, messages: Sequence[Message]) -> None:
        """Never blocks: a bounded queue per peer, whose oldest message is dropped and counted."""
        ...

    def set_peers(self, peers: Mapping[int, str]) -> None:
        """The other members and their addresses, whenever they change."""
        ...

    async def run(self) -> None:
        """Carry messages until cancelled."""
        ...


class StateMachine(Protocol):
    """What the committed entries are applied to. Synchronous and deterministic; an exception ends the process."""

    def apply(self, index: int, term: int, data: bytes) -> object:
        """Apply one entry; the result goes to the proposer, if it waits on this member."""
        ...

    def capture(self) -> Callable[[], bytes]:
        """The state after the last applied entry: taken hold of now, in next to no time, and encoded by the function
        that is returned, which is called once, in another thread, while further entries are applied."""
        ...

    def restore(self, index: int, data: bytes) -> None:
        """Replace the state by that of a snapshot, which held everything up to `index`."""
        ...


class ApplyResult(msgspec.Struct, frozen=True):
    """A proposal was committed at `index` and applied here."""

    index: int
    result: object


class MemberStatus(msgspec.Struct, frozen=True):
    """One member, as this one sees it. What is beyond address and role only the leader knows."""

    address: str
    role: MemberRole
    is_leader: bool = False
    is_active: bool = False  # answered the leader within an election timeout
    match_index: int = 0
    disk_is_full: bool = False


class LeadershipChanged(msgspec.Struct, frozen=True):
    """Who leads. `is_leader`: this member does, and has applied everything committed before its term."""

    term: int
    leader_id: int | None
    is_leader: bool
