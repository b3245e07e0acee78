"""What happens to three real managers whose disks fill up, told in a mount namespace of its own.

Run by `test_manager_disks.py` through `unshare --mount`: each manager's files are on a small tmpfs that nobody else
sees and that goes with the namespace. Fails with an assertion; prints a line at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
from manager_cluster import ManagerCluster, ManagerProcess, manager_cluster

from pyswarm.v1 import control_pb2, types_pb2

DISK = "40m"
WAIT_S = 60.0


class Cluster(ManagerCluster):
    """Each manager has a disk of its own."""

    def _new_manager(self) -> ManagerProcess:
        manager = super()._new_manager()
        manager.paths.root.mkdir(parents=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "disk", str(manager.paths.root)], check=True
        )
        return manager


def fill(manager: ManagerProcess) -> Path:
    """Not a byte is left."""
    filler = manager.paths.root / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    try:
        (manager.paths.root / "probe").write_bytes(b"x" * 8192)
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017 - any other would be another story
    (manager.paths.root / "probe").unlink(missing_ok=True)
    return filler


async def write(manager: ManagerProcess, name: str) -> str:
    """Empty if it was acknowledged; why not, otherwise."""
    spec = types_pb2.ServiceSpec(name=name, labels={f"filling-{number}": "x" * 4000 for number in range(25)})
    spec.task.container.image = "none"
    try:
        await manager.control.CreateService(control_pb2.CreateServiceRequest(spec=spec), timeout=10.0)
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN):
            raise
        return error.details() or "?"
    return ""


async def names(
    manager: ManagerProcess, consistency: control_pb2.Consistency = control_pb2.CONSISTENCY_LINEARIZABLE
) -> set[str]:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return await _names(manager, consistency)
        except grpc.aio.AioRpcError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)


async def _names(manager: ManagerProcess, consistency: control_pb2.Consistency) -> set[str]:
    found: set[str] = set()
    options = control_pb2.ListOptions(page_size=20, consistency=consistency)  # each of them is large
    while True:
        answer = await manager.control.ListServices(control_pb2.ListServicesRequest(options=options), timeout=10.0)
        found |= {service.spec.name for service in answer.services}
        options.page_token = answer.next_page_token
        if not options.page_token:
            return found


async def one_disk(cluster: ManagerCluster, acknowledged: set[str]) -> None:
    """The leader's: another leads, the cluster goes on, and the full one comes back by itself."""
    leader = await cluster.leader()
    filler = fill(leader)
    others = [manager for manager in cluster.managers if manager is not leader]
    count = 0
    while not (await leader.health()).disk_problem:
        count += 1
        assert count < 200, "the disk is not full"
        if not await write(others[count % 2], f"one-{count}"):
            acknowledged.add(f"one-{count}")
    assert "is full" in (await leader.health()).disk_problem
    assert await cluster.leader() is not leader
    for number in range(5):
        assert not await write_until(others[number % 2], f"while-{number}")
        acknowledged.add(f"while-{number}")
    assert leader.process is not None
    assert leader.process.returncode is None
    filler.unlink()
    await leader.wait_health(lambda health: not health.disk_problem)
    index = max([(await manager.health()).commit_index for manager in others])
    await leader.wait_health(lambda health: health.applied_index >= index)


async def write_until(manager: ManagerProcess, name: str) -> str:
    """Again while leadership moves."""
    deadline = time.monotonic() + WAIT_S
    while (reason := await write(manager, name)) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        if name in await names(manager):
            return ""
    return reason


async def all_disks(cluster: ManagerCluster, acknowledged: set[str]) -> None:
    """Writes are refused with the reason, reads go on, no process ends; with room, everything goes on."""
    fillers = [fill(manager) for manager in cluster.managers]
    reason, count = "", 0
    deadline = time.monotonic() + WAIT_S
    while "full" not in reason:
        count += 1
        assert time.monotonic() < deadline, reason
        reason = await write(cluster.managers[count % 3], f"all-{count}")
        if not reason:
            acknowledged.add(f"all-{count}")
    assert "free some space" in reason, reason
    for manager in cluster.managers:
        assert manager.process is not None
        assert manager.process.returncode is None, manager.log.read_text()[-3000:]
    seen = set.union(*[await names(manager, control_pb2.CONSISTENCY_LOCAL) for manager in cluster.managers])
    assert acknowledged <= seen, sorted(acknowledged - seen)
    for filler in fillers:
        filler.unlink()
    for manager in cluster.managers:
        await manager.wait_health(lambda health: not health.disk_problem)
    assert not await write_until(cluster.managers[0], "afterwards")
    acknowledged.add("afterwards")


async def main(root: Path) -> None:
    acknowledged: set[str] = set()
    async with manager_cluster(root, Cluster) as cluster:
        await cluster.start_three()
        await one_disk(cluster, acknowledged)
        await all_disks(cluster, acknowledged)
        for manager in cluster.managers:  # what a crash would find
            await manager.kill()
        for manager in cluster.managers:
            await manager.start()
        await cluster.leader()
        for manager in cluster.managers:
            await manager.wait_votes()
            found = await names(manager)
            assert acknowledged <= found, (manager.name, sorted(acknowledged - found))
    print(f"nothing of {len(acknowledged)} writes was lost")


if __name__ == "__main__":
    os.umask(0o077)
    asyncio.run(main(Path(sys.argv[1])))
