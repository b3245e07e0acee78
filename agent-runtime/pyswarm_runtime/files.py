"""Directories that the users of a container see."""

from __future__ import annotations

from pathlib import Path


def make_open_directory(path: Path) -> None:
    """Open to all (0755), whatever this process's umask keeps from others."""
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
