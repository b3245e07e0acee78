"""Raft stories as text in `tests/transcripts/raft`. UPDATE_TRANSCRIPTS=1 rewrites what they print; review the diff."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from raft_script import RaftScript

from pyswarm_manager.raft.core import leader
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
