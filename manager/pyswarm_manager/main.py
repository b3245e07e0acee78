"""`pyswarm-manager`: reads its arguments, runs one `Manager`, and turns how it ended into one line and an exit code.

Started by pyswarmd; every line it writes goes to stderr. SIGTERM and SIGINT stop it, SIGHUP reloads its certificate.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from pyswarm_common.daemon_logs import tame_logs
from pyswarm_common.errors import PyswarmError
from pyswarm_common.identity.locks import KEY_BYTES, LockKey
from pyswarm_common.private_memory import keep_memory_private
from pyswarm_manager import rejoin
from pyswarm_manager.config import ManagerConfig, ManagerPaths
from pyswarm_manager.process import Manager, RemovedFromCluster
from pyswarm_manager.raft.core.types import LogLost
from pyswarm_manager.raft.storage.port import StorageCorrupt, StorageFailed, StorageFull

EXIT_REFUSED = 1
"""It cannot start, or cannot go on: the line on stderr says what to do."""
EXIT_REMOVED = 3
"""This manager was removed from the cluster: starting it again is of no use."""
EXIT_BUG = 70

NICENESS = -10

_LEVELS = ("debug", "info", "warning", "error")
_log = logging.getLogger("pyswarm_manager")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a manager until it is stopped."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=arguments.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    tame_logs()
    keep_memory_private()
    os.umask(0o077)
    _prefer()
    _calm_collector()
    master = _read_master_key() if arguments.locked else None
    paths = ManagerPaths(arguments.state_dir, arguments.run_dir)
    sys.exit(uvloop.run(_run(paths, arguments.known_manager, master)))


def _read_master_key() -> LockKey:
    """From standard input, where nobody else sees it."""
    return LockKey(sys.stdin.buffer.read(KEY_BYTES))


async def _run(paths: ManagerPaths, known_managers: Sequence[str], master: LockKey | None) -> int:
    """The exit code."""
    try:
        config = ManagerConfig.load(paths)
        manager = await rejoin.opened(config, paths, known_managers, lambda config: Manager.open(config, paths, master))
        _handle_signals(manager)
        await manager.run()
    except Exception as error:
        return _explain(error, paths)
    _log.info("stopped")
    return 0


def _prefer() -> None:
    """A host busy starting containers must not delay heartbeats and elections. Where it is not allowed, go without."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


def _calm_collector() -> None:
    """What was imported never becomes garbage, and calls leave few cycles: look less often, and not at everything.
    Measured: 10 to 20 % less time per write, and no long pauses."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _handle_signals(manager: Manager) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, manager.stop)
    loop.add_signal_handler(signal.SIGHUP, manager.reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # whoever starts us may have it wait until now


def _explain(error: Exception, paths: ManagerPaths) -> int:
    """One line for what can happen, a trace for a bug. The first cause of a group counts."""
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, RemovedFromCluster):
        _log.warning("this manager was removed from the cluster")
        return EXIT_REMOVED
    if isinstance(cause, LogLost):
        rejoin.mark_lost(paths, str(cause))
        _log.error("%s: this manager starts again and joins as a new member", cause)
        return EXIT_REFUSED
    if isinstance(cause, PyswarmError | StorageFailed | StorageFull | StorageCorrupt | OSError):
        _log.error("%s", cause)
        return EXIT_REFUSED
    _log.critical("the manager met a bug and ends", exc_info=error)
    return EXIT_BUG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pyswarm-manager", description="The control plane of one manager node.")
    parser.add_argument("--state-dir", type=Path, default=Path("/var/lib/pyswarm"))
    parser.add_argument("--run-dir", type=Path, default=Path("/run/pyswarm"))
    parser.add_argument(
        "--known-manager",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="another manager, to ask should the log of this one be lost; may be given more than once",
    )
    parser.add_argument(
        "--locked", action="store_true", help="the keys are locked: the machine's master key comes on standard input"
    )
    parser.add_argument("--log-level", choices=_LEVELS, default="info")
    return parser
