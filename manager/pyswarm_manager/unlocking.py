"""The unlock key and the count of rotations of the keys at rest, on the leader.

Both are in the cluster object, so every manager that follows the store follows them, whenever it comes to it: it locks
its files with the unlock key of the moment, and makes a new key for its log for each rotation it has not made yet.
"""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm.v1 import security_pb2 as pb
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.model import Cluster, ClusterSpec
from pyswarm_manager.store.changes import Update
from pyswarm_manager.writes import Writer, cluster_of, retried


def key_for(spec: ClusterSpec, present: bytes) -> bytes:
    """The unlock key that goes with these settings: a new one when autolock is turned on, none when it is off."""
    if not spec.autolock:
        return b""
    return present or LockKey.generate().secret


def shown(cluster: Cluster) -> pb.GetUnlockKeyResponse:
    """For whoever has to unlock managers."""
    if not cluster.unlock_key:
        raise FailedPrecondition("no unlock key is set: turn autolock on with `pyswarm update --autolock=true` first")
    return pb.GetUnlockKeyResponse(unlock_key=LockKey(cluster.unlock_key).token())


async def rotate_unlock_key(writer: Writer) -> pb.RotateUnlockKeyResponse:
    """The old one opens only managers that were down and have not heard of the new one."""
    fresh = LockKey.generate()

    async def attempt() -> None:
        cluster = cluster_of(writer)
        if not cluster.unlock_key:
            raise FailedPrecondition("cannot rotate because autolock is not turned on")
        await writer.store.propose([Update(replace(cluster, unlock_key=fresh.secret))])

    await retried(attempt)
    return pb.RotateUnlockKeyResponse(unlock_key=fresh.token())


async def rotate_encryption_key(writer: Writer) -> pb.RotateEncryptionKeyResponse:
    """Every manager follows by itself, those that are down when they come back."""

    async def attempt() -> int:
        cluster = cluster_of(writer)
        epoch = cluster.encryption_epoch + 1
        await writer.store.propose([Update(replace(cluster, encryption_epoch=epoch))])
        return epoch

    return pb.RotateEncryptionKeyResponse(epoch=await retried(attempt))
