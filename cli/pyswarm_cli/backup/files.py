"""A new file that appears under its name only when it is whole and on the disk, and is never written over another.

What arrives is read back and checked before it gets its name, so a stream that broke leaves nothing.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pyswarm_common.backup.container import Reader
from pyswarm_common.errors import AlreadyExists, FailedPrecondition
from pyswarm_common.files import sync_directory

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK}


def check_free(path: Path) -> None:
    """Refuse at once what would be refused at the end."""
    if os.path.lexists(path):
        raise _taken(path)


def save(path: Path, parts: Iterable[bytes]) -> int:
    """Write the backup; returns its size in bytes."""
    try:
        return _save(path, parts)
    except OSError as error:
        raise FailedPrecondition(f"cannot write {path}: {error.strerror or error}") from error


def _save(path: Path, parts: Iterable[bytes]) -> int:
    with _draft(path) as draft:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        with draft.open("rb") as file:
            size = Reader(file).check()
        _name(draft, path)
    sync_directory(path.parent)
    return size


def pipe(out: BinaryIO, parts: Iterable[bytes]) -> int:
    """Write it to standard output. Whoever reads there sees by its end whether it is whole."""
    size = 0
    for part in parts:
        out.write(part)
        size += len(part)
    out.flush()
    return size


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _name(draft: Path, path: Path) -> None:
    """A link fails where a rename would replace."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_free(path)
        draft.rename(path)


def _taken(path: Path) -> AlreadyExists:
    return AlreadyExists(f"{path} exists already: choose another name, or remove it")
