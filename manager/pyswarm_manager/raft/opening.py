"""Before the loop runs: the first members of a new cluster, or what the disk holds of an old one; and the clock."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pyswarm_common.errors import FailedPrecondition
from pyswarm_manager.raft.core.configuration import encode_change
from pyswarm_manager.raft.core.types import (
    NOBODY,
    ConfChange,
    ConfOperation,
    Entry,
    EntryKind,
    HardState,
    LogLost,
    Options,
    Snapshot,
)
from pyswarm_manager.raft.ports import RaftConfig
from pyswarm_manager.raft.storage.port import RaftStorage, Stored


def clock_us() -> int:
    """Time that is never set, and that also passes while the machine sleeps or this process is stopped."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def options_of(config: RaftConfig) -> Options:
    """The core's view of it."""
    tick_us = int(config.tick_s * 1e6)
    return Options(
        heartbeat_ticks=config.heartbeat_ticks,
        election_ticks=config.election_ticks,
        max_append_bytes=config.max_append_bytes,
        max_inflight_messages=config.max_inflight_messages,
        lease_us=config.lease_ticks * tick_us,
        promise_us=config.promise_ticks * tick_us,
    )


def load_or_initialise(config: RaftConfig, storage: RaftStorage, bootstrap: Mapping[int, str] | None) -> Stored:
    """What the disk holds; on a fresh one, the first members as committed entries, alike on each of them."""
    stored = storage.load()
    if stored is not None:
        if stored.raft_id != config.raft_id:
            raise LogLost("the Raft log in this state directory was written under another raft id")
        if bootstrap is not None:
            raise FailedPrecondition("this state directory already belongs to a cluster: leave it first")
        return stored
    entries = tuple(
        Entry(index, 1, EntryKind.CONFIG, encode_change(ConfChange(ConfOperation.ADD_VOTER, raft_id, address)))
        for index, (raft_id, address) in enumerate(sorted((bootstrap or {}).items()), 1)
    )
    hard_state = HardState(1, NOBODY, len(entries)) if entries else HardState()
    storage.initialise(config.raft_id, hard_state, entries)
    return Stored(config.raft_id, hard_state, Snapshot(), entries)
