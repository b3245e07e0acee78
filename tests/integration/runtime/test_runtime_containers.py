"""Containers in the real kernel: run, output, exit codes, signals, limits, files, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pyswarm_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from pyswarm_runtime import ContainerConfig, ContainerState, LogRecord, Mount, Runtime, RuntimeConfig, Ulimit

MIB = 1024 * 1024
SH = ("sh", "-c")


def shell(script: str, **settings: object) -> ContainerConfig:
    settings.setdefault("host_network", True)
    return ContainerConfig(image="busybox", command=(*SH, script), **settings)  # type: ignore[arg-type]


async def start(runtime: Runtime, config: ContainerConfig) -> str:
    container_id = await runtime.create(config)
    await runtime.start(container_id)
    return container_id


async def output_of(runtime: Runtime, container_id: str) -> str:
    return b"".join([record.data async for record in runtime.logs(container_id)]).decode()


async def run(runtime: Runtime, config: ContainerConfig) -> tuple[ContainerState, str]:
    container_id = await start(runtime, config)
    state = await runtime.wait(container_id)
    return state, await output_of(runtime, container_id)


async def first_line(runtime: Runtime, container_id: str) -> LogRecord:
    """Waits until the container has said something."""
    async for record in runtime.logs(container_id, follow=True):
        return record
    raise AssertionError("the container ended without a word")


async def test_output_and_exit_code(runtime: Runtime) -> None:
    state, output = await run(runtime, shell("echo out; echo err >&2; exit 7"))
    assert (state.status, state.exit_code, state.oom_killed, state.pid) == ("exited", 7, False, 0)
    assert sorted(output.split()) == ["err", "out"]
    assert state.started_at is not None
    assert state.finished_at is not None


async def test_running_state_and_list_by_label(runtime: Runtime) -> None:
    container_id = await start(runtime, shell("sleep 1000", name="one", labels={"a": "1", "b": "2"}))
    state = await runtime.inspect("one")
    assert (state.id, state.status, state.exit_code) == (container_id, "running", None)
    assert Path(f"/proc/{state.pid}/root").exists()
    assert [entry.id for entry in await runtime.list({"a": "1"})] == [container_id]
    assert await runtime.list({"a": "2"}) == []


async def test_stop_gives_the_process_time_to_end(runtime: Runtime) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    container_id = await start(runtime, shell(script))
    await first_line(runtime, container_id)
    state = await runtime.stop(container_id, grace_s=30)
    assert state.exit_code == 3
    assert "bye" in await output_of(runtime, container_id)


async def test_stop_kills_who_does_not_listen(runtime: Runtime) -> None:
    container_id = await start(runtime, shell("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
    await first_line(runtime, container_id)
    state = await runtime.stop(container_id, grace_s=0.2)
    assert state.exit_code == 137
    assert not state.oom_killed
    assert (await runtime.stop(container_id)).status == "exited"


async def test_the_configured_stop_signal_is_used(runtime: Runtime) -> None:
    script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    container_id = await start(runtime, shell(script, stop_signal="SIGUSR1"))
    await first_line(runtime, container_id)
    assert (await runtime.stop(container_id, grace_s=30)).exit_code == 5


async def test_kill_and_exits(runtime: Runtime) -> None:
    exits = runtime.exits()
    container_id = await start(runtime, shell("sleep 1000"))
    await runtime.kill(container_id)
    ended = await anext(exits)
    assert (ended.id, ended.exit_code) == (container_id, 137)
    with pytest.raises(FailedPrecondition, match="is not running"):
        await runtime.kill(container_id)


async def test_logs_follow_tail_and_since(runtime: Runtime) -> None:
    container_id = await start(runtime, shell("for i in 1 2 3 4 5; do echo line $i; sleep 0.02; done; printf end"))
    followed = [record async for record in runtime.logs(container_id, follow=True)]
    assert [record.data for record in followed] == [b"line %d\n" % i for i in range(1, 6)] + [b"end"]
    tail = [record.data async for record in runtime.logs(container_id, tail=2)]
    assert tail == [b"line 5\n", b"end"]
    since = [record.data async for record in runtime.logs(container_id, since=followed[3].timestamp)]
    assert since == [b"line 4\n", b"line 5\n", b"end"]


async def test_a_huge_log_keeps_its_end(runtime: Runtime) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo $i is a number; i=$((i+1)); done"
    container_id = await start(runtime, shell(script, log_max_size=16 * 1024))
    await runtime.wait(container_id)
    lines = [record.data async for record in runtime.logs(container_id)]
    assert lines[-1] == b"19999 is a number\n"
    assert len(lines) < 20000


async def test_exec(runtime: Runtime) -> None:
    container_id = await start(runtime, shell("sleep 1000", env=("A=b",), user="web", working_dir="/data"))
    result = await runtime.exec(container_id, [*SH, "id; echo $A; pwd; exit 4"])
    assert result.exit_code == 4
    assert result.output == b"uid=33(web) gid=34(web) groups=34(web),35(log)\nb\n/data\n"
    slow = await runtime.exec(container_id, ["sleep", "1000"], timeout_s=0.2)
    assert slow.timed_out
    assert b"sleep 1000" in (await runtime.exec(container_id, [*SH, "cat /proc/*/cmdline | tr '\\0' ' '"])).output
    many = await runtime.exec(container_id, [*SH, "dd if=/dev/zero bs=1000 count=1000 2>/dev/null"], max_output=10)
    assert (many.exit_code, many.output, many.truncated) == (0, bytes(10), True)
    assert (await runtime.exec(container_id, ["no-such-program"])).exit_code != 0


async def test_memory_limit(runtime: Runtime) -> None:
    state, _ = await run(runtime, shell("dd if=/dev/zero of=/dev/null bs=64M count=1", memory_bytes=16 * MIB))
    assert state.oom_killed
    assert state.exit_code == 137


async def test_pids_limit(runtime: Runtime) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; echo made all"
    state, output = await run(runtime, shell(script, pids_limit=4))
    assert "made all" not in output
    assert state.exit_code != 0


async def test_cpu_limit_reaches_the_kernel(runtime: Runtime) -> None:
    container_id = await start(runtime, shell("sleep 1000", nano_cpus=250_000_000, cpu_shares=512))
    groups = Path("/sys/fs/cgroup")
    quotas = list(groups.glob(f"**/{container_id}/cpu.cfs_quota_us")) + list(groups.glob(f"**/{container_id}/cpu.max"))
    assert [quota.read_text().split()[0] for quota in quotas] == ["25000"]


async def test_rights_files_and_environment(runtime: Runtime) -> None:
    script = "id; pwd; hostname; cat /etc/hosts /etc/resolv.conf /etc/hostname; env; grep CapEff /proc/self/status"
    config = shell(
        script,
        user="web",
        working_dir="/made/on/demand",
        hostname="alpha",
        env=("B=c d",),
        dns=("127.0.0.11",),
        dns_search=("example",),
        extra_hosts=("other:10.1.2.3",),
    )
    state, output = await run(runtime, config)
    lines = output.splitlines()
    assert state.exit_code == 0
    assert lines[:3] == ["uid=33(web) gid=34(web) groups=34(web),35(log)", "/made/on/demand", "alpha"]
    assert {"10.1.2.3\tother", "nameserver 127.0.0.11", "search example", "B=c d", "HOME=/data"} <= set(lines)
    assert "CapEff:\t0000000000000000" in lines


async def test_default_profile_refuses_what_docker_refuses(runtime: Runtime) -> None:
    script = (
        "mount -t tmpfs x /tmp; echo mount $?; echo 1 > /proc/sys/kernel/panic; echo sysctl $?; cat /proc/self/status"
    )
    _, output = await run(runtime, shell(script))
    assert "mount 0" not in output
    assert "sysctl 0" not in output
    assert "Seccomp:\t2" in output
    assert "CapEff:\t00000000a80425fb" in output


async def test_privileged_may(runtime: Runtime) -> None:
    _, output = await run(runtime, shell("mount -t tmpfs x /tmp; echo mount $?; ls /dev", privileged=True))
    assert "mount 0" in output


async def test_mounts(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host")
    mounts = (
        Mount(type="bind", source=str(tmp_path / "in"), target="/bound", read_only=True),
        Mount(type="tmpfs", target="/scratch", options=("size=1m",)),
        Mount(type="volume", source="kept", target="/data"),
    )
    script = "cat /bound; echo x > /bound; echo wrote $?; echo y > /scratch/y && echo z > /data/z; cat /data/z"
    _, output = await run(runtime, shell(script, mounts=mounts))
    assert "from the host" in output
    assert "wrote 1" in output
    _, output = await run(runtime, shell("cat /data/z", mounts=mounts[2:]))
    assert output == "z\n"
    missing = Mount(type="bind", source=str(tmp_path / "no"), target="/x")
    with pytest.raises(InvalidArgument, match="bind source path does not exist"):
        await run(runtime, shell("true", mounts=(missing,)))


async def test_a_new_volume_takes_over_what_the_image_has(runtime: Runtime) -> None:
    def volume(name: str, *, no_copy: bool = False) -> tuple[Mount, ...]:
        return (Mount(type="volume", source=name, target="/etc", no_copy=no_copy),)

    _, output = await run(runtime, shell("ls /etc; rm /etc/group", mounts=volume("full")))
    assert "group" in output.split()
    _, output = await run(runtime, shell("ls /etc", mounts=volume("full")))
    assert "group" not in output.split()
    assert "passwd" in output.split()
    _, output = await run(runtime, shell("ls /etc", mounts=volume("empty", no_copy=True)))
    assert "passwd" not in output.split()


async def test_read_only_root_and_ulimits(runtime: Runtime) -> None:
    limits = (Ulimit(name="nofile", soft=100, hard=100),)
    _, output = await run(runtime, shell("echo x > /file; echo wrote $?; ulimit -n", read_only=True, ulimits=limits))
    assert "wrote 1" in output
    assert "100" in output.split()


async def test_own_network_namespace(runtime: Runtime) -> None:
    _, output = await run(runtime, shell("ip -o link | cat", host_network=False))
    assert "lo" in output
    assert len(output.splitlines()) == len([line for line in output.splitlines() if "eth" not in line])
    other = await runtime.create(shell("sleep 1000", host_network=False))
    pid = (await runtime.start(other)).pid
    joined = await start(runtime, shell("sleep 1000", host_network=False, netns_path=f"/proc/{pid}/ns/net"))
    namespaces = [Path(f"/proc/{number}/ns/net").readlink() for number in (pid, (await runtime.inspect(joined)).pid)]
    assert namespaces[0] == namespaces[1]


async def test_tty(runtime: Runtime) -> None:
    state, output = await run(runtime, shell("test -t 1 && echo terminal; exit 2", tty=True))
    assert (state.exit_code, output.strip()) == (2, "terminal")


async def test_a_container_starts_again_with_its_files(runtime: Runtime) -> None:
    container_id = await start(runtime, shell("cat /kept; echo data > /kept; exit 1"))
    await runtime.wait(container_id)
    await runtime.start(container_id)
    assert (await runtime.wait(container_id)).exit_code == 1
    assert "data" in await output_of(runtime, container_id)


async def test_a_program_that_is_not_there(runtime: Runtime) -> None:
    container_id = await runtime.create(ContainerConfig(image="busybox", command=("nothing",), host_network=True))
    with pytest.raises(FailedPrecondition, match="nothing"):
        await runtime.start(container_id)
    state = await runtime.inspect(container_id)
    assert (state.status, state.exit_code) == ("created", 127)
    assert "nothing" in state.error
    await runtime.remove(container_id)


async def test_refusals(runtime: Runtime) -> None:
    with pytest.raises(NotFound, match="No such image: nginx:latest"):
        await runtime.create(ContainerConfig(image="nginx"))
    with pytest.raises(NotFound, match="No such container: x"):
        await runtime.start("x")
    container_id = await start(runtime, shell("sleep 1000", name="taken"))
    with pytest.raises(AlreadyExists, match="already in use"):
        await runtime.create(shell("true", name="taken"))
    with pytest.raises(FailedPrecondition, match="cannot remove a running container"):
        await runtime.remove(container_id)
    with pytest.raises(FailedPrecondition, match="is using it"):
        await runtime.images.remove("busybox", force=True)
    await runtime.remove(container_id, force=True)
    with pytest.raises(NotFound):
        await runtime.inspect(container_id)


async def test_remove_leaves_nothing(runtime: Runtime, base: Path) -> None:
    container_id = await start(runtime, shell("sleep 1000"))
    assert list(Path("/sys/fs/cgroup").glob(f"**/{container_id}"))
    await runtime.remove(container_id, force=True)
    assert list(base.glob(f"**/*{container_id}*")) == []
    assert list(Path("/sys/fs/cgroup").glob(f"**/{container_id}")) == []
    assert str(base) not in Path("/proc/self/mountinfo").read_text()


async def test_many_at_once(runtime: Runtime) -> None:
    ids = await asyncio.gather(*(start(runtime, shell("sleep 1000")) for _ in range(12)))
    assert {state.status for state in await runtime.list()} == {"running"}
    states = await asyncio.gather(*(runtime.stop(container_id, 0) for container_id in ids))
    assert {state.exit_code for state in states} == {137}


async def test_a_cancelled_start_is_finished(runtime: Runtime) -> None:
    container_id = await runtime.create(shell("sleep 1000"))
    starting = asyncio.ensure_future(runtime.start(container_id))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert (await runtime.start(container_id)).status == "running"


async def test_both_oci_runtimes(base: Path, rootfs_tar: Path, oci_runtime: str) -> None:
    config = RuntimeConfig(
        root=base / "r2",
        run_dir=base / "run2",
        oci_runtime=oci_runtime,
        cgroup_parent=f"/pyswarm-rt-test/{os.getpid()}",
    )
    runtime = await Runtime.open(config)
    try:
        await runtime.images.import_(rootfs_tar, "busybox")
        assert runtime.preflight.oci_runtime == oci_runtime
        state, output = await run(runtime, shell("echo hi; exit 3", memory_bytes=64 * MIB, pids_limit=20))
        assert (state.exit_code, output) == (3, "hi\n")
        container_id = await start(runtime, shell("sleep 1000"))
        assert (await runtime.exec(container_id, ["echo", "inside"])).output == b"inside\n"
        assert (await runtime.stop(container_id, 0)).exit_code == 137
        memory, _ = await run(runtime, shell("dd if=/dev/zero of=/dev/null bs=64M count=1", memory_bytes=16 * MIB))
        assert memory.oom_killed
    finally:
        await runtime.destroy()


@pytest.fixture
def secretive() -> Iterator[None]:
    """The daemon's own files are for root alone."""
    before = os.umask(0o077)
    yield
    os.umask(before)


async def test_users_of_a_container_see_its_files_whatever_the_daemons_umask(secretive: None, runtime: Runtime) -> None:
    volume = Mount(type="volume", source="fresh", target="/volumes/deep/fresh")
    config = shell(
        "id -u; pwd; ls -d /volumes/deep/fresh; cat /etc/hostname", user="web", working_dir="/a/b", mounts=(volume,)
    )
    state, output = await run(runtime, msgspec.structs.replace(config, hostname="seen"))
    assert (state.exit_code, output.split()) == (0, ["33", "/a/b", "/volumes/deep/fresh", "seen"])
