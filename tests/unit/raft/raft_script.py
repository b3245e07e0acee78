"""The language of the Raft transcripts: a few members whose every message, write and tick is commanded by hand.

cluster N [BYTES]       N voters, all timeouts equal (12 ticks); appends of at most BYTES (1: one entry each)
blank N                 an empty member, as one that joins starts
tick N [COUNT]          time passes for one member, 50 ms each
sleep MS [N..]          the clocks of all (or these) go on, but nothing ticks, as when a process was stopped
wait COUNT              time passes for all, everything is delivered in between; prints only changes of role
settle                  deliver and write until nothing is left; prints every message
quietly settle          the same without printing
deliver A->B [COUNT]    deliver the oldest messages of one direction
drop A->B               lose everything that is on its way in one direction
hold N / persist N      from now on N's writes wait / write what waits and go on as usual
cut A B.. / heal        whatever is sent to or by these members is lost / no longer
propose N DATA..        one batch of proposals
change N OP ID          OP is add-voter, add-learner or remove
campaign N / transfer N TO / read N CONTEXT / lost N PEER
lease N                 whether N may read alone now, and at which index
crash N / start N       power off, losing what was not written / on again
compact N               N takes a snapshot of what it applied, and forgets its log
status [N..]            what each member knows; entries are index/term, * marks the last one on disk
"""

from __future__ import annotations

from collections.abc import Callable

from pyswarm_manager.raft.core import election
from pyswarm_manager.raft.core.configuration import decode_change, encode_change
from pyswarm_manager.raft.core.messages import (
    Append,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from pyswarm_manager.raft.core.raft import Persist, Raft
from pyswarm_manager.raft.core.types import (
    ConfChange,
    ConfOperation,
    Entry,
    EntryKind,
    HardState,
    Options,
    ProposalRefused,
    Snapshot,
)
from pyswarm_manager.raft.storage.memory import MemoryStorage

TICK_US = 50_000


class ScriptMember:
    """One member and its disk."""

    def __init__(self, disk: MemoryStorage) -> None:
        self.disk = disk
        self.core: Raft | None = None
        self.is_holding = False
        self.held: Persist | None = None
        self.applied: list[str] = []
        self.now_us = 0


class RaftScript:
    """Runs one transcript's commands; each returns the lines it prints."""

    def __init__(self) -> None:
        self.members: dict[int, ScriptMember] = {}
        self.on_the_way: list[Message] = []
        self.cut: set[int] = set()
        self.lines: list[str] = []
        self.options = Options()

    def run(self, command: str) -> list[str]:
        """One command."""
        self.lines = []
        name, *words = command.split()
        if name == "quietly":
            self.run(" ".join(words))
            return []
        handler: Callable[..., None] = getattr(self, "_do_" + name)
        try:
            handler(*words)
        except ProposalRefused as refusal:
            self.lines.append(f"refused: {refusal}")
        return self.lines

    # -- commands ----------------------------------------------------------------------------------------------------

    def _do_cluster(self, size: str, max_append_bytes: str = "524288") -> None:
        self.__init__()  # type: ignore[misc]  # a transcript may hold several stories
        self.options = Options(max_append_bytes=int(max_append_bytes))
        ids = range(1, int(size) + 1)
        changes = [encode_change(ConfChange(ConfOperation.ADD_VOTER, i, f"host{i}")) for i in ids]
        entries = tuple(Entry(i, 1, EntryKind.CONFIG, change) for i, change in enumerate(changes, 1))
        for i in ids:
            self._begin(i, HardState(1, 0, len(entries)), entries)

    def _do_blank(self, i: str) -> None:
        self._begin(int(i), HardState(), ())

    def _begin(self, i: int, hard_state: HardState, entries: tuple[Entry, ...]) -> None:
        disk = MemoryStorage()
        disk.initialise(i, hard_state, entries)
        self.members[i] = ScriptMember(disk)
        self._do_start(str(i))
        self._do_sleep("1000", str(i))

    def _do_start(self, i: str) -> None:
        member = self.members[int(i)]
        stored = member.disk.load()
        assert stored is not None
        member.core = Raft(
            int(i),
            stored.hard_state,
            stored.snapshot,
            stored.entries,
            options=self.options,
            random_below=lambda limit: 0,
            now_us=member.now_us,
        )
        member.held, member.is_holding = None, False
        member.applied = stored.snapshot.data.decode().split()
        self._pump(int(i))

    def _do_crash(self, i: str) -> None:
        member = self.members[int(i)]
        member.core = None
        member.disk.crash()
        self.on_the_way = [m for m in self.on_the_way if m.sender != int(i)]

    def _do_tick(self, i: str, count: str = "1") -> None:
        for _ in range(int(count)):
            self._sleep_us(int(i), TICK_US)
            self._core(int(i)).tick()
            self._pump(int(i))

    def _do_sleep(self, milliseconds: str, *ids: str) -> None:
        for i in [int(i) for i in ids] or self._up():
            self._sleep_us(i, int(milliseconds) * 1000)

    def _sleep_us(self, i: int, duration_us: int) -> None:
        member = self.members[i]
        member.now_us += duration_us
        self._core(i).observe(member.now_us)

    def _do_lease(self, i: str) -> None:
        index = self._core(int(i)).leased_index(self.members[int(i)].now_us)
        self.lines.append(f"{i} must ask" if index is None else f"{i} may read at {index}")

    def _do_wait(self, count: str) -> None:
        for _ in range(int(count)):
            for i in self._up():
                self._do_tick(str(i))
            self._deliver_all(print_messages=False)

    def _do_settle(self) -> None:
        self._deliver_all(print_messages=True)

    def _deliver_all(self, *, print_messages: bool) -> None:
        while self.on_the_way:
            self._deliver(self.on_the_way.pop(0), print_message=print_messages)

    def _do_deliver(self, direction: str, count: str = "1") -> None:
        for _ in range(int(count)):
            messages = self._between(direction)
            assert messages, f"nothing is on its way {direction}"
            self.on_the_way.remove(messages[0])
            self._deliver(messages[0], print_message=True)

    def _do_drop(self, direction: str) -> None:
        for message in self._between(direction):
            self.on_the_way.remove(message)

    def _do_hold(self, i: str) -> None:
        self.members[int(i)].is_holding = True

    def _do_persist(self, i: str) -> None:
        member = self.members[int(i)]
        member.is_holding = False
        held, member.held = member.held, None
        if held is not None:
            self._write(int(i), held)
        self._pump(int(i))

    def _do_cut(self, *ids: str) -> None:
        self.cut |= {int(i) for i in ids}

    def _do_heal(self) -> None:
        self.cut.clear()

    def _do_propose(self, i: str, *datas: str) -> None:
        self._core(int(i)).propose([data.encode() for data in datas])
        self._pump(int(i))

    def _do_change(self, i: str, operation: str, raft_id: str) -> None:
        known = {
            "add-voter": ConfOperation.ADD_VOTER,
            "add-learner": ConfOperation.ADD_LEARNER,
            "remove": ConfOperation.REMOVE,
        }
        self._core(int(i)).propose_change(ConfChange(known[operation], int(raft_id), f"host{raft_id}"))
        self._pump(int(i))

    def _do_campaign(self, i: str) -> None:
        election.campaign(self._core(int(i)).state, pre=True)
        self._pump(int(i))

    def _do_transfer(self, i: str, to: str) -> None:
        self._core(int(i)).transfer(int(to))
        self._pump(int(i))

    def _do_read(self, i: str, context: str) -> None:
        if not self._core(int(i)).read_index(int(context)):
            self.lines.append("refused: no leader is known")
        self._pump(int(i))

    def _do_lost(self, i: str, peer: str) -> None:
        self._core(int(i)).transport_lost(int(peer))
        self._pump(int(i))

    def _do_compact(self, i: str) -> None:
        core, member = self._core(int(i)), self.members[int(i)]
        index = core.state.log.applied
        term = core.state.log.term(index)
        assert term is not None
        data = " ".join(member.applied).encode()
        snapshot = Snapshot(index, term, core.state.configuration_at(index), data)
        member.disk.save_snapshot(snapshot, core.compact(snapshot, keep=0))

    def _do_status(self, *ids: str) -> None:
        for i in [int(i) for i in ids] or sorted(self.members):
            self.lines.append(self._status(i))

    # -- the shell ---------------------------------------------------------------------------------------------------

    def _core(self, i: int) -> Raft:
        core = self.members[i].core
        assert core is not None, f"{i} is down"
        return core

    def _up(self) -> list[int]:
        return [i for i, member in sorted(self.members.items()) if member.core is not None]

    def _between(self, direction: str) -> list[Message]:
        sender, to = (int(i) for i in direction.split("->"))
        return [m for m in self.on_the_way if (m.sender, m.to) == (sender, to)]

    def _deliver(self, message: Message, *, print_message: bool) -> None:
        receiver = self.members.get(message.to)
        is_lost = receiver is None or receiver.core is None or bool({message.sender, message.to} & self.cut)
        if print_message:
            self.lines.append(describe(message) + (" (lost)" if is_lost else ""))
        if not is_lost:
            self._core(message.to).step(message)
            self._pump(message.to)

    def _pump(self, i: int) -> None:
        member = self.members[i]
        while True:
            ready = self._core(i).ready()
            self.on_the_way.extend(ready.immediate)
            if ready.soft_state is not None and ready.soft_state.term > 1:
                soft = ready.soft_state
                self.lines.append(
                    f"{i} is {soft.role.name.lower()} in term {soft.term}, leader {soft.leader_id or '-'}"
                )
            for entry in ready.committed:
                if entry.kind is EntryKind.NORMAL:
                    member.applied.append(entry.data.decode())
            self.lines.extend(f"{i} may read {read.context} at {read.index}" for read in ready.read_states)
            if ready.persist is None:
                if not ready.committed:
                    return
            elif member.is_holding and ready.persist.must_sync:
                member.held = ready.persist
            else:
                self._write(i, ready.persist)

    def _write(self, i: int, persist: Persist) -> None:
        member = self.members[i]
        if persist.must_sync:
            member.disk.save(persist.hard_state, persist.entries, persist.snapshot)
        self._core(i).persisted(persist)
        self.on_the_way.extend(persist.messages)
        if persist.snapshot is not None:
            member.applied = persist.snapshot.data.decode().split()

    def _status(self, i: int) -> str:
        member = self.members[i]
        if member.core is None:
            return f"{i} is down"
        state = member.core.state
        log = state.log
        entries = [
            f"{index}/{log.term(index)}" + ("*" if index == log.stable else "")
            for index in range(log.base_index, log.last_index + 1)
        ]
        voters = ",".join(map(str, state.voters))
        learners = ",".join(str(m) for m in sorted(state.configuration.members) if m not in state.voters)
        return (
            f"{i} {state.role.name.lower()} term {state.term} vote {state.vote or '-'} log {' '.join(entries)} "
            f"commit {log.committed} voters {voters}{' learners ' + learners if learners else ''} "
            f"applied [{' '.join(member.applied)}]"
        )


def describe(message: Message) -> str:
    """One message in one line."""
    return f"{message.sender}->{message.to} term {message.term} {_content(message)}"


def _content(message: Message) -> str:
    match message:
        case VoteRequest(last_index=index, last_term=term, pre=pre, transfer=transfer):
            return f"{'pre-vote' if pre else 'vote'}? last {index}/{term}{' (transfer)' if transfer else ''}"
        case VoteResponse(granted=granted, pre=pre):
            return f"{'pre-vote' if pre else 'vote'} {'yes' if granted else 'no'}"
        case Append(prev_index=index, prev_term=term, commit=commit, entries=entries):
            return f"append after {index}/{term} commit {commit} [{' '.join(map(_entry, entries))}]"
        case AppendResponse(index=index, rejected=True, hint_index=hint, hint_term=term):
            return f"appended no, differs at {index}, try {hint}/{term}"
        case AppendResponse(index=index):
            return f"appended up to {index}"
        case Heartbeat(commit=commit, round=round_):
            return f"heartbeat commit {commit} round {round_}"
        case HeartbeatResponse(round=round_):
            return f"heard round {round_}"
        case InstallSnapshot(snapshot=snapshot):
            return f"snapshot {snapshot.index}/{snapshot.term} [{snapshot.data.decode()}]"
        case TimeoutNow():
            return "campaign now"
        case ReadIndexRequest(context=context):
            return f"read {context}?"
        case ReadIndexResponse(context=context, index=index):
            return f"read {context} at {index}"


def _entry(entry: Entry) -> str:
    if entry.kind is EntryKind.CONFIG:
        change = decode_change(entry.data)
        return f"{entry.index}/{entry.term}:{change.operation.name.lower()}({change.raft_id})"
    return f"{entry.index}/{entry.term}:{entry.data.decode() or 'no-op'}"
