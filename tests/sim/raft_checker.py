"""What must hold of a Raft cluster at every moment. Knows nothing of how the cluster is run."""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm_manager.raft.core.messages import Message, VoteRequest, VoteResponse
from pyswarm_manager.raft.core.raft import Raft
from pyswarm_manager.raft.core.types import Entry, Role
from pyswarm_manager.raft.storage.memory import MemoryStorage


class SafetyViolation(AssertionError):
    """A property that must always hold did not."""


class RaftChecker:
    """Remembers everything that was ever promised, and compares."""

    def __init__(self) -> None:
        self.highest_acknowledged = 0
        self._leader_of: dict[int, int] = {}
        self._vote_of: dict[tuple[int, int], int] = {}  # (term, voter) -> candidate
        self._entries: dict[tuple[int, int], tuple[bytes, int]] = {}  # (index, term) -> (data, previous term)
        self._committed: dict[int, int] = {}  # index -> term
        self._committed_in: dict[int, int] = {}  # index -> a term in which it was known to be committed
        self._digests: dict[int, bytes] = {}
        self._disks: dict[int, MemoryStorage] = {}
        self._seen_last: dict[Raft, tuple[int, int]] = {}
        self._seen_commit: dict[Raft, int] = {}

    def began(self, entries: Sequence[Entry]) -> None:
        """The entries every first member starts with."""
        for entry in entries:
            self._committed[entry.index] = entry.term

    def synced(self, member: int, disk: MemoryStorage) -> None:
        """This is what would survive."""
        self._disks[member] = disk

    # -- one event ---------------------------------------------------------------------------------------------------

    def looked_at(self, core: Raft) -> None:
        """A core after an event."""
        self._check_leader(core)
        self._check_log(core)
        self._check_commit(core)

    def _check_leader(self, core: Raft) -> None:
        """Election safety, and leader completeness at the moment of election."""
        state = core.state
        if state.role is not Role.LEADER:
            return
        known = self._leader_of.get(state.term)
        if known is None:
            self._leader_of[state.term] = state.id
            for index, term in self._committed.items():
                if self._committed_in.get(index, 0) >= state.term:
                    continue  # elected late, by votes that were long on their way; it can commit nothing
                if index > state.log.base_index and state.log.term(index) != term:
                    raise SafetyViolation(f"{state.id} leads in term {state.term} without committed entry {index}")
        elif known != state.id:
            raise SafetyViolation(f"{known} and {state.id} both lead in term {state.term}")

    def _check_log(self, core: Raft) -> None:
        """Log matching: index and term determine the entry, and (by induction) all before it."""
        log = core.state.log
        last, checked = (log.last_index, log.last_term), self._seen_last.get(core)
        if last == checked:
            return
        self._seen_last[core] = last
        for entry in log.unstable():
            previous = log.term(entry.index - 1)
            if previous is None:
                continue
            known = self._entries.setdefault((entry.index, entry.term), (entry.data, previous))
            if known != (entry.data, previous):
                raise SafetyViolation(f"two different entries at index {entry.index} of term {entry.term}")

    def _check_commit(self, core: Raft) -> None:
        """Committed once, committed for ever; and only what a majority has on disk."""
        log = core.state.log
        before = self._seen_commit.get(core, log.base_index)
        if log.committed == before:
            return
        if log.committed < before:
            raise SafetyViolation(f"the commit index of {core.state.id} went back")
        self._seen_commit[core] = log.committed
        for index in range(max(before, log.base_index) + 1, log.committed + 1):
            term = log.term(index)
            assert term is not None
            known = self._committed.get(index)
            if known is None:
                self._check_majority(core, index, term)
                self._committed[index] = term
                self._committed_in[index] = core.state.term
            elif known != term:
                raise SafetyViolation(f"entry {index} is committed with terms {known} and {term}")

    def _check_majority(self, core: Raft, index: int, term: int) -> None:
        """When first known to be committed, an entry (or what followed it) is on the disks of a majority.

        With a membership change among the newly committed, the majority may be that of either configuration.
        """
        history = [row.configuration for row in core.state.config_history[-3:]]
        if not any(self._stored_by_majority(c.voters(), index, term) for c in history):
            raise SafetyViolation(f"{core.state.id} holds {index} for committed, but no majority has it on disk")

    def _stored_by_majority(self, voters: Sequence[int], index: int, term: int) -> bool:
        return sum(self._has_on_disk(voter, index, term) for voter in voters) >= len(voters) // 2 + 1

    def _has_on_disk(self, member: int, index: int, term: int) -> bool:
        disk = self._disks.get(member)
        stored = None if disk is None else disk.durable()
        if stored is None:
            return False
        if index <= stored.snapshot.index:
            return True
        offset = index - stored.snapshot.index - 1
        return offset < len(stored.entries) and stored.entries[offset].term == term

    def sent(self, message: Message) -> None:
        """One vote per term and member."""
        if isinstance(message, VoteResponse) and message.granted and not message.pre:
            self._voted(message.term, message.sender, message.to)
        elif isinstance(message, VoteRequest) and not message.pre:
            self._voted(message.term, message.sender, message.sender)

    def _voted(self, term: int, voter: int, candidate: int) -> None:
        known = self._vote_of.setdefault((term, voter), candidate)
        if known != candidate:
            raise SafetyViolation(f"{voter} voted for {known} and for {candidate} in term {term}")

    def applied(self, member: int, index: int, digest: bytes) -> None:
        """State machine safety: the digest of everything up to an index is the same everywhere."""
        if self._digests.setdefault(index, digest) != digest:
            raise SafetyViolation(f"{member} applied something else than others up to index {index}")

    def acknowledged(self, index: int) -> None:
        """A client was told that its write is made."""
        self.highest_acknowledged = max(self.highest_acknowledged, index)

    def read(self, member: int, index: int, floor: int) -> None:
        """A linearizable read sees every write that was acknowledged before it was asked for."""
        if index < floor:
            raise SafetyViolation(f"a read on {member} saw {index}, but {floor} was acknowledged before it")
