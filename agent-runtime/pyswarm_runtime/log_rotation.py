"""Keeps the logs of running containers within their size: a look now and then, conmon's own limit in between."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from pyswarm_runtime.container_store import ContainerRecord, ContainerStore
from pyswarm_runtime.logs import rotate

LOOK_EVERY_S = 5.0
_REOPEN_LOG = b"2 0 0\n"  # conmon's control message


def rotate_logs(store: ContainerStore, records: Iterable[ContainerRecord]) -> None:
    """Blocking. One that cannot be rotated now (it ended, or its monitor does not listen) is looked at again later."""
    for record in records:
        with suppress(OSError):
            _rotate_log(store, record)


def _rotate_log(store: ContainerStore, record: ContainerRecord) -> None:
    paths, config = store.paths(record.id), record.config
    if not 0 < config.log_max_size < paths.log.stat().st_size:
        return
    # Opened first: without a reader at the other end this fails, and then nothing must be renamed.
    control = os.open(paths.bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        rotate(paths.log, config.log_max_files)
        os.write(control, _REOPEN_LOG)
    finally:
        os.close(control)
