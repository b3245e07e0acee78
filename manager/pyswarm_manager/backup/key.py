"""The cluster's backup key: made once by the leader, shown to admins, replaced when they ask.

It lies in the cluster object, sealed on disk like everything in the log, and leaves the managers only through
`Backup.GetBackupKey`. Backups made before a rotation open only with the old key: whoever rotates keeps both.
"""

from __future__ import annotations

import asyncio
import secrets

from msgspec.structs import replace

from pyswarm_common.backup.keys import KEY_BYTES
from pyswarm_common.errors import OutOfSequence, Unavailable
from pyswarm_common.model import Cluster
from pyswarm_manager.store.changes import Update
from pyswarm_manager.writes import FollowedStore, Writer, retried


async def ensure_key(store: FollowedStore) -> None:
    """On the leader: a cluster without a key, since its first manager was older than backups, gets one."""
    await _wait_cluster(store)

    async def attempt() -> None:
        cluster = store.view.cluster
        if cluster is not None and not cluster.backup_key:
            await store.propose([Update(_with_new_key(cluster))])

    await retried(attempt)


async def _wait_cluster(store: FollowedStore) -> None:
    """A new cluster's object is being committed while this begins."""
    appeared = asyncio.Event()
    unsubscribe = store.subscribe(lambda index, events: appeared.set())
    try:
        while store.view.cluster is None:
            appeared.clear()
            await appeared.wait()
    finally:
        unsubscribe()


async def rotated(writer: Writer) -> Cluster:
    """A new key from now on."""

    async def attempt() -> Cluster:
        cluster = writer.store.view.cluster
        if cluster is None:
            raise Unavailable("this manager does not know its swarm yet: try again in a moment")
        await writer.store.propose([Update(_with_new_key(cluster))])
        changed = writer.store.view.cluster
        if changed is None:
            raise OutOfSequence("the cluster moved")
        return changed

    return await retried(attempt)


def require_key(cluster: Cluster | None) -> bytes:
    """Raises Unavailable while there is none."""
    if cluster is None or not cluster.backup_key:
        raise Unavailable("the swarm has no backup key yet, its leader is making one: try again in a moment")
    return cluster.backup_key


def _with_new_key(cluster: Cluster) -> Cluster:
    return replace(cluster, backup_key=secrets.token_bytes(KEY_BYTES))
