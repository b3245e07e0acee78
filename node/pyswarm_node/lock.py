"""One daemon per state directory and per run directory: a lock that ends with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pyswarm_common.errors import FailedPrecondition


class DirectoryLock:
    """Held while it is open. The descriptor is not inherited, so no child keeps it."""

    def __init__(self, directory: Path) -> None:
        """Raises FailedPrecondition if another daemon holds it."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / "pyswarmd.lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise FailedPrecondition(
                f"another pyswarmd (pid {holder or 'unknown'}) uses {directory}: stop it, or choose another directory"
            ) from error
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)
