"""Real managers and their disks: full ones, failing syncs, damage, and keys replaced while everything is killed."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from manager_cluster import ManagerCluster, ManagerProcess, manager_cluster

from pyswarm.v1 import control_pb2, security_pb2, security_pb2_grpc, types_pb2
from pyswarm_manager.keyring import KeyringFile
from pyswarm_manager.main import EXIT_REFUSED

pytestmark = pytest.mark.timeout(180)

WAIT_S = 40.0


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ManagerCluster]:
    async with manager_cluster(tmp_path) as cluster:
        yield cluster


@pytest.mark.root
def test_nothing_acknowledged_is_lost_when_disks_fill_up(tmp_path: Path) -> None:
    story = Path(__file__).with_name("full_disk_story.py")
    argv = ["unshare", "--mount", "--propagation", "private", sys.executable, str(story), str(tmp_path / "disks")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "of writes was lost" not in done.stdout
    assert done.stdout.startswith("nothing of ")


async def write(manager: ManagerProcess, name: str) -> None:
    spec = types_pb2.ServiceSpec(name=name)
    spec.task.container.image = "none"
    await manager.control.CreateService(control_pb2.CreateServiceRequest(spec=spec), timeout=10.0)


async def names(manager: ManagerProcess) -> set[str]:
    """What this manager itself has applied."""
    options = control_pb2.ListOptions(consistency=control_pb2.CONSISTENCY_LOCAL)
    answer = await manager.control.ListServices(control_pb2.ListServicesRequest(options=options), timeout=10.0)
    return {service.spec.name for service in answer.services}


async def wait_until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is in files
            await asyncio.sleep(0.05)


@pytest.mark.root
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, to make a system call fail")
async def test_a_failed_sync_ends_the_manager_and_loses_nothing(cluster: ManagerCluster) -> None:
    manager = await cluster.start()
    await write(manager, "before")
    assert manager.process is not None
    inject = ("-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO")
    tracer = await asyncio.create_subprocess_exec(
        "strace", *inject, "-p", str(manager.process.pid), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        status = Path(f"/proc/{manager.process.pid}/status")
        await wait_until(lambda: "TracerPid:\t0\n" not in status.read_text())
        with pytest.raises(grpc.aio.AioRpcError):
            await write(manager, "after")
        assert await asyncio.wait_for(manager.process.wait(), WAIT_S) == EXIT_REFUSED
    finally:
        if tracer.returncode is None:
            tracer.send_signal(signal.SIGKILL)
        await tracer.wait()
    assert "cannot be written (disk I/O error): look at its disk" in manager.log.read_text()
    await manager.close_channel()
    await manager.start()
    await manager.wait_votes()
    assert "before" in await names(manager)


async def test_a_flipped_bit_is_found_and_the_manager_comes_back_as_a_new_member(cluster: ManagerCluster) -> None:
    await cluster.start_three()
    leader = await cluster.leader()
    for number in range(5):
        await write(leader, f"service-{number}")
    index = (await leader.health()).applied_index
    victim = next(manager for manager in cluster.managers if manager is not leader)
    await victim.wait_follows(leader, index)
    await victim.kill()
    wal = victim.paths.database.with_name("raft.db-wal")
    content = bytearray(wal.read_bytes())
    last = max(at for at in range(0, len(content), 512) if any(content[at : at + 512]))
    content[last // 2] ^= 0x10  # in the middle of what was written
    wal.write_bytes(content)
    await victim.start()
    await victim.wait_health(lambda health: health.raft_id != victim.raft_id and health.applied_index >= index)
    assert "write-ahead log" in victim.log.read_text()
    await victim.wait_votes()
    assert await names(victim) == {f"service-{number}" for number in range(5)}


async def test_the_key_at_rest_is_replaced_while_managers_are_killed(cluster: ManagerCluster) -> None:
    await cluster.start_three()
    before = {manager.name: _current_key(manager) for manager in cluster.managers}
    for number in range(20):
        await write(cluster.managers[number % 3], f"service-{number}")
    victim, *others = cluster.managers
    security = security_pb2_grpc.SecurityStub(others[0].channel)
    for epoch in (1, 2, 3):
        request = security_pb2.RotateEncryptionKeyRequest()
        assert (await security.RotateEncryptionKey(request, timeout=10.0)).epoch == epoch
        await victim.kill()  # somewhere in the middle
        await victim.start()
        await victim.wait_votes()
        await write(victim, f"epoch-{epoch}")
    for manager in cluster.managers:
        await wait_until(lambda manager=manager: _has_followed(manager, 3))
        assert _current_key(manager) != before[manager.name]
    for manager in cluster.managers:
        await manager.kill()
    for manager in cluster.managers:
        await manager.start()
    await cluster.leader()
    for manager in cluster.managers:
        await manager.wait_votes()
        assert len(await names(manager)) == 23


def _current_key(manager: ManagerProcess) -> bytes:
    ring = KeyringFile(manager.paths.keyring).load()
    assert ring is not None
    return ring.current.key


def _has_followed(manager: ManagerProcess, epoch: int) -> bool:
    ring = KeyringFile(manager.paths.keyring).load()
    return ring is not None and ring.epoch == epoch and len(ring.keys) == 1
