"""Autolock on three real managers, each with the keeper that its daemon would run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from manager_cluster import ManagerCluster, ManagerProcess, manager_cluster

from pyswarm.v1 import control_pb2, locking_pb2, locking_pb2_grpc, security_pb2, security_pb2_grpc
from pyswarm_common.identity import NodeIdentity, role_name
from pyswarm_common.identity.locks import Locked, LockKey, WrongKey, is_locked
from pyswarm_common.model import NodeRole
from pyswarm_common.rpc import open_channel
from pyswarm_node.identity import CurrentIdentity
from pyswarm_node.lock_keeper import LockKeeper
from pyswarm_node.machine_lock import MachineLock

pytestmark = pytest.mark.timeout(180)

WAIT_S = 40.0


class Machine:
    """One manager's machine: its lock, and who keeps it."""

    def __init__(self, manager: ManagerProcess) -> None:
        self.manager = manager
        self.lock = MachineLock(manager.paths.certificates)
        self._keeper: asyncio.Task[None] | None = None

    def keep(self) -> None:
        identity = NodeIdentity.load(self.manager.paths.certificates)
        assert identity is not None
        current = CurrentIdentity(self.manager.paths.certificates, identity.unlocked(self.lock.master), self.lock)
        keeper = LockKeeper(self.lock, current, lambda: self.manager.channel, asyncio.Lock())
        self._keeper = asyncio.create_task(keeper.run())

    async def crash(self) -> None:
        """The daemon and its manager: nothing is remembered."""
        await self.close()
        await self.manager.kill()
        self.lock = MachineLock(self.manager.paths.certificates)

    async def start(self) -> None:
        """As the daemon does it."""
        master = self.lock.master
        argv = ["--state-dir", str(self.manager.paths.root), "--run-dir", str(self.manager.paths.run_dir)]
        with self.manager.log.open("ab") as log:
            self.manager.process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pyswarm_manager", *argv, *(["--locked"] if master else [])),
                stdin=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert process.stdin is not None
        if master is not None:
            process.stdin.write(master.secret)
        process.stdin.close()
        self.keep()

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    def is_locked_by(self, key: LockKey) -> bool:
        """On the disk, everything, and by nothing but this key."""
        paths = self.manager.paths
        files = (paths.certificates / "node.key", paths.keyring)
        if not (paths.certificates / "node.lock").exists() or not all(is_locked(file.read_bytes()) for file in files):
            return False
        try:
            MachineLock(paths.certificates).open(key)
        except WrongKey:
            return False
        return True

    def is_open(self) -> bool:
        paths = self.manager.paths
        files = (paths.certificates / "node.key", paths.keyring)
        return not (paths.certificates / "node.lock").exists() and not any(is_locked(f.read_bytes()) for f in files)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ManagerCluster]:
    async with manager_cluster(tmp_path) as cluster:
        await cluster.start_three()
        yield cluster


@pytest.fixture
async def machines(cluster: ManagerCluster) -> AsyncIterator[list[Machine]]:
    machines = [Machine(manager) for manager in cluster.managers]
    for machine in machines:
        machine.keep()
    yield machines
    for machine in machines:
        await machine.close()


async def wait_until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is in files
            await asyncio.sleep(0.05)


async def set_autolock(manager: ManagerProcess, is_on: bool) -> None:
    cluster = (await manager.control.GetCluster(control_pb2.GetClusterRequest())).cluster
    cluster.spec.autolock = is_on
    request = control_pb2.UpdateClusterRequest(version=cluster.meta.version, spec=cluster.spec)
    answer = await manager.control.UpdateCluster(request)
    assert not answer.cluster.unlock_key
    assert not answer.cluster.root_ca_key


async def unlock_key(manager: ManagerProcess) -> LockKey:
    security = security_pb2_grpc.SecurityStub(manager.channel)
    return LockKey.parse((await security.GetUnlockKey(security_pb2.GetUnlockKeyRequest(), timeout=10.0)).unlock_key)


async def rotate(manager: ManagerProcess) -> LockKey:
    security = security_pb2_grpc.SecurityStub(manager.channel)
    answer = await security.RotateUnlockKey(security_pb2.RotateUnlockKeyRequest(), timeout=10.0)
    return LockKey.parse(answer.unlock_key)


async def test_every_manager_follows_the_unlock_key(machines: list[Machine]) -> None:
    first, second, third = machines
    assert all(machine.is_open() for machine in machines)
    await set_autolock(second.manager, True)
    key = await unlock_key(third.manager)
    await wait_until(lambda: all(machine.is_locked_by(key) for machine in machines))

    fresh = await rotate(first.manager)
    assert fresh != key
    await wait_until(lambda: all(machine.is_locked_by(fresh) for machine in machines))

    await set_autolock(first.manager, False)
    await wait_until(lambda: all(machine.is_open() for machine in machines))
    with pytest.raises(grpc.aio.AioRpcError, match="no unlock key is set"):
        await unlock_key(third.manager)


async def test_a_manager_that_was_down_opens_with_the_key_it_was_locked_under(machines: list[Machine]) -> None:
    first, second, third = machines
    await set_autolock(first.manager, True)
    key = await unlock_key(first.manager)
    await wait_until(lambda: all(machine.is_locked_by(key) for machine in machines))
    await third.crash()
    async with asyncio.timeout(WAIT_S):
        fresh = None
        while fresh is None:
            try:
                fresh = await rotate(second.manager)
            except grpc.aio.AioRpcError:  # the third led
                await asyncio.sleep(0.1)
    await wait_until(lambda: first.is_locked_by(fresh) and second.is_locked_by(fresh))
    assert third.is_locked_by(key)
    assert third.lock.is_locked
    with pytest.raises(Locked):
        await third.start()
    with pytest.raises(WrongKey):
        third.lock.open(fresh)
    third.lock.open(key)
    await third.start()
    await third.manager.wait_votes()
    await wait_until(lambda: third.is_locked_by(fresh))


async def test_all_managers_of_a_locked_swarm_start_again(machines: list[Machine], cluster: ManagerCluster) -> None:
    await set_autolock(machines[0].manager, True)
    key = await unlock_key(machines[0].manager)
    await wait_until(lambda: all(machine.is_locked_by(key) for machine in machines))
    for machine in machines:
        await machine.crash()
    for machine in machines:
        machine.lock.open(key)
        await machine.start()
    await cluster.leader()
    for machine in machines:
        await machine.manager.wait_votes()
    assert await unlock_key(machines[1].manager) == key


async def test_a_manager_is_not_started_with_locked_keys_and_no_key(machines: list[Machine]) -> None:
    first = machines[0]
    await set_autolock(first.manager, True)
    key = await unlock_key(first.manager)
    await wait_until(lambda: first.is_locked_by(key))
    await first.crash()
    await first.manager.start()
    assert first.manager.process is not None
    assert await asyncio.wait_for(first.manager.process.wait(), WAIT_S) == 1
    assert "Swarm is encrypted and needs to be unlocked" in first.manager.log.read_text().splitlines()[-1]


async def test_the_locks_are_between_a_manager_and_its_own_machine(
    machines: list[Machine], cluster: ManagerCluster
) -> None:
    """Not even another manager may ask."""
    identity = cluster.issue(NodeIdentity.load(machines[1].manager.paths.certificates).node_id, NodeRole.MANAGER)  # type: ignore[union-attr]
    channel = open_channel(machines[0].manager.address, identity, role_name(NodeRole.MANAGER))
    stub = locking_pb2_grpc.LockingStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.SealKeyring(locking_pb2.SealKeyringRequest(), timeout=10.0)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in stub.FollowUnlockKey(locking_pb2.FollowUnlockKeyRequest(), timeout=10.0):
            pass
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await channel.close(None)
