"""Raft stories as text in `tests/transcripts/raft`. UPDATE_TRANSCRIPTS=1 rewrites what they print; review the diff."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from raft_script import RaftScript

from pyswarm_manager.raft.core import leader, lease
from pyswarm_manager.raft.core.progress import Progress
from pyswarm_manager.raft.core.state import RaftState

TRANSCRIPTS = Path(__file__).parents[2] / "transcripts" / "raft"


def play(text: str) -> str:
    """The transcript with what its commands print now. Lines: `# comment`, `> command`, output, or nothing."""
    script = RaftScript()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("> "):
            lines.append(line)
            lines.extend(script.run(line[2:]))
        elif line.startswith("#") or not line:
            lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    text = path.read_text()
    played = play(text)
    if os.environ.get("UPDATE_TRANSCRIPTS") == "1":
        path.write_text(played)
    assert played == path.read_text()


def test_figure_8_is_told_differently_by_a_leader_that_counts_copies_of_old_entries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def maybe_commit(state: RaftState) -> None:
        if state.voters:
            state.commit_to(leader.committable_index(state))

    text = (TRANSCRIPTS / "figure_8.txt").read_text()
    monkeypatch.setattr(leader, "maybe_commit", maybe_commit)
    assert "1 leader term 4 vote 1 log 0/0 1/1 2/1 3/1 4/1 5/1 6/2 7/2 8/4* commit 7" in play(text)


# -- each bug in the lease tells its story differently; random faults hardly ever get there -------------------------


def _lease_counts_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    def renewed(state: RaftState, progress: Progress, sent_us: int) -> None:
        progress.acked_sent_us = state.now_us

    patch.setattr(lease, "renewed", renewed)


def _lease_outlives_promises(patch: pytest.MonkeyPatch) -> None:
    original = lease.holds
    patch.setattr(lease, "holds", lambda state, now_us: original(state, now_us - 300_000))


def _refusal_voids_the_promise(patch: pytest.MonkeyPatch) -> None:
    original = lease.is_promised

    def is_promised(state: RaftState) -> bool:
        return original(state) and not state.leader_is_refused

    patch.setattr(lease, "is_promised", is_promised)
    patch.setattr(
        RaftState,
        "hears_leader",
        lambda self: (
            self.role == 3
            or (
                self.leader_id != 0
                and not self.leader_is_refused
                and self.election_elapsed < self.options.election_ticks
            )
        ),
    )


def _transfer_keeps_the_lease(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lease, "give_up", lambda state: None)


def _restart_forgets_the_promise(patch: pytest.MonkeyPatch) -> None:
    original = RaftState.__init__

    def init(self: RaftState, *arguments: object, **named: object) -> None:
        original(self, *arguments, **named)  # type: ignore[arg-type]
        self.promised_until_us = self.now_us

    patch.setattr(RaftState, "__init__", init)


LEASE_BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "counts from the answer": _lease_counts_from_the_answer,
    "outlives promises": _lease_outlives_promises,
    "refusal voids the promise": _refusal_voids_the_promise,
    "transfer keeps it": _transfer_keeps_the_lease,
    "restart forgets the promise": _restart_forgets_the_promise,
}


@pytest.mark.parametrize("name", LEASE_BUGS)
def test_the_story_of_the_lease_is_told_differently_with_a_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (TRANSCRIPTS / "lease.txt").read_text()
    assert play(text) == text
    LEASE_BUGS[name](monkeypatch)
    assert play(text) != text
