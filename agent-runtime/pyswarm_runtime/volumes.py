"""Local volumes: named directories that outlive containers."""

from __future__ import annotations

import re
from pathlib import Path

from pyswarm_common.errors import InvalidArgument

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


class VolumeStore:
    def __init__(self, root: Path) -> None:
        self._directory = root / "volumes"

    def ensure(self, name: str) -> Path:
        """The volume's directory, made at its first use."""
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"invalid volume name '{name}': use letters, digits and _.- after the first")
        path = self._directory / name / "_data"
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        return path
