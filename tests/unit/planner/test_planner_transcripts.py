"""Planner stories as text in `tests/transcripts/planner`. UPDATE_TRANSCRIPTS=1 rewrites them; review the diff."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from planner_script import PlannerScript

TRANSCRIPTS = Path(__file__).parents[2] / "transcripts" / "planner"


def play(text: str) -> str:
    """The transcript with what its commands print now. Lines: `# comment`, `> command`, output, or nothing."""
    script = PlannerScript()
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
    played = play(path.read_text())
    if os.environ.get("UPDATE_TRANSCRIPTS") == "1":
        path.write_text(played)
    assert played == path.read_text()
