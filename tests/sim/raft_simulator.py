"""A cluster of Raft cores in one process, in virtual time, from one seed.

Faults: messages dropped, delayed, doubled, reordered; one-way cuts; power cuts that lose what was not synced, and kills
that do not; restarts; slow disks; frozen processes; clocks that run at different speeds; false and true reports of lost
connections.
Workload: writes, linearizable reads, with and without a lease, members that join and leave, leadership transfers,
snapshots. `RaftChecker` looks at every event; after the faults the cluster is healed and
must converge. All randomness comes from the seed, so a failure is repeated by its seed alone.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from raft_checker import RaftChecker

from pyswarm_manager.raft.core.configuration import encode_change
from pyswarm_manager.raft.core.messages import Message
from pyswarm_manager.raft.core.raft import Persist, Raft
from pyswarm_manager.raft.core.types import (
    ConfChange,
    ConfOperation,
    Entry,
    EntryKind,
    HardState,
    MemberRole,
    Options,
    ProposalRefused,
    Role,
    Snapshot,
)
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_simulator.checks.violation import Violation

TICK = 50_000  # microseconds
SECOND = 1_000_000
MAX_MEMBERS = 7
CLOCK_SPEEDS = (960, 1040)  # per thousand; what a lease leaves for drift is 20 %


@dataclass
class Faults:
    """How bad it is. Probabilities per message; intervals in seconds of virtual time, on average."""

    drop: float = 0.05
    duplicate: float = 0.03
    slow: float = 0.05  # delayed by up to half a second, so overtaken by later messages
    crash_every: float = 3.0
    cut_every: float = 2.0
    churn_every: float = 4.0
    transfer_every: float = 5.0
    false_alarm_every: float = 3.0
    freeze_every: float = 4.0
    slow_disk: float = 0.05
    topple: float = 0.1  # how likely a leader crashes just after it was elected (figure 8 of the paper)


@dataclass
class PlantedBug:
    """What a broken shell would do; broken cores are patched by the tests."""

    send_before_persist: bool = False
    skip_sync: bool = False


@dataclass
class SimMember:
    """One manager: a core, a disk, and a state machine that is a chain of digests."""

    id: int
    disk: MemoryStorage
    core: Raft | None = None
    incarnation: int = 0
    applied: int = 0
    digest: bytes = b""
    waiting: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # own proposals: index -> (term, data)
    reads: dict[int, int] = field(default_factory=dict)  # context -> what must at least be seen
    confirmed: list[tuple[int, int]] = field(default_factory=list)  # (index, floor) of reads that wait to be applied
    since_snapshot: int = 0
    clock_speed: int = 1000
    clock_start: int = 0
    is_frozen: bool = False
    backlog: list[Callable[[], None]] = field(default_factory=list)  # what happens to it once it goes on


class RaftSimulator:
    """Run with `run()`; `trace` has one line per event."""

    def __init__(self, seed: int, faults: Faults | None = None, bug: PlantedBug | None = None) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.faults = faults or Faults()
        self.bug = bug or PlantedBug()
        self.now = 0
        self.trace: list[str] = []
        self.members: dict[int, SimMember] = {}
        self.cut: set[tuple[int, int]] = set()
        self.checker = RaftChecker()
        self.is_faulty = True
        self.writes = 0
        self.reads = 0
        self.leased_reads = 0
        self._sequence = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        # Small messages make partial replication common; nearly equal timeouts make candidates collide.
        self.options = Options(max_append_bytes=self.rng.choice((1, 60, 400, 4000)), max_inflight_messages=4)
        self.timeout_spread = self.rng.choice((1, 1, 8))
        first = range(1, self.rng.choice((2, 3, 3, 5)) + 1)
        entries = tuple(
            Entry(i, 1, EntryKind.CONFIG, encode_change(ConfChange(ConfOperation.ADD_VOTER, i, f"host{i}")))
            for i in first
        )
        self.checker.first_entries(entries)
        for i in first:
            self._new_member(i, HardState(1, 0, len(entries)), entries)
        self._next_id = len(first) + 1

    # -- the run -----------------------------------------------------------------------------------

    def run(self, fault_seconds: float = 12.0) -> None:
        """Faults, then healing and convergence. Raises Violation or AssertionError."""
        for action, every in (
            (self._write, 0.04),
            (self._read, 0.1),
            (self._crash, self.faults.crash_every),
            (self._cut, self.faults.cut_every),
            (self._churn, self.faults.churn_every),
            (self._transfer, self.faults.transfer_every),
            (self._false_alarm, self.faults.false_alarm_every),
            (self._freeze, self.faults.freeze_every),
        ):
            self._repeat(action, every)
        self._run_until(int(fault_seconds * SECOND))
        self._heal()
        self._run_until(self.now + 8 * SECOND)
        self._quiesce_and_check()

    def _run_until(self, end: int) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = end

    def _at(self, delay: int, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (self.now + max(1, delay), self._sequence, action))

    def _repeat(self, action: Callable[[], None], every: float) -> None:
        def again() -> None:
            action()
            self._at(int(self.rng.expovariate(1 / every) * SECOND), again)

        self._at(int(self.rng.expovariate(1 / every) * SECOND), again)

    def _note(self, line: str) -> None:
        self.trace.append(f"{self.now / SECOND:.6f} {line}")

    # -- members -----------------------------------------------------------------------------------

    def _new_member(self, i: int, hard_state: HardState, entries: tuple[Entry, ...]) -> None:
        disk = MemoryStorage()
        disk.initialise(i, hard_state, entries)
        self.members[i] = SimMember(i, disk)
        self._start(self.members[i])

    def _start(self, member: SimMember) -> None:
        stored = member.disk.load()
        assert stored is not None
        member.clock_start = self.rng.randrange(3600 * SECOND) - self.now  # as after a reboot
        member.clock_speed = self.rng.randrange(*CLOCK_SPEEDS)
        member.core = Raft(
            member.id,
            stored.hard_state,
            stored.snapshot,
            stored.entries,
            options=self.options,
            random_below=self._random_below,
            now_us=self._clock(member),
        )
        member.incarnation += 1
        member.applied, member.digest = stored.snapshot.index, stored.snapshot.data
        member.since_snapshot = 0
        self._note(f"start {member.id} term {stored.hard_state.term} last {member.core.state.log.last_index}")
        self._tick_again(member, member.incarnation)
        self._pump(member)

    def _clock(self, member: SimMember) -> int:
        return member.clock_start + self.now * member.clock_speed // 1000

    def _awake(self, member: SimMember, action: Callable[[], None]) -> None:
        """Something happens to a member that is up, or will once its process goes on."""
        if member.is_frozen:
            member.backlog.append(action)
        elif member.core is not None:
            member.core.observe(self._clock(member))
            action()
            self._pump(member)

    def _random_below(self, limit: int) -> int:
        return self.rng.randrange(max(1, limit // self.timeout_spread))

    def _tick_again(self, member: SimMember, incarnation: int) -> None:
        def tick() -> None:
            if member.core is not None and member.incarnation == incarnation:
                member.core.tick()
                self._tick_again(member, incarnation)

        self._at(TICK + self.rng.randrange(-5000, 5000), lambda: self._awake(member, tick))

    def _stop(self, member: SimMember) -> None:
        """Power off, and whatever was not synced is lost; or kill -9, and the next process finds what was written."""
        member.core = None
        member.is_frozen = False
        member.backlog.clear()
        if self.rng.random() < 0.7:
            member.disk.crash()
        member.waiting.clear()
        member.reads.clear()
        member.confirmed.clear()

    def _up(self) -> list[SimMember]:
        """Who runs now."""
        return [member for member in self.members.values() if member.core is not None and not member.is_frozen]

    def _leaders(self) -> list[SimMember]:
        return [m for m in self._up() if m.core is not None and m.core.state.role is Role.LEADER]

    # -- the shell ---------------------------------------------------------------------------------

    def _pump(self, member: SimMember) -> None:
        """Do what the core says, as the driver would."""
        for _ in range(100):
            core = member.core
            assert core is not None
            ready = core.ready(apply_limit=64)
            self.checker.looked_at(core)
            self._send(ready.immediate)
            if ready.persist is not None:
                self._persist(member, ready.persist)
            for entry in ready.committed:
                self._apply(member, entry)
            for read in ready.read_states:
                if read.context in member.reads:
                    member.confirmed.append((read.index, member.reads.pop(read.context)))
            self._finish_reads(member)
            if ready.soft_state is not None:
                soft = ready.soft_state
                self._note(f"role {member.id} {soft.role.name} term {soft.term} leader {soft.leader_id}")
                if soft.role is not Role.LEADER:
                    member.waiting.clear()
                elif self.is_faulty and self.rng.random() < self.faults.topple:
                    self._at(self.rng.randrange(20_000), lambda: self._power_cycle(member, 0.3))
            self._maybe_snapshot(member)
            if ready.persist is None and not ready.committed:
                return
        raise AssertionError("the core always has something to do")

    def _persist(self, member: SimMember, persist: Persist) -> None:
        core, incarnation = member.core, member.incarnation
        assert core is not None
        if not persist.must_sync:
            core.persisted(persist)
            self._send(persist.messages)
            return
        if self.bug.send_before_persist:
            self._send(persist.messages)
        member.disk.write(persist.hard_state, persist.entries, persist.snapshot)

        def synced() -> None:
            if member.core is not core or member.incarnation != incarnation:
                return  # it crashed before the sync
            if not self.bug.skip_sync:
                member.disk.sync()
                self.checker.synced(member.id, member.disk)
            core.persisted(persist)
            if not self.bug.send_before_persist:
                self._send(persist.messages)
            if persist.snapshot is not None:
                member.applied, member.digest = persist.snapshot.index, persist.snapshot.data
                member.since_snapshot = 0
                self._note(f"restore {member.id} {persist.snapshot.index}")

        is_slow = self.is_faulty and self.rng.random() < self.faults.slow_disk
        delay = self.rng.randrange(100_000) if is_slow else self.rng.randrange(200, 3000)
        self._at(delay, lambda: self._awake(member, synced))

    def _apply(self, member: SimMember, entry: Entry) -> None:
        assert entry.index == member.applied + 1, "entries are applied in order, each once"
        member.applied = entry.index
        member.since_snapshot += 1
        content = b"%d %d %d " % (entry.index, entry.term, entry.kind) + entry.data
        member.digest = hashlib.blake2b(member.digest + content, digest_size=16).digest()
        self.checker.applied(member.id, entry.index, member.digest)
        waiting = member.waiting.pop(entry.index, None)
        if waiting is not None and waiting == (entry.term, entry.data):
            self.checker.acknowledged(entry.index)
            self.writes += 1

    def _finish_reads(self, member: SimMember) -> None:
        for index, floor in [read for read in member.confirmed if read[0] <= member.applied]:
            self.checker.read(member.id, index, floor)
            self.reads += 1
        member.confirmed = [read for read in member.confirmed if read[0] > member.applied]

    def _maybe_snapshot(self, member: SimMember) -> None:
        core = member.core
        assert core is not None
        if member.since_snapshot < 40 or core.state.log.applied != member.applied:
            return
        term = core.state.log.term(member.applied)
        assert term is not None
        configuration = core.state.configuration_at(member.applied)
        snapshot = Snapshot(member.applied, term, configuration, member.digest)
        stored = member.disk.load()
        assert stored is not None
        if stored.hard_state.commit <= stored.snapshot.index + len(stored.entries):
            first_kept = core.compact(snapshot, keep=10)
            # The disk works in order: what was written before is synced with the snapshot.
            if not self.bug.skip_sync:
                member.disk.save_snapshot(snapshot, first_kept)
            member.since_snapshot = 0

    # -- the network -------------------------------------------------------------------------------

    def _send(self, messages: tuple[Message, ...]) -> None:
        for message in messages:
            self.checker.sent(message)
            if self.is_faulty and self.rng.random() < self.faults.drop:
                continue
            copies = 2 if self.is_faulty and self.rng.random() < self.faults.duplicate else 1
            for _ in range(copies):
                is_slow = self.is_faulty and self.rng.random() < self.faults.slow
                delay = self.rng.randrange(500_000) if is_slow else self.rng.randrange(200, 8000)
                self._at(delay, partial(self._deliver, message))

    def _deliver(self, message: Message) -> None:
        receiver = self.members.get(message.to)
        if receiver is None or receiver.core is None or (message.sender, message.to) in self.cut:
            return
        core = receiver.core

        def step() -> None:
            if message.sender not in core.state.committed_configuration.removed:
                self._note(f"{type(message).__name__} {message.sender}->{message.to} term {message.term}")
                core.step(message)

        self._awake(receiver, step)

    # -- the workload ------------------------------------------------------------------------------

    def _write(self) -> None:
        for leader in self._leaders():
            core = leader.core
            assert core is not None
            self._sequence += 1
            datas = [b"%d.%d" % (self._sequence, n) for n in range(self.rng.randrange(1, 4))]
            try:
                first = core.propose(datas)
            except ProposalRefused:
                continue
            for index, data in enumerate(datas, first):
                leader.waiting[index] = (core.state.term, data)
            self._pump(leader)

    def _read(self) -> None:
        """On one member, and on all that believe they lead: one of them may be wrong."""
        up = self._up()
        for member in [*self._leaders(), self.rng.choice(up)] if up else []:
            assert member.core is not None
            self._leased_read(member)
            self._sequence += 1
            if member.core.read_index(self._sequence):
                member.reads[self._sequence] = self.checker.highest_acknowledged
                self._pump(member)

    def _leased_read(self, member: SimMember) -> None:
        """As the driver does: the clock is read for this read, whatever the core was told before."""
        assert member.core is not None
        index = member.core.leased_index(self._clock(member))
        if index is not None:
            self.checker.read(member.id, index, self.checker.highest_acknowledged)
            self.leased_reads += 1

    def _transfer(self) -> None:
        for leader in self._leaders() if self.is_faulty else []:
            assert leader.core is not None
            voters = [v for v in leader.core.state.voters if v != leader.id]
            if voters:
                to = self.rng.choice(voters)
                self._note(f"transfer {leader.id}->{to}")
                leader.core.transfer(to)
                self._pump(leader)

    def _churn(self) -> None:
        """Add a learner, promote one that caught up, or remove somebody."""
        for leader in self._leaders() if self.is_faulty else []:
            change = self._pick_change(leader)
            if change is None:
                continue
            assert leader.core is not None
            try:
                leader.core.propose_change(change)
            except ProposalRefused:
                continue
            self._note(f"change {leader.id} {change.operation.name} {change.raft_id}")
            if change.raft_id not in self.members:
                self._new_member(change.raft_id, HardState(), ())
            self._pump(leader)

    def _pick_change(self, leader: SimMember) -> ConfChange | None:
        assert leader.core is not None
        state = leader.core.state
        for i, member in sorted(state.configuration.members.items()):
            progress = state.progress.get(i)
            if (
                member.role is MemberRole.LEARNER
                and progress is not None
                and progress.match > state.log.last_index - 20
            ):
                return ConfChange(ConfOperation.ADD_VOTER, i, member.address)
        members = state.configuration.members
        if len(members) < MAX_MEMBERS and self.rng.random() < 0.5:
            self._next_id += 1
            return ConfChange(ConfOperation.ADD_LEARNER, self._next_id, f"host{self._next_id}")
        if len(state.voters) > 1:
            return ConfChange(ConfOperation.REMOVE, self.rng.choice(state.voters))
        return None

    # -- faults ------------------------------------------------------------------------------------

    def _crash(self) -> None:
        if not self.is_faulty or not self._up():
            return
        victims = [self.rng.choice(self._up())]
        dice = self.rng.random()
        if dice < 0.15:
            victims = self._up()
        elif dice < 0.6:
            victims = self._leaders() or victims
        for victim in victims:
            self._power_cycle(victim, 1.0)

    def _power_cycle(self, victim: SimMember, down_s: float) -> None:
        """Down for about so long; most of the others notice at once."""
        if victim.core is None:
            return
        self._note(f"crash {victim.id}")
        self._stop(victim)
        self._at(int(self.rng.expovariate(1 / down_s) * SECOND), lambda: self._restart(victim))
        for other in self._up():
            if self.rng.random() < 0.7:
                self._at(self.rng.randrange(1000, 50_000), partial(self._report_lost, other, victim.id))

    def _restart(self, member: SimMember) -> None:
        if member.core is None:
            self._start(member)

    def _report_lost(self, member: SimMember, peer: int) -> None:
        core = member.core

        def lost() -> None:
            self._note(f"lost {member.id} {peer}")
            if core is not None:
                core.transport_lost(peer)

        self._awake(member, lost)

    def _false_alarm(self) -> None:
        if self.is_faulty and len(self._up()) > 1:
            member, peer = self.rng.sample(self._up(), 2)
            self._report_lost(member, peer.id)

    def _freeze(self) -> None:
        """SIGSTOP, of a leader more often than not; then the process goes on with whatever came meanwhile."""
        if not self.is_faulty or not self._up():
            return
        leaders = self._leaders()
        victim = self.rng.choice(leaders if leaders and self.rng.random() < 0.7 else self._up())
        self._note(f"freeze {victim.id}")
        victim.is_frozen = True
        incarnation = victim.incarnation
        self._at(int(self.rng.expovariate(1 / 0.8) * SECOND), lambda: self._thaw(victim, incarnation))

    def _thaw(self, member: SimMember, incarnation: int) -> None:
        if not member.is_frozen or member.incarnation != incarnation:
            return
        self._note(f"thaw {member.id}")
        member.is_frozen = False
        if self.rng.random() < 0.5:
            self._leased_read(member)  # a client's question may be what it sees first
        backlog, member.backlog = member.backlog, []
        for action in backlog:
            self._awake(member, action)

    def _cut(self) -> None:
        """Cut some directions, or heal them all."""
        if not self.is_faulty:
            return
        self.cut.clear()
        if self.rng.random() < 0.35:
            self._note("heal")
            return
        ids = sorted(self.members)
        if self.rng.random() < 0.5:
            side = self.rng.sample(ids, self.rng.randrange(1, len(ids)))
            pairs = [(a, b) for a in ids for b in ids if (a in side) != (b in side)]
        else:
            pairs = [(a, b) for a in ids for b in ids if a != b and self.rng.random() < 0.25]
        self.cut.update(pairs)
        self._note(f"cut {pairs}")
        for a, b in pairs:
            if self.rng.random() < 0.3:
                self._at(self.rng.randrange(1000, 100_000), partial(self._report_lost, self.members[a], b))

    # -- the end -----------------------------------------------------------------------------------

    def _heal(self) -> None:
        self._note("heal everything")
        self.is_faulty = False
        self.cut.clear()
        for member in self.members.values():
            self._thaw(member, member.incarnation)
            self._restart(member)

    def _quiesce_and_check(self) -> None:
        """One leader, whose every member has applied the same; reads and writes go through."""
        writes, reads = self.writes, self.reads
        self._run_until(self.now + 3 * SECOND)
        leaders = [m for m in self._leaders() if m.core is not None]
        self._require(len(leaders) == 1, f"{len(leaders)} leaders after healing")
        self._require(self.writes > writes, "no write went through after healing")
        self._require(self.reads > reads, "no read went through after healing")
        core = leaders[0].core
        assert core is not None
        target = core.state.log.committed
        self._run_until(self.now + 1 * SECOND)
        for i in core.state.configuration.members:
            member = self.members[i]
            self._require(member.applied >= target, f"{i} applied {member.applied} of {target} after healing")

    def _require(self, condition: bool, sentence: str) -> None:
        if not condition:
            raise Violation(f"no convergence: {sentence}")
