"""When a snapshot of our own state is made, and how: captured on the loop, encoded in a thread beside it.

Capturing must be quick, since nothing else runs meanwhile; encoding may take its time, since nothing waits for it: the
log is shortened once it is done. One at a time. A snapshot that a leader's overtook is dropped. Never touches the disk:
the loop stores what `finished` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future

import msgspec

from pyswarm_manager.raft.core.raft import Raft
from pyswarm_manager.raft.core.types import Configuration, Entry, Snapshot
from pyswarm_manager.raft.ports import RaftConfig, StateMachine


class _Captured(msgspec.Struct, frozen=True):
    """The moment whose state is being encoded."""

    index: int
    term: int
    configuration: Configuration
    data: Future[bytes]


class Snapshots:
    """Counts what is applied, and makes a snapshot of it now and then."""

    def __init__(self, core: Raft, machine: StateMachine, encoder: Executor) -> None:
        self._core, self._machine, self._encoder = core, machine, encoder
        self._entries = self._bytes = 0  # applied since the last snapshot
        self._captured: _Captured | None = None

    def applied(self, entries: Sequence[Entry]) -> None:
        """These are in the state now."""
        self._entries += len(entries)
        self._bytes += sum(len(entry.data) for entry in entries)

    def restored(self) -> None:
        """The state is that of a leader's snapshot."""
        self._entries = self._bytes = 0

    def begin(self, config: RaftConfig, applied_index: int, tell: Callable[[], object]) -> None:
        """Capture the state, if enough was applied. `tell` is called, in another thread, once it is encoded."""
        state = self._core.state
        if not self._is_enough(config) or self._captured is not None or state.log.applied != applied_index:
            return
        term = state.log.term(applied_index)
        assert term is not None
        data = self._encoder.submit(self._machine.capture())
        data.add_done_callback(lambda _: tell())
        self._captured = _Captured(applied_index, term, state.configuration_at(applied_index), data)
        self._entries = self._bytes = 0

    def _is_enough(self, config: RaftConfig, patience: int = 1) -> bool:
        if self._entries < config.snapshot_entries * patience and self._bytes < config.snapshot_bytes * patience:
            return False
        # While a follower is given a snapshot, the entries after that one are kept for it, within reason.
        return patience > 1 or not self._core.is_sending_snapshot() or self._is_enough(config, patience=3)

    def finished(self) -> Snapshot | None:
        """The snapshot, once, when it is encoded. Raises what encoding raised."""
        captured = self._captured
        if captured is None or not captured.data.done():
            return None
        self._captured = None
        if captured.index <= self._core.state.log.snapshot.index:
            return None
        return Snapshot(captured.index, captured.term, captured.configuration, captured.data.result())
