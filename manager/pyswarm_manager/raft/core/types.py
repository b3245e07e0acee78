"""The values consensus speaks of: entries, the configuration, what must survive a crash, and what the shell must do.

Nothing here decides anything. Every value is frozen, so that it can be shared between the log, messages and the shell.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

NOBODY = 0
"""The raft id that no member has: 'no vote given' and 'no leader known'."""


class EntryKind(enum.IntEnum):
    """What an entry's data is."""

    NOOP = 0  # the entry a leader appends at the start of its term, so that it can commit (thesis §6.4)
    NORMAL = 1  # a proposal for the state machine
    CONFIG = 2  # an encoded ConfChange


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One place in the replicated log."""

    index: int
    term: int
    kind: EntryKind
    data: bytes

    def __repr__(self) -> str:
        """Without the data, which may hold keys."""
        return f"Entry({self.index}, {self.term}, {self.kind!r}, {len(self.data)} bytes)"


class MemberRole(enum.IntEnum):
    """Whether a member counts for majorities."""

    VOTER = 1
    LEARNER = 2


class Member(msgspec.Struct, frozen=True):
    """One manager, as the configuration knows it."""

    address: str
    role: MemberRole


class Configuration(msgspec.Struct, frozen=True):
    """Who takes part. `removed` are ids that must never be heard again; a manager that returns gets a new id."""

    members: Mapping[int, Member] = {}
    removed: tuple[int, ...] = ()

    def voters(self) -> tuple[int, ...]:
        """The ids that count for majorities, in a fixed order."""
        return tuple(sorted(i for i, m in self.members.items() if m.role is MemberRole.VOTER))


class ConfOperation(enum.IntEnum):
    """What one membership change does."""

    ADD_VOTER = 1
    ADD_LEARNER = 2
    REMOVE = 3
    UPDATE_ADDRESS = 4


class ConfChange(msgspec.Struct, frozen=True):
    """A change of one member: consecutive majorities overlap, so one at a time is safe (docs/raft-membership.md)."""

    operation: ConfOperation
    raft_id: int
    address: str = ""


class HeldConfiguration(msgspec.Struct, frozen=True):
    """The configuration that holds from the entry (or snapshot) at `index` on."""

    index: int
    term: int
    configuration: Configuration


class HardState(msgspec.Struct, frozen=True, gc=False):
    """What a member must remember across a crash, beside its log."""

    term: int = 0
    vote: int = NOBODY
    commit: int = 0


class Snapshot(msgspec.Struct, frozen=True):
    """The state machine after `index`, in place of the log up to it, with the configuration of that moment."""

    index: int = 0
    term: int = 0
    configuration: Configuration = Configuration()
    data: bytes = b""

    def __repr__(self) -> str:
        """Without the data, which holds keys."""
        return f"Snapshot({self.index}, {self.term}, {self.configuration!r}, {len(self.data)} bytes)"


class Role(enum.IntEnum):
    """A member's part in its term."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


class SoftState(msgspec.Struct, frozen=True, gc=False):
    """What is worth telling others and need not be stored."""

    term: int
    role: Role
    leader_id: int


class ReadState(msgspec.Struct, frozen=True, gc=False):
    """A read that was asked for as `context` is linearizable once `index` is applied."""

    context: int
    index: int


class Options(msgspec.Struct, frozen=True):
    """Time in ticks and limits. The defaults fit ticks of 50 ms."""

    heartbeat_ticks: int = 3
    election_ticks: int = 12  # timeouts are drawn from [election_ticks, 2 * election_ticks)
    max_append_bytes: int = 512 * 1024
    max_inflight_messages: int = 64
    max_inflight_bytes: int = 4 * 1024 * 1024
    max_pending_reads: int = 4096
    lease_us: int = 250_000  # how long a majority's answers let the leader read alone; 0: always ask a majority
    promise_us: int = 300_000  # how long a voter that answered elects nobody else; longer than the lease by any drift


class LogLost(Exception):
    """This member's log lacks what it acknowledged once. It must end, and never speak under its raft id again."""


class ProposalRefused(Exception):
    """This member cannot append it now: it does not lead, leadership is moving, or a membership change is pending."""
