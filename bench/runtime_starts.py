"""How many containers one host starts and stops per second: `python bench/runtime_starts.py [-n 100] [--runtime crun]`.

Prints a table. Needs root, conmon, crun or runc, and a static busybox. Everything happens in a mount namespace of its
own, where hybrid control groups are made plain v1 so that crun can be used, and is taken away at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import resource
import shutil
import tarfile
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from pyswarm_runtime import ContainerConfig, Runtime, RuntimeConfig, linux

CLONE_NEWNS = 0x20000


def enter_private_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    linux.mount("none", "/", "none", linux.MS_REC | linux.MS_PRIVATE)
    if Path("/sys/fs/cgroup/unified/cgroup.controllers").exists():
        linux.umount("/sys/fs/cgroup/unified", linux.MNT_DETACH)


def write_rootfs(path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("busybox is not installed: apt-get install busybox-static")
    with tarfile.open(path, "w") as archive:
        archive.add(busybox, "bin/busybox")
        for name in ("sh", "sleep"):
            member = tarfile.TarInfo(f"bin/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(member)


def cpu_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


class Table:
    def __init__(self, count: int) -> None:
        self._count = count
        print(f"{'what':<32}{'seconds':>9}{'per second':>12}{'ms each':>9}{'own CPU ms':>12}{'children ms':>13}")

    async def measure(self, what: str, work: Callable[[], Awaitable[object]], count: int | None = None) -> None:
        count = count or self._count
        own, children, began = cpu_s(resource.RUSAGE_SELF), cpu_s(resource.RUSAGE_CHILDREN), time.perf_counter()
        await work()
        took = time.perf_counter() - began
        own = (cpu_s(resource.RUSAGE_SELF) - own) * 1000 / count
        children = (cpu_s(resource.RUSAGE_CHILDREN) - children) * 1000 / count
        print(f"{what:<32}{took:>9.2f}{count / took:>12.0f}{took * 1000 / count:>9.1f}{own:>12.2f}{children:>13.2f}")


async def run(runtime: Runtime, count: int) -> None:
    config = ContainerConfig(image="busybox", command=("sleep", "1000000"), host_network=True, stop_signal="SIGKILL")
    table = Table(count)
    ids: list[str] = []

    async def create_all() -> None:
        ids.extend([await runtime.create(config) for _ in range(count)])

    async def sequential(step: Callable[[str], Awaitable[object]]) -> None:
        for container_id in ids:
            await step(container_id)

    async def parallel(step: Callable[[str], Awaitable[object]]) -> None:
        await asyncio.gather(*(step(container_id) for container_id in ids))

    steps: list[tuple[str, Callable[[str], Awaitable[object]]]] = [("start", runtime.start), ("stop", runtime.stop)]
    await table.measure("create", create_all)
    for how, apply in (("one after another", sequential), ("in parallel", parallel)):
        for what, step in steps:
            await table.measure(f"{what}, {how}", lambda apply=apply, step=step: apply(step))  # type: ignore[misc]
    await table.measure("remove, in parallel", lambda: parallel(runtime.remove))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="how many containers (default 100)")
    parser.add_argument("--runtime", help="crun or runc (default: as the preflight chooses)")
    parser.add_argument("--parallel", type=int, default=8, help="starts at the same time (default 8)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as directory:
        base = Path(directory)
        write_rootfs(base / "rootfs.tar")
        config = RuntimeConfig(
            root=base / "root",
            run_dir=base / "run",
            oci_runtime=options.runtime,
            cgroup_parent=f"/pyswarm-bench/{os.getpid()}",
            max_parallel_starts=options.parallel,
        )
        runtime = await Runtime.open(config)
        try:
            print(f"{options.n} containers, {runtime.preflight}, {os.cpu_count()} processors")
            await runtime.images.import_(base / "rootfs.tar", "busybox")
            await run(runtime, options.n)
        finally:
            await runtime.destroy()


if __name__ == "__main__":
    enter_private_mounts()
    uvloop.run(main())
