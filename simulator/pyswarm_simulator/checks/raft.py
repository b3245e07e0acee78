"""What must hold of the managers' consensus at every moment. Knows nothing of what the entries mean."""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm_manager.raft.core.log import RaftLog
from pyswarm_manager.raft.core.messages import Message, VoteRequest, VoteResponse
from pyswarm_manager.raft.core.raft import Raft
from pyswarm_manager.raft.core.types import Role
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_simulator.checks.violation import Violation


def _end(log: RaftLog) -> tuple[int, int]:
    return log.last_index, log.last_term


class RaftChecks:
    """Remembers everything that was ever promised, and compares."""

    def __init__(self) -> None:
        self.leader_of: dict[int, int] = {}
        self._vote_of: dict[tuple[int, int], int] = {}  # (term, voter) -> candidate
        self._entries: dict[tuple[int, int], tuple[bytes, int]] = {}  # (index, term) -> (data, previous term)
        self._committed: dict[int, int] = {}  # index -> term
        self._committed_in: dict[int, int] = {}  # index -> a term in which it was known to be committed
        self._disks: dict[int, MemoryStorage] = {}
        self._seen: dict[Raft, tuple[int, int, int, int]] = {}

    def began(self, raft_id: int, disk: MemoryStorage) -> None:
        """This disk is that member's memory from now on."""
        self._disks[raft_id] = disk

    def opened(self, core: Raft) -> None:
        """A core, as it begins: what it knows, it counts on, so no power cut may take it back."""
        state, disk = core.state, self._disks[core.state.id].durable()
        if disk is None or disk.hard_state.term != state.term or not self._has_on_disk(state.id, *_end(state.log)):
            raise Violation(f"{state.id:x} begins with what is not on its disk for good")

    def looked_at(self, core: Raft) -> None:
        """A core, after something happened to it."""
        state = core.state
        log = state.log
        now = (state.term, state.role.value, log.last_index * 1_000_003 + log.last_term, log.committed)
        before = self._seen.get(core)
        if now == before:
            return
        self._seen[core] = now
        if state.role is Role.LEADER and (before is None or before[:2] != now[:2]):
            self._check_leader(core)
        if before is None or before[2] != now[2]:
            self._check_log(core)
        self._check_commit(core, log.base_index if before is None else before[3])
        if before is not None and before[:2] == now[:2] and state.role is Role.LEADER and log.committed > before[3]:
            self._check_commit_rule(core)

    def _check_leader(self, core: Raft) -> None:
        """Election safety, and leader completeness at the moment of election."""
        state = core.state
        known = self.leader_of.setdefault(state.term, state.id)
        if known != state.id:
            raise Violation(f"one leader per term: {known:x} and {state.id:x} both lead in term {state.term}")
        for index, term in self._committed.items():
            if self._committed_in.get(index, 0) >= state.term:
                continue  # elected late, by votes that were long on their way; it can commit nothing
            if index > state.log.base_index and state.log.term(index) != term:
                raise Violation(
                    f"leader completeness: {state.id:x} leads in term {state.term} without committed entry {index}"
                )

    def _check_log(self, core: Raft) -> None:
        """Log matching: index and term determine the entry, and (by induction) all before it."""
        log = core.state.log
        for entry in log.unstable():
            previous = log.term(entry.index - 1)
            if previous is None:
                continue
            known = self._entries.setdefault((entry.index, entry.term), (entry.data, previous))
            if known != (entry.data, previous):
                raise Violation(f"log matching: two different entries at index {entry.index} of term {entry.term}")

    def _check_commit_rule(self, core: Raft) -> None:
        """What a leader commits by counting is of its own term; older entries commit with it (paper, section 5.4.2)."""
        log = core.state.log
        if log.term(log.committed) != core.state.term:
            raise Violation(
                f"commit rule: {core.state.id:x} leads in term {core.state.term} and commits up to {log.committed}, "
                f"which is of term {log.term(log.committed)}"
            )

    def _check_commit(self, core: Raft, before: int) -> None:
        """Committed once, committed for ever; and only what a majority has on disk."""
        log = core.state.log
        if log.committed < before:
            raise Violation(f"the commit index of {core.state.id:x} went back from {before} to {log.committed}")
        for index in range(max(before, log.base_index) + 1, log.committed + 1):
            term = log.term(index)
            assert term is not None
            known = self._committed.get(index)
            if known is None:
                self._check_majority(core, index, term)
                self._committed[index] = term
                self._committed_in[index] = core.state.term
            elif known != term:
                raise Violation(f"entry {index} is committed with terms {known} and {term}")

    def _check_majority(self, core: Raft, index: int, term: int) -> None:
        """When first known to be committed, an entry (or what followed it) is on the disks of a majority.

        With a membership change among the newly committed, the majority may be that of either configuration.
        """
        history = [held.configuration for held in core.state.config_history[-3:]]
        if not any(self._stored_by_majority(c.voters(), index, term) for c in history):
            raise Violation(f"{core.state.id:x} holds {index} for committed, but no majority has it on disk")

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
            raise Violation(f"one vote per term: {voter:x} voted for {known:x} and for {candidate:x} in term {term}")
