"""What a killed daemon finds when it comes back: containers that ran on, ended, or were half-started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from pyswarm_common.errors import FailedPrecondition
from pyswarm_runtime import ContainerConfig, Mount, Runtime, RuntimeConfig, linux
from pyswarm_runtime.container_store import ContainerStore, StoredState
from pyswarm_runtime.processes import kill_and_wait, start_time, wait_gone

# A daemon that starts containers, says which, and then waits to be killed.
DAEMON = """
import asyncio, json, sys
from pathlib import Path
from pyswarm_runtime import ContainerConfig, Runtime, RuntimeConfig

async def main():
    root, run_dir, parent, rootfs, *scripts = sys.argv[1:]
    config = RuntimeConfig(root=Path(root), run_dir=Path(run_dir), oci_runtime="crun", cgroup_parent=parent)
    runtime = await Runtime.open(config)
    await runtime.images.import_(Path(rootfs), "busybox")
    started = {}
    for script in scripts:
        made = ContainerConfig(image="busybox", command=("sh", "-c", script), host_network=True)
        container_id = await runtime.create(made)
        started[container_id] = (await runtime.start(container_id)).pid
    print(json.dumps(started), flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


Reopen = Callable[[], Awaitable[Runtime]]


@pytest.fixture
def config(base: Path) -> RuntimeConfig:
    return RuntimeConfig(
        root=base / "root", run_dir=base / "run", oci_runtime="crun", cgroup_parent=f"/pyswarm-rt-test/{os.getpid()}-r"
    )


@pytest.fixture
async def reopen(config: RuntimeConfig) -> AsyncIterator[Reopen]:
    """Opens the runtime as the next daemon would, the one before having been closed."""
    opened: list[Runtime] = []

    async def reopen() -> Runtime:
        for earlier in opened:
            await earlier.close()
        opened.append(await Runtime.open(config))
        return opened[-1]

    yield reopen
    # Whatever the test came to: a last daemon takes everything away.
    await (await reopen()).destroy()


def run_daemon(config: RuntimeConfig, rootfs: Path, *scripts: str) -> dict[str, int]:
    """Starts the daemon, waits for its containers, and kills it with SIGKILL."""
    arguments = [str(config.root), str(config.run_dir), config.cgroup_parent, str(rootfs), *scripts]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, *arguments], stdout=subprocess.PIPE, env=environment
    ) as daemon:
        assert daemon.stdout is not None
        line = daemon.stdout.readline()
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    started: dict[str, int] = json.loads(line)
    return started


def monitor_of(config: RuntimeConfig, container_id: str) -> tuple[int, int | None]:
    state = stored_state(config, container_id)
    return state.monitor_pid, state.monitor_started


def stored_state(config: RuntimeConfig, container_id: str) -> StoredState:
    path = config.root / "containers" / config.namespace / container_id / "state.json"
    return msgspec.json.decode(path.read_bytes(), type=StoredState)


async def test_containers_outlive_the_daemon(config: RuntimeConfig, reopen: Reopen, rootfs_tar: Path) -> None:
    started = run_daemon(
        config, rootfs_tar, "sleep 1000", "trap 'echo over; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    )
    runtime = await reopen()
    states = {state.id: state for state in await runtime.list()}
    assert {key: state.pid for key, state in states.items()} == started
    assert {state.status for state in states.values()} == {"running"}
    second = list(started)[1]
    async for record in runtime.logs(second, follow=True):
        assert record.data == b"up\n"
        break
    assert (await runtime.stop(second, grace_s=30)).exit_code == 9
    assert (await runtime.exec(next(iter(started)), ["echo", "hello"])).output == b"hello\n"


async def test_exits_in_between_are_noticed(config: RuntimeConfig, reopen: Reopen, rootfs_tar: Path) -> None:
    (container_id,) = run_daemon(config, rootfs_tar, "trap 'exit 6' TERM; while :; do sleep 0.02; done")
    state = stored_state(config, container_id)
    monitor_fd = os.pidfd_open(state.monitor_pid)
    # The shell may not have set its trap yet, but its exit is then that of the signal.
    os.kill(state.pid, signal.SIGKILL)
    assert wait_gone(monitor_fd, 20)
    os.close(monitor_fd)
    runtime = await reopen()
    ended = await runtime.inspect(container_id)
    assert (ended.status, ended.exit_code, ended.error) == ("exited", 137, "")
    assert str(config.root) not in Path("/proc/self/mountinfo").read_text()
    await runtime.start(container_id)


async def test_everything_killed_as_by_a_power_cut(config: RuntimeConfig, reopen: Reopen, rootfs_tar: Path) -> None:
    (container_id,) = run_daemon(config, rootfs_tar, "echo before; sleep 1000")
    kill_and_wait(*monitor_of(config, container_id))
    state = stored_state(config, container_id)
    kill_and_wait(state.pid, state.pid_started)
    linux.umount(str(config.root / "containers/default" / container_id / "rootfs"), linux.MNT_DETACH)
    runtime = await reopen()
    lost = await runtime.inspect(container_id)
    assert (lost.status, lost.exit_code) == ("exited", 255)
    assert "not known" in lost.error
    assert list(Path("/sys/fs/cgroup").glob(f"**/{container_id}")) == []
    assert (await runtime.start(container_id)).status == "running"


async def test_a_container_without_monitor_is_ended(config: RuntimeConfig, reopen: Reopen, rootfs_tar: Path) -> None:
    """Nobody could say how it ends, nor keep its output: so it does not go on."""
    (container_id,) = run_daemon(config, rootfs_tar, "sleep 1000")
    runtime = await reopen()
    pid = (await runtime.inspect(container_id)).pid
    kill_and_wait(*monitor_of(config, container_id))
    lost = await runtime.wait(container_id)
    assert (lost.status, lost.exit_code) == ("exited", 255)
    assert start_time(pid) is None


async def test_a_half_started_container_is_undone(config: RuntimeConfig, reopen: Reopen, rootfs_tar: Path) -> None:
    (container_id,) = run_daemon(config, rootfs_tar, "sleep 1000")
    state = stored_state(config, container_id)
    ContainerStore(config.root, config.run_dir, config.namespace).save(container_id, StoredState(phase="starting"))
    runtime = await reopen()
    assert (await runtime.inspect(container_id)).status == "created"
    assert start_time(state.pid) is None
    assert start_time(state.monitor_pid) is None
    assert (await runtime.start(container_id)).status == "running"


async def test_damaged_and_half_made_files_are_dropped(config: RuntimeConfig, reopen: Reopen, rootfs_tar: Path) -> None:
    runtime = await reopen()
    await runtime.images.import_(rootfs_tar, "busybox")
    made = ContainerConfig(image="busybox", command=("true",), host_network=True)
    damaged, whole = [await runtime.create(made) for _ in range(2)]
    directory = config.root / "containers/default"
    (directory / damaged / "state.json").write_text("")
    (directory / ".tmp-leftover").mkdir()
    (config.root / "layers/.tmp-leftover").mkdir()
    (config.root / "tmp/blob-leftover").write_text("x")
    runtime = await reopen()
    assert [state.id for state in await runtime.list()] == [whole]
    assert [path.name for path in directory.iterdir()] == [whole]
    assert list((config.root / "tmp").iterdir()) == []
    assert [path.name for path in (config.root / "layers").iterdir() if path.name.startswith(".")] == []


async def test_a_container_without_record_is_ended(config: RuntimeConfig, reopen: Reopen, rootfs_tar: Path) -> None:
    lost, kept = run_daemon(config, rootfs_tar, "sleep 1000", "sleep 1001")
    state = stored_state(config, lost)
    (config.root / "containers/default" / lost / "container.json").write_bytes(b"{")
    runtime = await reopen()
    assert [(entry.id, entry.status) for entry in await runtime.list()] == [(kept, "running")]
    assert (start_time(state.pid), start_time(state.monitor_pid)) == (None, None)
    assert list(config.root.glob(f"**/{lost}*")) + list(config.run_dir.glob(f"**/{lost}*")) == []
    assert lost not in Path("/proc/self/mountinfo").read_text()


async def test_volumes_of_containers_are_known_after_a_restart(
    config: RuntimeConfig, reopen: Reopen, rootfs_tar: Path
) -> None:
    """One with a file system behind it is let go by the next daemon; one without a name goes with its container."""
    runtime = await reopen()
    await runtime.images.import_(rootfs_tar, "busybox", cmd=("sh",))
    options = {"type": "tmpfs", "device": "tmpfs"}
    mounts = (
        Mount(type="volume", source="ram", target="/ram", volume_options=options),
        Mount(type="volume", target="/data"),
    )
    container_id = await runtime.create(
        ContainerConfig(image="busybox", command=("sleep", "1000"), host_network=True, mounts=mounts)
    )
    await runtime.start(container_id)
    runtime = await reopen()
    volumes = config.root / "volumes"
    assert os.path.ismount(volumes / "ram" / "_data")
    await runtime.stop(container_id, grace_s=0.1)
    assert not os.path.ismount(volumes / "ram" / "_data")
    assert len(list(volumes.iterdir())) == 2
    (config.root / "containers/default" / container_id / "container.json").write_bytes(b"{")
    await reopen()
    assert [entry.name for entry in volumes.iterdir()] == ["ram"]


async def test_close_leaves_containers_and_reopens(config: RuntimeConfig, reopen: Reopen, rootfs_tar: Path) -> None:
    runtime = await reopen()
    await runtime.images.import_(rootfs_tar, "busybox")
    container_id = await runtime.create(ContainerConfig(image="busybox", command=("sleep", "1000"), host_network=True))
    pid = (await runtime.start(container_id)).pid
    with pytest.raises(FailedPrecondition, match="in use by another daemon"):
        await Runtime.open(config)
    runtime = await reopen()
    assert (await runtime.inspect(container_id)).pid == pid
    await runtime.stop(container_id, 0)


async def test_a_container_whose_image_went(config: RuntimeConfig, reopen: Reopen, rootfs_tar: Path) -> None:
    """An image that went while a stopped container stood on it: the container starts again all the same."""
    runtime = await reopen()
    await runtime.images.import_(rootfs_tar, "busybox")
    container_id = await runtime.create(ContainerConfig(image="busybox", command=("true",), host_network=True))
    await runtime.images.remove("busybox", force=True)
    runtime = await reopen()
    await runtime.start(container_id)
    assert (await runtime.wait(container_id)).exit_code == 0
    await runtime.remove(container_id)
    runtime = await reopen()
    assert list((config.root / "layers").iterdir()) == []


# A daemon that goes on starting, stopping and removing until it is killed.
BUSY_DAEMON = """
import asyncio, sys
from pathlib import Path
from pyswarm_runtime import ContainerConfig, Runtime, RuntimeConfig

async def churn(runtime):
    made = ContainerConfig(image="busybox", command=("sleep", "1000"), host_network=True, stop_signal="SIGKILL")
    while True:
        container_id = await runtime.create(made)
        await runtime.start(container_id)
        print("started", flush=True)
        await runtime.stop(container_id)
        await runtime.start(container_id)
        await runtime.remove(container_id, force=True)

async def main():
    root, run_dir, parent, rootfs = sys.argv[1:]
    config = RuntimeConfig(root=Path(root), run_dir=Path(run_dir), oci_runtime="crun", cgroup_parent=parent)
    runtime = await Runtime.open(config)
    await runtime.images.import_(Path(rootfs), "busybox")
    await asyncio.gather(*(churn(runtime) for _ in range(6)))

asyncio.run(main())
"""


def run_busy_daemon(config: RuntimeConfig, rootfs: Path, starts: int) -> None:
    """Kills it after so many starts."""
    arguments = [str(config.root), str(config.run_dir), config.cgroup_parent, str(rootfs)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", BUSY_DAEMON, *arguments], stdout=subprocess.PIPE, env=environment
    ) as daemon:
        assert daemon.stdout is not None
        for _ in range(starts):
            daemon.stdout.readline()
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()


async def still_running(runtime: Runtime) -> set[str]:
    """One that was signalled just before the daemon died may end after it: that is waited for."""
    found = set()
    for state in await runtime.list():
        if state.status == "running":
            try:
                assert (await runtime.exec(state.id, ["true"])).exit_code == 0
                found.add(state.id)
            except (FailedPrecondition, AssertionError):
                assert (await runtime.wait(state.id)).status == "exited"
    return found


@pytest.mark.parametrize("starts", [0, 1, 2, 5, 9, 14])
async def test_killed_at_any_point(config: RuntimeConfig, reopen: Reopen, rootfs_tar: Path, starts: int) -> None:
    run_busy_daemon(config, rootfs_tar, starts)
    runtime = await reopen()
    running = await still_running(runtime)
    assert {path.name for path in (config.run_dir / "oci").iterdir() if path.is_dir()} == running
    assert {path.name for path in (config.run_dir / "c").iterdir()} == running
    mounts = Path("/proc/self/mountinfo").read_text()
    assert {state.id for state in await runtime.list() if f"{state.id}/rootfs" in mounts} == running
