"""The state of one member of the consensus group, and the few changes of it that every part shares.

It decides nothing about messages: `election`, `follower` and `leader` do, working on this state. It never does I/O;
what it wants sent waits in `immediate` or `after_persist` until the shell takes it.
"""

from __future__ import annotations

from collections.abc import Callable

from pyswarm_manager.raft.core.configuration import apply_change, decode_change
from pyswarm_manager.raft.core.log import RaftLog
from pyswarm_manager.raft.core.messages import Message
from pyswarm_manager.raft.core.progress import Progress
from pyswarm_manager.raft.core.reads import ReadQueue
from pyswarm_manager.raft.core.types import (
    NOBODY,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Options,
    ReadState,
    Role,
    SoftState,
)

RandomBelow = Callable[[int], int]
"""Gives an integer in [0, n)."""


class RaftState:
    """One member. See the paper for `term`, `vote` and `role`; times are in ticks."""

    __slots__ = (
        "after_persist",
        "config_history",
        "configuration",
        "election_elapsed",
        "election_timeout",
        "heartbeat_elapsed",
        "hurried_campaigns",
        "id",
        "immediate",
        "leader_id",
        "leader_is_refused",
        "log",
        "now",
        "options",
        "pending_conf_index",
        "progress",
        "random_below",
        "read_states",
        "reads",
        "role",
        "term",
        "term_start_index",
        "transfer_elapsed",
        "transfer_is_told",
        "transferee",
        "vote",
        "voters",
        "votes",
    )

    def __init__(
        self, raft_id: int, log: RaftLog, hard_state: HardState, options: Options, random_below: RandomBelow
    ) -> None:
        self.id = raft_id
        self.options = options
        self.random_below = random_below
        self.log = log
        self.term, self.vote = hard_state.term, hard_state.vote
        self.role = Role.FOLLOWER
        self.leader_id = NOBODY
        self.votes: dict[int, bool] = {}
        self.progress: dict[int, Progress] = {}
        self.reads = ReadQueue(options.max_pending_reads)
        self.now = self.election_elapsed = self.heartbeat_elapsed = 0
        self.leader_is_refused = False  # our connection to the leader broke and was refused: its lease is void
        self.hurried_campaigns = 0  # how many pre-votes may still be retried soon
        self.transferee = NOBODY
        self.transfer_elapsed = 0
        self.transfer_is_told = False
        self.pending_conf_index = 0  # a membership change at or below this index may not have taken effect yet
        self.term_start_index = 0  # the index of our no-op, while leading
        self.immediate: list[Message] = []
        self.after_persist: list[Message] = []
        self.read_states: list[ReadState] = []
        self.config_history: list[tuple[int, Configuration]] = []
        self.configuration = Configuration()
        self.voters: tuple[int, ...] = ()
        self.set_configuration(log.snapshot.index, log.snapshot.configuration)
        self.commit_to(max(hard_state.commit, log.committed))
        self.election_timeout = 0
        self.reset_election_timeout()

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def soft_state(self) -> SoftState:
        return SoftState(self.term, self.role, self.leader_id)

    @property
    def hard_state(self) -> HardState:
        return HardState(self.term, self.vote, self.log.committed)

    def quorum(self) -> int:
        """How many voters are a majority."""
        return len(self.voters) // 2 + 1

    def is_voter(self) -> bool:
        return self.id in self.voters

    def hears_leader(self) -> bool:
        """Whether a leader was heard lately, so that others' candidacies are only a disturbance (thesis §4.2.3)."""
        if self.role is Role.LEADER:
            return True
        return (
            self.leader_id != NOBODY
            and not self.leader_is_refused
            and self.election_elapsed < self.options.election_ticks
        )

    def rank_without(self, peer: int) -> int:
        """Our place among the voters other than `peer`: members that lose a leader together campaign one by one."""
        return sum(1 for voter in self.voters if voter not in (peer, self.id) and voter < self.id)

    # -- changes -------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send at once: this message promises nothing that a crash could take back."""
        self.immediate.append(message)

    def send_after_persist(self, message: Message) -> None:
        """Send once everything that changed up to now is on disk, since the message promises it."""
        self.after_persist.append(message)

    def become_follower(self, term: int, leader_id: int) -> None:
        """Follow. A vote is forgotten only with its term."""
        if term > self.term:
            self.term, self.vote = term, NOBODY
        self.role = Role.FOLLOWER
        self.leader_id = leader_id
        if leader_id != NOBODY:
            self.leader_is_refused, self.hurried_campaigns = False, 0
        self.forget_candidacy_and_lead()
        self.reset_election_timeout()

    def forget_candidacy_and_lead(self) -> None:
        """Whatever belonged to the role that ended."""
        self.votes = {}
        self.progress = {}
        self.reads = ReadQueue(self.options.max_pending_reads)
        self.transferee = NOBODY

    def reset_election_timeout(self) -> None:
        """Wait anew before campaigning: random, so that two rarely campaign together; short after a refusal."""
        self.election_elapsed = 0
        ticks = self.options.election_ticks
        self.election_timeout = ticks + self.random_below(ticks)

    def set_configuration(self, index: int, configuration: Configuration) -> None:
        """From `index` on this configuration holds."""
        self.configuration = configuration
        self.voters = configuration.voters()
        self.config_history.append((index, configuration))
        if self.role is not Role.LEADER:
            return
        peers = [peer for peer in configuration.members if peer != self.id]
        for peer in peers:
            if peer not in self.progress:
                self.progress[peer] = Progress(self.log.last_index + 1, self.now)
        for peer in [peer for peer in self.progress if peer not in configuration.members]:
            del self.progress[peer]

    def commit_to(self, index: int) -> None:
        """Mark entries as committed; membership changes among them take effect now."""
        for entry in self.log.commit_to(index):
            self.set_configuration(entry.index, apply_change(self.configuration, decode_change(entry.data)))

    def configuration_at(self, index: int) -> Configuration:
        """The configuration that held when `index` was applied (for a snapshot of that moment)."""
        held = self.config_history[0][1]
        for since, configuration in self.config_history:
            if since <= index:
                held = configuration
        return held

    def forget_configurations_before(self, index: int) -> None:
        """A snapshot at `index` is stored: no earlier moment will be asked for."""
        held = self.configuration_at(index)
        self.config_history = [(index, held)] + [(i, c) for i, c in self.config_history if i > index]

    def append_own(self, kind: EntryKind, datas: list[bytes]) -> int:
        """Append entries of this term (leader only); the index of the first."""
        first = self.log.last_index + 1
        self.log.append([Entry(index, self.term, kind, data) for index, data in enumerate(datas, first)])
        return first
