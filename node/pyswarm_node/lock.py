"""One daemon per state directory and per run directory: a lock that ends with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from pyswarm_common.errors import FailedPrecondition

_PATIENCE_S = 2.0


class DirectoryLock:
    """Held while it is open. The descriptor is not inherited, so no child keeps it."""

    def __init__(self, directory: Path) -> None:
        """Raises FailedPrecondition if another daemon holds it."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / "pyswarmd.lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(directory)
        except BaseException:
            os.close(self._descriptor)
            raise
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def _take(self, directory: Path) -> None:
        """A daemon that was just killed may keep it for a moment, in a child between fork and exec."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
                if _is_alive(holder) or time.monotonic() > deadline:
                    raise FailedPrecondition(
                        f"another pyswarmd (pid {holder or 'unknown'}) uses {directory}: stop it, or choose another "
                        "directory"
                    ) from error
                time.sleep(0.02)
            else:
                return

    def release(self) -> None:
        os.close(self._descriptor)


def _is_alive(pid: str) -> bool:
    return pid.isdigit() and Path("/proc", pid).exists()
