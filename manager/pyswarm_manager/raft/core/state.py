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
    HeldConfiguration,
    Options,
    ReadState,
    Role,
    SoftState,
)

RandomBelow = Callable[[int], int]
"""Gives an integer in [0, n)."""

MAX_AFTER_PERSIST = 4096
"""Messages that wait for the disk; then the oldest is dropped, as if it had been lost."""


class RaftState:
    """One member. See the paper for `term`, `vote` and `role`; times are in ticks, or `_us` by the shell's clock."""

    __slots__ = (
        "after_persist",
        "committed_configuration",
        "config_history",
        "configuration",
        "disk_is_full",
        "election_elapsed",
        "election_timeout",
        "heartbeat_elapsed",
        "hurried_campaigns",
        "id",
        "immediate",
        "leader_id",
        "leader_is_refused",
        "lease_is_given_up",
        "log",
        "now",
        "now_us",
        "options",
        "pending_conf_index",
        "progress",
        "promised_until_us",
        "random_below",
        "read_states",
        "reads",
        "role",
        "stored_term",
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
        self,
        raft_id: int,
        log: RaftLog,
        hard_state: HardState,
        options: Options,
        random_below: RandomBelow,
        now_us: int = 0,
    ) -> None:
        self.id = raft_id
        self.options = options
        self.random_below = random_below
        self.log = log
        self.term, self.vote = hard_state.term, hard_state.vote
        self.stored_term = hard_state.term  # what is on disk
        self.disk_is_full = False  # nothing can be stored now, so nothing is promised
        self.role = Role.FOLLOWER
        self.leader_id = NOBODY
        self.votes: dict[int, bool] = {}
        self.progress: dict[int, Progress] = {}
        self.reads = ReadQueue(options.max_pending_reads)
        self.now = self.election_elapsed = self.heartbeat_elapsed = 0
        self.now_us = now_us
        # What a voter heard before it restarted is forgotten: it may have promised just then.
        self.promised_until_us = now_us + options.promise_us
        self.lease_is_given_up = False
        self.leader_is_refused = False  # our connection to the leader broke and was refused: it is probably dead
        self.hurried_campaigns = 0  # how many pre-votes may still be retried soon
        self.transferee = NOBODY
        self.transfer_elapsed = 0
        self.transfer_is_told = False
        self.pending_conf_index = 0  # a membership change at or below this index may not be committed yet
        self.term_start_index = 0  # the index of our no-op, while leading
        self.immediate: list[Message] = []
        self.after_persist: list[Message] = []
        self.read_states: list[ReadState] = []
        self.begin_configurations()
        self.follow_log()
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

    def may_campaign(self) -> bool:
        """Whoever is removed by an entry that is not committed yet may be the only one who has it (thesis §4.2.2). It
        asks those that it names, and does not count itself."""
        return self.is_voter() or self.id in self.committed_configuration.voters()

    def hears_leader(self) -> bool:
        """Whether a leader was heard lately, so that others' candidacies are only a disturbance (thesis §4.2.3)."""
        if self.role is Role.LEADER or self.now_us < self.promised_until_us:
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
        if len(self.after_persist) >= MAX_AFTER_PERSIST:
            del self.after_persist[0]  # the disk stands still; messages may be lost, so the sender asks again
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

    # -- the configuration ---------------------------------------------------------------------------------------

    def begin_configurations(self) -> None:
        """Nothing is known but the snapshot."""
        snapshot = self.log.snapshot
        self.config_history = [HeldConfiguration(snapshot.index, snapshot.term, snapshot.configuration)]
        self.committed_configuration = snapshot.configuration
        self._adopt(snapshot.configuration)

    def follow_log(self) -> None:
        """The log changed: membership changes in it hold, and those that were overwritten no longer do."""
        history, log = self.config_history, self.log
        while history[-1].index > log.committed and log.term(history[-1].index) != history[-1].term:
            history.pop()
        for entry in log.changes_after(history[-1].index):
            changed = apply_change(history[-1].configuration, decode_change(entry.data))
            history.append(HeldConfiguration(entry.index, entry.term, changed))
        if history[-1].configuration is not self.configuration:
            self._adopt(history[-1].configuration)

    def _adopt(self, configuration: Configuration) -> None:
        """From now on this configuration counts. Who was removed is fed until that is committed (`leader`)."""
        self.configuration = configuration
        self.voters = configuration.voters()
        if self.role is Role.LEADER:
            for peer in configuration.members:
                if peer != self.id and peer not in self.progress:
                    self.progress[peer] = Progress(self.log.last_index + 1, self.now)

    def commit_to(self, index: int) -> None:
        """Mark entries as committed; membership changes among them can no longer be overwritten."""
        self.log.commit_to(index)
        if self.committed_configuration is not self.configuration:
            self.committed_configuration = self.configuration_at(self.log.committed)

    def configuration_at(self, index: int) -> Configuration:
        """The configuration as of the entry at `index` (for a snapshot of that moment)."""
        held = self.config_history[0].configuration
        for row in self.config_history:
            if row.index <= index:
                held = row.configuration
        return held

    def forget_configurations_before(self, index: int) -> None:
        """A snapshot at `index` is stored: no earlier moment will be asked for."""
        rows = self.config_history
        first = max(i for i, row in enumerate(rows) if i == 0 or row.index <= index)
        self.config_history = rows[first:]

    # -- the log ---------------------------------------------------------------------------------------------------

    def append_own(self, kind: EntryKind, datas: list[bytes]) -> int:
        """Append entries of this term (leader only); the index of the first."""
        first = self.log.last_index + 1
        self.log.append([Entry(index, self.term, kind, data) for index, data in enumerate(datas, first)])
        if kind is EntryKind.CONFIG:
            self.follow_log()
        return first
