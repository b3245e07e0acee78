"""Backups from real managers: any of them has everything that was acknowledged, and one key that the leader rules."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from manager_cluster import ManagerCluster, ManagerProcess

from pyswarm.v1 import backup_pb2, backup_pb2_grpc, control_pb2, types_pb2
from pyswarm_common.backup.container import Reader, WrongKey
from pyswarm_common.backup.keys import key_id, parse_key
from pyswarm_common.identity import role_name
from pyswarm_common.model import NodeRole
from pyswarm_common.rpc import open_channel
from pyswarm_manager.backup.contents import tables_of
from pyswarm_manager.store.tables import Tables

TIMEOUT_S = 20.0


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[list[ManagerProcess]]:
    cluster = ManagerCluster(tmp_path)
    try:
        yield await cluster.start_three()
    finally:
        await cluster.close()


def stub(manager: ManagerProcess) -> Any:
    return backup_pb2_grpc.BackupStub(manager.channel)


async def backed_up(manager: ManagerProcess) -> bytes:
    stream = stub(manager).CreateBackup(backup_pb2.CreateBackupRequest(), timeout=TIMEOUT_S)
    return b"".join([part.data async for part in stream])


async def key_of(manager: ManagerProcess, *, rotate: bool = False) -> bytes:
    request = backup_pb2.GetBackupKeyRequest(rotate=rotate)
    answer = await stub(manager).GetBackupKey(request, timeout=TIMEOUT_S)
    key = parse_key(answer.key)
    assert answer.key_id == key_id(key)
    return key


def opened(data: bytes, key: bytes) -> Tables:
    reader = Reader(io.BytesIO(data))
    reader.summary(key)
    return tables_of(reader.pieces())


async def create_network(manager: ManagerProcess, name: str) -> None:
    spec = types_pb2.NetworkSpec(name=name, driver="overlay")
    await manager.control.CreateNetwork(control_pb2.CreateNetworkRequest(spec=spec), timeout=TIMEOUT_S)


async def test_a_followers_backup_holds_what_the_leader_has_just_acknowledged(three: list[ManagerProcess]) -> None:
    leader, follower = three[0], three[2]
    key = await key_of(follower)
    assert key == await key_of(leader)
    for number in range(5):
        await create_network(leader, f"net{number}")
        state = opened(await backed_up(follower), key)
        assert f"net{number}" in {network.spec.name for network in state.networks.values()}
    cluster = state.cluster
    assert cluster is not None
    assert cluster.root_ca_key
    assert cluster.backup_key == key


async def test_a_rotated_key_opens_what_is_made_from_then_on(three: list[ManagerProcess]) -> None:
    before, old = await key_of(three[1]), await backed_up(three[1])
    after = await key_of(three[1], rotate=True)
    new = await backed_up(three[2])
    assert opened(old, before).cluster is not None
    assert opened(new, after).cluster is not None
    for data, wrong in ((old, after), (new, before)):
        with pytest.raises(WrongKey):
            opened(data, wrong)


async def test_without_a_majority_the_refusal_says_so(three: list[ManagerProcess]) -> None:
    for manager in three[:2]:
        await manager.kill()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await backed_up(three[2])
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "majority" in (refused.value.details() or "")


async def test_no_worker_gets_a_backup_or_the_key_and_nobody_is_shown_it_otherwise(tmp_path: Path) -> None:
    cluster = ManagerCluster(tmp_path)
    try:
        manager = await cluster.start()
        key = await key_of(manager)
        worker = await cluster.obtain(manager, cluster.tokens.worker)
        async with open_channel(manager.address, worker, role_name(NodeRole.MANAGER)) as channel:
            calls: Any = backup_pb2_grpc.BackupStub(channel)
            for call in (
                calls.GetBackupKey(backup_pb2.GetBackupKeyRequest(), timeout=TIMEOUT_S),
                calls.ListBackups(backup_pb2.ListBackupsRequest(), timeout=TIMEOUT_S),
                calls.CreateBackup(backup_pb2.CreateBackupRequest(), timeout=TIMEOUT_S).read(),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        shown = await manager.control.GetCluster(control_pb2.GetClusterRequest(), timeout=TIMEOUT_S)
        assert key not in shown.SerializeToString()
        assert key not in manager.paths.database.read_bytes()
        assert key.hex() not in manager.log.read_text()
    finally:
        await cluster.close()


async def test_settings_of_automatic_backups_are_checked(tmp_path: Path) -> None:
    cluster = ManagerCluster(tmp_path)
    try:
        manager = await cluster.start()
        listed = await stub(manager).ListBackups(backup_pb2.ListBackupsRequest(), timeout=TIMEOUT_S)
        assert (listed.interval_s, listed.kept, list(listed.backups)) == (12 * 3600, 5, [])
        for interval_s, kept, is_allowed in ((1.0, 5, False), (3600.0, 0, False), (0.0, 0, True), (3600.0, 9, True)):
            shown = (await manager.control.GetCluster(control_pb2.GetClusterRequest(), timeout=TIMEOUT_S)).cluster
            shown.spec.backup_interval_s, shown.spec.backups_kept = interval_s, kept
            request = control_pb2.UpdateClusterRequest(version=shown.meta.version, spec=shown.spec)
            if is_allowed:
                await manager.control.UpdateCluster(request, timeout=TIMEOUT_S)
                continue
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await manager.control.UpdateCluster(request, timeout=TIMEOUT_S)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        listed = await stub(manager).ListBackups(backup_pb2.ListBackupsRequest(), timeout=TIMEOUT_S)
        assert (listed.interval_s, listed.kept) == (3600.0, 9)
    finally:
        await cluster.close()
