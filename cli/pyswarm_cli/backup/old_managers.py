"""Whether managers of a backup's swarm still answer. A restore beside them makes a second swarm with the same identity.

Looks from this machine only, and at no more than whether somebody takes a connection: silence proves nothing, so the
plan of a restore says in any case that they must be down.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pyswarm_cli.failures import one_line
from pyswarm_common.backup.container import KnownManager
from pyswarm_common.errors import FailedPrecondition

_PATIENCE_S = 1.0
_AT_ONCE = 16


def check_silent(managers: Sequence[KnownManager], answers: Callable[[str], bool]) -> None:
    """Raises FailedPrecondition when one of them takes connections at its address."""
    if not managers:
        return
    with ThreadPoolExecutor(min(len(managers), _AT_ONCE)) as pool:
        found = pool.map(answers, [manager.address for manager in managers])
        answering = [manager for manager, is_there in zip(managers, found, strict=True) if is_there]
    if answering:
        who = ", ".join(f"{one_line(manager.hostname)} ({one_line(manager.address)})" for manager in answering)
        raise FailedPrecondition(
            f"still answering: {who}. If they are managers of this swarm, there would be two of it: let them leave "
            "first (`pyswarm leave --force` there), or restore all the same with --force"
        )


def answers_elsewhere(address: str) -> bool:
    """Whether another machine than this takes a connection at HOST:PORT. This one is in no swarm."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        if _is_here(host):
            return False
        with socket.create_connection((host, int(port)), timeout=_PATIENCE_S):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def _is_here(host: str) -> bool:
    """Only an own address can be bound."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as own:
        try:
            own.bind((host, 0))
        except OSError:
            return False
        return True
