"""A manager that lost its log: it forgets who it was in Raft, and comes back as a new member.

What a member promised (its votes, its acknowledgements) is in its log alone. Without it, it must never speak under its
raft id again. So, before anything is sent: the damaged files go aside (`damaged-<time>`, the newest three are kept), a
new raft id is drawn, and the others are asked to let that one in; the leader then removes the old (`ca.membership`).
That takes a majority of the others, so nothing is done where no other manager is known: the files stay where they are,
and the refusal says what to do.

A log is lost when it is missing although one was begun, when it cannot be read, when it was written under another raft
id, when it ends before what this manager remembers of it (`standing`), and when the leader knows it to have been longer
(`LogLost`, while running: a mark is left for the next start). A log copied back together with everything else in the
directory, while nobody leads who knew it longer, cannot be told from the true one: see docs/raft.md.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.files import sync_directory, write_private
from pyswarm_common.random_ids import new_raft_id
from pyswarm_manager.config import ManagerConfig, ManagerPaths
from pyswarm_manager.raft.core.types import LogLost
from pyswarm_manager.raft.storage.port import StorageCorrupt
from pyswarm_manager.standing import Standing

_log = logging.getLogger(__name__)

KEPT_COPIES = 3
_DAMAGED = "damaged-"
M = TypeVar("M")


async def opened(
    config: ManagerConfig,
    paths: ManagerPaths,
    known: Sequence[str],
    open_manager: Callable[[ManagerConfig], Awaitable[M]],
) -> M:
    """What `open_manager` makes of the configuration; of a new raft id, where the log of the old one is lost.

    `known`: managers that the daemon knows of. Raises FailedPrecondition where the loss cannot be made good."""
    loss = _known_loss(config, paths)
    if loss is None:
        begun = config if config.has_log else replace(config, has_log=True)
        if begun is not config:
            begun.save(paths)
        try:
            return await open_manager(begun)
        except (StorageCorrupt, LogLost) as error:
            if paths.bootstrap.exists():  # the cluster is being made here: nobody else has it
                raise
            loss = str(error)
    return await open_manager(start_anew(config, paths, known, loss))


def mark_lost(paths: ManagerPaths, reason: str) -> None:
    """While running: the log is not what it was. The next start acts on it."""
    write_private(_mark(paths), reason.encode())


def _mark(paths: ManagerPaths) -> Path:
    return paths.directory / "log-is-lost"


def _known_loss(config: ManagerConfig, paths: ManagerPaths) -> str | None:
    """Why the log counts as lost, as far as that shows before it is opened."""
    try:
        return _mark(paths).read_text(errors="replace")
    except FileNotFoundError:
        pass
    if config.has_log and not paths.database.exists() and not paths.bootstrap.exists():
        return f"the Raft log {paths.database} is missing"
    return None


def check_not_older(paths: ManagerPaths, raft_id: int, last_index: int) -> None:
    """Raises LogLost if the log ends before what this manager remembers to have been in it."""
    standing = Standing.load(paths.standing)
    if standing.raft_id == raft_id and last_index < standing.index:
        raise LogLost(
            f"the Raft log {paths.database} ends at {last_index} and reached {standing.index} before: it was replaced "
            "by an older copy"
        )


def other_managers(config: ManagerConfig, standing: Standing, known: Sequence[str]) -> tuple[str, ...]:
    """Whom to ask, the likeliest first; without this manager. Nobody, where it was the only one at last, whoever there
    was before that."""
    own = config.advertise_address
    if standing.raft_id == config.raft_id and set(standing.members) == {config.raft_id}:
        return ()
    members = tuple(address for raft_id, address in standing.members.items() if raft_id != config.raft_id)
    candidates = (*members, *known, *config.join_addresses, *config.seeds, *standing.seeds)
    return tuple(address for address in dict.fromkeys(candidates) if address != own)


def start_anew(config: ManagerConfig, paths: ManagerPaths, known: Sequence[str], reason: str) -> ManagerConfig:
    """Move the damaged log aside and draw a new raft id. A crash between the two is a missing log: done again."""
    standing = Standing.load(paths.standing)
    others = other_managers(config, standing, known)
    if not others:
        raise FailedPrecondition(
            f"{reason.rstrip('.')}. No other manager is known that could give it back: restore a backup with "
            "`pyswarm restore`, or leave the swarm with `pyswarm leave --force` and make a new one"
        )
    aside = _set_aside(paths, reason)
    anew = replace(config, raft_id=new_raft_id(), join_addresses=others, has_log=True)
    anew.save(paths)
    _mark(paths).unlink(missing_ok=True)
    _log.warning(
        "the log of this manager is lost (%s): what is left of it is in %s; joining anew as %x in place of %x",
        reason,
        aside,
        anew.raft_id,
        config.raft_id,
    )
    return anew


def _set_aside(paths: ManagerPaths, reason: str) -> Path:
    aside = paths.directory / f"{_DAMAGED}{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    aside.mkdir(mode=0o700)
    write_private(aside / "reason.txt", f"{reason}\n".encode())
    for path in (*sorted(paths.directory.glob(f"{paths.database.name}*")), paths.keyring):
        if path.exists():
            path.rename(aside / path.name)
    sync_directory(paths.directory)
    for old in sorted(paths.directory.glob(f"{_DAMAGED}*"))[:-KEPT_COPIES]:
        shutil.rmtree(old, ignore_errors=True)
    return aside
