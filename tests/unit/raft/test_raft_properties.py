"""Properties of the parts the core is built of."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_manager.raft.core import lease
from pyswarm_manager.raft.core.configuration import apply_change, decode_change, encode_change
from pyswarm_manager.raft.core.leader import committable_index
from pyswarm_manager.raft.core.log import RaftLog
from pyswarm_manager.raft.core.progress import Progress
from pyswarm_manager.raft.core.state import RaftState
from pyswarm_manager.raft.core.types import (
    ConfChange,
    Configuration,
    ConfOperation,
    Entry,
    EntryKind,
    HardState,
    Member,
    MemberRole,
    Options,
    Role,
    Snapshot,
)
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_manager.raft.storage.sealer import AesGcmSealer
from pyswarm_manager.raft.storage.sqlite import SqliteStorage

terms = st.lists(st.integers(1, 4), max_size=12).map(sorted)


def make_log(log_terms: list[int]) -> list[Entry]:
    return [Entry(index, term, EntryKind.NORMAL, b"%d" % term) for index, term in enumerate(log_terms, 1)]


@given(terms, terms, st.data())
def test_after_a_merge_the_logs_agree_up_to_what_is_acknowledged(
    ours: list[int], leaders: list[int], data: st.DataObject
) -> None:
    leader_log = make_log(leaders)
    log = RaftLog(Snapshot(), make_log(ours))
    prev = data.draw(st.integers(0, len(leader_log)))
    end = data.draw(st.integers(prev, len(leader_log)))
    agreed = log.merge(prev, leader_log[prev - 1].term if prev else 0, leader_log[prev:end])
    if agreed is None:
        assert [log.term(i) for i in range(1, log.last_index + 1)] == ours
    else:
        assert agreed == end
        assert [log.term(i) for i in range(prev + 1, end + 1)] == leaders[prev:end]
        assert log.stable <= log.last_index


@given(terms, terms)
def test_a_leader_finds_a_place_where_the_logs_agree(ours: list[int], leaders: list[int]) -> None:
    """Probing with hints skips whole terms: no more questions than there are terms, and a few."""
    follower, leader = RaftLog(Snapshot(), make_log(ours)), RaftLog(Snapshot(), make_log(leaders))
    progress = Progress(leader.last_index + 1, 0)
    for _ in range(7):
        prev = progress.next - 1
        prev_term = leader.term(prev)
        assert prev_term is not None
        if follower.term(prev) == prev_term:
            break
        hint_index, hint_term = follower.conflict_hint(prev, prev_term)
        hint, _ = leader.conflict_hint(hint_index, hint_term)
        assert progress.reject(prev, hint)
    else:
        raise AssertionError("too many questions")
    assert follower.term(progress.next - 1) == leader.term(progress.next - 1)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 12), st.integers(0, 30), st.data())
def test_a_shortened_log_keeps_what_is_allowed_by_number_and_size(
    sizes: list[int], keep: int, keep_bytes: int, data: st.DataObject
) -> None:
    log = RaftLog(Snapshot(), [Entry(i, 1, EntryKind.NORMAL, bytes(size)) for i, size in enumerate(sizes, 1)])
    log.commit_to(len(sizes))
    log.take_committed(len(sizes))
    at = data.draw(st.integers(1, len(sizes)))
    first = log.compact(Snapshot(at, 1), keep, keep_bytes)
    kept = sizes[first - 1 : at]
    assert len(kept) <= keep
    assert sum(kept) <= keep_bytes
    assert log.base_index == first - 1
    assert first == 1 or len(kept) == keep or sum(kept) + sizes[first - 2] > keep_bytes


@given(st.dictionaries(st.integers(1, 9), st.integers(0, 20), min_size=1), st.integers(0, 20))
def test_what_is_committable_is_stored_by_a_majority_and_nothing_higher_is(matches: dict[int, int], own: int) -> None:
    members = {i: Member("", MemberRole.VOTER) for i in matches}
    log = RaftLog(Snapshot(0, 0, Configuration(members)), make_log([1] * 20))
    me = min(matches)
    state = RaftState(me, log, HardState(1, me, 0), Options(), lambda limit: 0)
    state.role = Role.LEADER
    log.stable = own
    for i, match in matches.items():
        state.progress[i] = Progress(1, 0)
        state.progress[i].match = match
    stored = [own if i == me else match for i, match in matches.items()]
    index = committable_index(state)
    majority = len(matches) // 2 + 1
    assert sum(s >= index for s in stored) >= majority
    assert sum(s > index for s in stored) < majority


@given(st.dictionaries(st.integers(2, 9), st.integers(0, 600_000)), st.integers(0, 10**9))
def test_a_lease_holds_exactly_while_a_majority_was_asked_lately_enough(ages: dict[int, int], now_us: int) -> None:
    members = {i: Member("", MemberRole.VOTER) for i in (1, *ages)}
    state = RaftState(
        1, RaftLog(Snapshot(0, 0, Configuration(members)), []), HardState(1, 1, 0), Options(), lambda n: 0
    )
    state.role, state.now_us = Role.LEADER, now_us
    for i, age_us in ages.items():
        state.progress[i] = Progress(1, 0)
        lease.renewed(state, state.progress[i], now_us - age_us)
    recent = 1 + sum(age_us < state.options.lease_us for age_us in ages.values())
    assert lease.holds(state, now_us) == (recent > len(members) / 2)
    assert not ages or not lease.holds(state, now_us + state.options.lease_us)
    assert state.options.lease_us < state.options.promise_us
    lease.give_up(state)
    assert not lease.holds(state, now_us)


changes = st.builds(ConfChange, st.sampled_from(ConfOperation), st.integers(1, 5), st.sampled_from(["a:1", "b:2"]))


@given(st.lists(changes, max_size=12))
def test_a_change_moves_at_most_one_voter_and_the_removed_stay_away(history: list[ConfChange]) -> None:
    configuration = Configuration()
    for change in history:
        assert decode_change(encode_change(change)) == change
        after = apply_change(configuration, change)
        assert len(set(after.voters()) ^ set(configuration.voters())) <= 1
        assert not set(after.removed) & set(after.members)
        assert set(configuration.removed) <= set(after.removed)
        configuration = after


operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3), st.integers(0, 4)),
        st.tuples(st.just("install"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("compact"), st.integers(0, 6), st.integers(0, 3)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(operations)
def test_both_storages_hold_the_same_after_any_history(history: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "raft.db"
        memory, sqlite = MemoryStorage(), SqliteStorage(path, AesGcmSealer(bytes(32)))
        for storage in (memory, sqlite):
            storage.initialise(7, HardState(), [])
        last, base, term = 0, 0, 1
        for kind, a, b in history:
            term += 1
            if kind == "append":
                first = max(base, last - a) + 1
                entries = [Entry(i, term, EntryKind.NORMAL, b"%d" % i) for i in range(first, first + b)]
                last = entries[-1].index if entries else last
                for storage in (memory, sqlite):
                    storage.save(HardState(term, a, base), entries, None)
            elif kind == "install":
                base = last = last + a
                for storage in (memory, sqlite):
                    storage.save(HardState(term, 0, base), [], Snapshot(base, term, Configuration(), b"state"))
            elif kind == "compact" and base < last:
                stored = memory.load()
                assert stored is not None
                at = stored.entries[min(a, len(stored.entries) - 1)]
                base = at.index
                for storage in (memory, sqlite):
                    storage.save_snapshot(Snapshot(at.index, at.term, Configuration(), b"own"), max(1, at.index - b))
            elif kind == "reopen":
                sqlite.close()
                sqlite = SqliteStorage(path, AesGcmSealer(bytes(32)))
                assert sqlite.load() == memory.load()
        sqlite.close()
        sqlite = SqliteStorage(path, AesGcmSealer(bytes(32)))
        assert sqlite.load() == memory.load()
        sqlite.close()
