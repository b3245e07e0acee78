"""The unlock key while there is no leader: those that are locked may be what keeps the others from having one."""

from __future__ import annotations

import asyncio

import pytest
from manager_harness import Swarm, asked
from msgspec.structs import replace

from pyswarm.v1 import security_pb2 as pb
from pyswarm.v1 import security_pb2_grpc
from pyswarm_common import errors
from pyswarm_common.identity.locks import LockKey
from pyswarm_manager.store.changes import Update

SECRET = bytes(range(32))


async def test_rotations_at_the_same_moment_are_all_made(swarm3: Swarm) -> None:
    cluster = swarm3.leader.store.view.cluster
    assert cluster is not None
    await swarm3.leader.store.propose([Update(replace(cluster, unlock_key=SECRET))])
    stubs = [security_pb2_grpc.SecurityStub(swarm3.channel(manager)) for manager in swarm3.managers]
    epochs = await asyncio.gather(*[asked(s.RotateEncryptionKey(pb.RotateEncryptionKeyRequest())) for s in stubs])
    assert sorted(answer.epoch for answer in epochs) == [1, 2, 3]
    fresh = await asyncio.gather(*[asked(s.RotateUnlockKey(pb.RotateUnlockKeyRequest())) for s in stubs])
    told = await asked(stubs[0].GetUnlockKey(pb.GetUnlockKeyRequest()))
    assert told.unlock_key in {answer.unlock_key for answer in fresh}


async def test_a_manager_without_a_leader_tells_the_unlock_key_that_it_knows(swarm3: Swarm) -> None:
    cluster = swarm3.leader.store.view.cluster
    assert cluster is not None
    await swarm3.leader.store.propose([Update(replace(cluster, unlock_key=SECRET))])
    await swarm3.settle()
    left = swarm3.followers[0]
    stub = security_pb2_grpc.SecurityStub(swarm3.channel(left))
    told = await asked(stub.GetUnlockKey(pb.GetUnlockKeyRequest()))
    assert not told.is_last_known
    for manager in [other for other in swarm3.managers if other is not left]:
        await swarm3.kill(manager)
    known = await asked(stub.GetUnlockKey(pb.GetUnlockKeyRequest()))
    assert (LockKey.parse(known.unlock_key).secret, known.is_last_known) == (SECRET, True)
    with pytest.raises(errors.Unavailable, match="no leader"):
        await asked(stub.RotateUnlockKey(pb.RotateUnlockKeyRequest()))
