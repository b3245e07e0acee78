"""What must hold of a Raft cluster at every moment, and of what its clients were told; however it is run."""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm_manager.raft.core.types import Entry
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_simulator.checks.raft import RaftChecks
from pyswarm_simulator.checks.violation import Violation


class RaftChecker(RaftChecks):
    """The checks of the consensus, and those of state machines and reads."""

    def __init__(self) -> None:
        super().__init__()
        self.highest_acknowledged = 0
        self._digests: dict[int, bytes] = {}

    def first_entries(self, entries: Sequence[Entry]) -> None:
        """What every first member starts with."""
        for entry in entries:
            self._committed[entry.index] = entry.term

    def synced(self, member: int, disk: MemoryStorage) -> None:
        """This is what would survive."""
        self.began(member, disk)

    def applied(self, member: int, index: int, digest: bytes) -> None:
        """State machine safety: the digest of everything up to an index is the same everywhere."""
        if self._digests.setdefault(index, digest) != digest:
            raise Violation(f"{member} applied something else than others up to index {index}")

    def acknowledged(self, index: int) -> None:
        """A client was told that its write is made."""
        self.highest_acknowledged = max(self.highest_acknowledged, index)

    def read(self, member: int, index: int, floor: int) -> None:
        """A linearizable read sees every write that was acknowledged before it was asked for."""
        if index < floor:
            raise Violation(f"a read on {member} saw {index}, but {floor} was acknowledged before it")
