"""Small files that are written whole or not at all.

A reader sees the old content or the new one. What is durable also survives a power cut, names included; what is not,
only the end of this process.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Replace a file durably; only its owner may read it, or see into the directories that are made for it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, content, durable=True)


def write_whole(path: Path, content: bytes, *, durable: bool = False, mode: int = 0o600) -> None:
    """Replace a file in one step."""
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # should a draft of another mode lie there
        file.write(content)
        file.flush()
        if durable:
            os.fsync(descriptor)
    draft.rename(path)
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """The names in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole file. Raises ValueError where it is longer than anything that we would have written."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than {limit} bytes")
    return data


def remove_from_folder(path: Path) -> None:
    """The file, if it is there; and its folder when it was the last in it."""
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()
