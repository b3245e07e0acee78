"""What a leader knows of one follower, and how much it may send it.

PROBE: where the logs agree is not known; one message at a time. REPLICATE: they agree, so messages are sent ahead of
their answers, within a window of messages and bytes. SNAPSHOT: a snapshot is on its way, nothing else is sent.
"""

from __future__ import annotations

import enum
from collections import deque

NEVER_US = -(2**62)


class ProgressState(enum.IntEnum):
    """How the follower is being fed."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


class Progress:
    """One follower. `match` is known to be on its disk; `next` is the first entry to send."""

    __slots__ = (
        "acked_round",
        "acked_sent_us",
        "disk_is_full",
        "inflight",
        "inflight_bytes",
        "last_heard",
        "match",
        "next",
        "poke",
        "probe_sent",
        "sent_commit",
        "snapshot_index",
        "snapshot_sent_at",
        "state",
    )

    def __init__(self, next_index: int, now: int) -> None:
        self.match = 0
        self.next = next_index
        self.state = ProgressState.PROBE
        self.probe_sent = False
        self.inflight: deque[tuple[int, int]] = deque()  # (last index, bytes) of each message on its way
        self.inflight_bytes = 0
        self.last_heard = now  # in ticks
        self.acked_round = 0  # the highest heartbeat round it answered
        self.acked_sent_us = NEVER_US  # when we sent the latest heartbeat that it answered
        self.disk_is_full = False  # it said so: it acknowledges nothing for now
        self.sent_commit = 0  # the highest commit index it was told
        self.poke = False  # answers fail to come: send an empty append, whose refusal shows what was lost
        self.snapshot_index = 0
        self.snapshot_sent_at = 0

    def become_probe(self) -> None:
        """Find out again where the logs agree."""
        if self.state is ProgressState.SNAPSHOT:
            self.next = max(self.match, self.snapshot_index) + 1
        else:
            self.next = self.match + 1
        self._enter(ProgressState.PROBE)

    def become_replicate(self) -> None:
        """The logs agree up to `match`: send ahead."""
        self.next = self.match + 1
        self._enter(ProgressState.REPLICATE)

    def become_snapshot(self, index: int, now: int) -> None:
        """Wait for the follower to take a snapshot."""
        self._enter(ProgressState.SNAPSHOT)
        self.snapshot_index, self.snapshot_sent_at = index, now

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.probe_sent = self.poke = False
        self.inflight.clear()
        self.inflight_bytes = 0
        self.snapshot_index = 0

    def sent(self, last_index: int, size: int) -> None:
        """Entries up to `last_index` are on their way."""
        self.next = last_index + 1
        self.inflight.append((last_index, size))
        self.inflight_bytes += size

    def is_full(self, max_messages: int, max_bytes: int) -> bool:
        """Whether the window is used up."""
        return len(self.inflight) >= max_messages or self.inflight_bytes >= max_bytes

    def acknowledge(self, index: int) -> bool:
        """The follower has everything up to `index`; whether that is news."""
        while self.inflight and self.inflight[0][0] <= index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        is_news = index > self.match
        self.match = max(self.match, index)
        self.next = max(self.next, index + 1)
        return is_news

    def reject(self, rejected: int, hint: int) -> bool:
        """The logs differ at `rejected`; whether that was about what we last sent (messages may be old or doubled)."""
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            self.become_probe()
            return True
        if self.state is ProgressState.SNAPSHOT or self.next - 1 != rejected:
            return False
        self.next = max(min(rejected, hint + 1), self.match + 1)
        self.probe_sent = False
        return True
