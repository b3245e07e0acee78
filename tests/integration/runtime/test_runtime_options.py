"""Every option of a container is true inside it: one look from within, for each of them, in the real kernel."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pyswarm_common.errors import FailedPrecondition, InvalidArgument, PyswarmError, Unsupported
from pyswarm_runtime import ContainerConfig, ContainerState, Device, Mount, Runtime, RuntimeConfig, Ulimit, linux

MIB = 1024 * 1024
GETPID_FAILS = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}


def shell(script: str, **settings: object) -> ContainerConfig:
    settings.setdefault("host_network", True)
    return ContainerConfig(image="busybox", command=("sh", "-c", script), **settings)  # type: ignore[arg-type]


async def run(runtime: Runtime, script: str, **settings: object) -> tuple[ContainerState, str]:
    container_id = await runtime.create(shell(script, **settings))
    await runtime.start(container_id)
    state = await runtime.wait(container_id)
    output = b"".join([record.data async for record in runtime.logs(container_id)]).decode()
    await runtime.remove(container_id)
    return state, output.strip()


async def said(runtime: Runtime, script: str, **settings: object) -> str:
    return (await run(runtime, script, **settings))[1]


async def test_groups_by_name_and_number(runtime: Runtime) -> None:
    assert (await said(runtime, "id -G", groups=("log", "4242"))).split() == ["0", "35", "4242"]
    with pytest.raises(InvalidArgument, match="unable to find group nobodys"):
        await run(runtime, "id", groups=("nobodys",))


async def test_name_servers_search_domains_and_options(runtime: Runtime) -> None:
    output = await said(
        runtime, "cat /etc/resolv.conf", dns=("192.0.2.1",), dns_search=("a.test", "b.test"), dns_options=("ndots:3",)
    )
    assert output.splitlines() == ["nameserver 192.0.2.1", "search a.test b.test", "options ndots:3"]


async def test_hostname_hosts_directory_and_environment(runtime: Runtime) -> None:
    script = "hostname; grep 192.0.2.9 /etc/hosts; pwd; echo $GREETING"
    settings = {"hostname": "box", "extra_hosts": ("db:192.0.2.9",), "working_dir": "/data", "env": ("GREETING=hi",)}
    assert (await said(runtime, script, **settings)).split() == ["box", "192.0.2.9", "db", "/data", "hi"]


async def test_ulimits(runtime: Runtime) -> None:
    limits = (Ulimit(name="nofile", soft=64, hard=128), Ulimit(name="core", soft=0, hard=0))
    assert (await said(runtime, "ulimit -Sn; ulimit -Hn; ulimit -c", ulimits=limits)).split() == ["64", "128", "0"]


async def test_oom_score_adj(runtime: Runtime) -> None:
    assert await said(runtime, "cat /proc/self/oom_score_adj", oom_score_adj=321) == "321"


async def test_swap_and_swappiness(runtime: Runtime) -> None:
    if runtime.preflight.cgroup_version != 1:
        pytest.skip("looks where control groups v1 have it")
    container_id = await runtime.create(
        shell("sleep 1000", memory_bytes=64 * MIB, memory_swap_bytes=96 * MIB, memory_swappiness=7)
    )
    pid = (await runtime.start(container_id)).pid
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    group = next(line.split(":")[2] for line in lines if ":memory:" in line)
    directory = Path("/sys/fs/cgroup/memory") / group.lstrip("/")
    assert int((directory / "memory.limit_in_bytes").read_text()) == 64 * MIB
    assert int((directory / "memory.memsw.limit_in_bytes").read_text()) == 96 * MIB
    assert int((directory / "memory.swappiness").read_text()) == 7


async def test_a_device_may_be_used_as_far_as_it_was_given(runtime: Runtime) -> None:
    script = "(: < /dev/mine) && echo read; (: > /dev/mine) 2>/dev/null || echo refused; ls -l /dev/mine"
    devices = (Device(host_path="/dev/fuse", container_path="/dev/mine", permissions="r"),)
    output = await said(runtime, script, devices=devices)
    assert output.split()[:2] == ["read", "refused"]
    assert "10, 229" in output
    with pytest.raises(InvalidArgument, match="error gathering device information"):
        await run(runtime, "true", devices=(Device(host_path="/dev/there-is-none"),))


async def test_a_device_that_was_not_given_cannot_be_opened(runtime: Runtime) -> None:
    script = "mknod /tmp/kmsg c 1 11; cat /tmp/kmsg >/dev/null 2>&1 || echo refused"
    assert await said(runtime, script) == "refused"
    devices = (Device(host_path="/dev/kmsg", permissions="r"),)
    assert "refused" not in await said(runtime, "dd if=/dev/kmsg bs=8192 count=1 of=/dev/null 2>&1", devices=devices)


async def test_privileged_sees_the_devices_and_has_every_right(runtime: Runtime) -> None:
    script = "mkdir /m && mount -t tmpfs none /m && echo mounted; ls /dev/kmsg; grep Seccomp: /proc/self/status"
    output = await said(runtime, script, privileged=True)
    assert output.split() == ["mounted", "/dev/kmsg", "Seccomp:", "0"]


async def test_no_new_privileges(runtime: Runtime) -> None:
    script = "grep NoNewPrivs /proc/self/status"
    assert (await said(runtime, script)).split()[1] == "0"
    assert (await said(runtime, script, no_new_privileges=True)).split()[1] == "1"


async def test_seccomp_profiles(runtime: Runtime) -> None:
    profile = msgspec.json.encode(GETPID_FAILS).decode()
    script = "grep Seccomp: /proc/self/status; mkdir /tmp/x 2>&1"
    assert "Operation not permitted" in await said(runtime, script, seccomp_profile=profile)
    assert (await said(runtime, script)).split() == ["Seccomp:", "2"]
    assert (await said(runtime, script, seccomp_profile="unconfined")).split() == ["Seccomp:", "0"]
    with pytest.raises(InvalidArgument, match="Decoding seccomp profile failed"):
        await runtime.create(shell("true", seccomp_profile="{"))


async def test_a_profile_of_apparmor_where_there_is_none_is_refused(runtime: Runtime) -> None:
    if Path("/sys/module/apparmor/parameters/enabled").exists():
        pytest.skip("this kernel has AppArmor")
    assert await said(runtime, "echo ran", apparmor_profile="unconfined") == "ran"
    with pytest.raises(Unsupported, match="AppArmor is not enabled"):
        await run(runtime, "true", apparmor_profile="mine")


async def test_shared_memory_has_the_wanted_size(runtime: Runtime) -> None:
    assert "size=65536k" in await said(runtime, "grep ' /dev/shm ' /proc/mounts")
    assert "size=8192k" in await said(runtime, "grep ' /dev/shm ' /proc/mounts", shm_size_bytes=8 * MIB)


async def test_the_hosts_processes(runtime: Runtime) -> None:
    assert await said(runtime, "echo $$") == "1"
    assert f"/proc/{os.getpid()}/status" in await said(runtime, f"ls /proc/{os.getpid()}/status", host_pid=True)


async def test_nothing_of_a_container_with_the_hosts_processes_is_left(runtime: Runtime) -> None:
    container_id = await runtime.create(shell("sleep 4321 & sleep 1234", host_pid=True))
    await runtime.start(container_id)
    await runtime.stop(container_id, grace_s=0.1)
    left = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and "4321" in _arguments(entry)]
    assert left == []


def _arguments(entry: Path) -> list[str]:
    try:
        return (entry / "cmdline").read_text().split("\0")
    except OSError:
        return []


async def test_the_hosts_ipc(runtime: Runtime) -> None:
    own, host = "readlink /proc/self/ns/ipc", str(Path("/proc/self/ns/ipc").readlink())
    assert await said(runtime, own) != host
    assert await said(runtime, own, host_ipc=True) == host


async def test_an_init_reaps_and_hands_signals_on(runtime: Runtime) -> None:
    if not any(shutil.which(name) for name in ("docker-init", "tini-static", "catatonit", "tini")):
        pytest.skip("needs tini")
    assert "init" in await said(runtime, "cat /proc/1/comm; echo $$", init=True)
    script = "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done"
    container_id = await runtime.create(shell(script, init=True))
    await runtime.start(container_id)
    async for _ in runtime.logs(container_id, follow=True):
        break
    assert (await runtime.stop(container_id, grace_s=30)).exit_code == 6


async def test_a_terminal_and_an_open_standard_input(runtime: Runtime) -> None:
    assert await said(runtime, "test -t 1 && echo terminal", tty=True) == "terminal"
    assert await said(runtime, "read line; echo end of input") == "end of input"
    container_id = await runtime.create(shell("read line; echo end of input", stdin_open=True))
    state = await runtime.start(container_id)
    assert str(Path(f"/proc/{state.pid}/fd/0").readlink()).startswith("pipe:")
    assert (await runtime.stop(container_id, grace_s=0.1)).exit_code == 137


async def test_sysctls(runtime: Runtime) -> None:
    settings = {"sysctls": {"net.ipv4.ip_unprivileged_port_start": "81"}, "host_network": False}
    assert await said(runtime, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", **settings) == "81"


async def test_the_log_driver_none_keeps_nothing(runtime: Runtime) -> None:
    container_id = await runtime.create(shell("echo unheard", log_driver="none"))
    await runtime.start(container_id)
    assert (await runtime.wait(container_id)).exit_code == 0
    with pytest.raises(Unsupported, match="configured logging driver does not support reading"):
        _ = [record async for record in runtime.logs(container_id)]


async def test_a_tmpfs_has_its_size_and_mode(runtime: Runtime) -> None:
    mounts = (Mount(type="tmpfs", target="/t", options=("size=1048576", "mode=0700")),)
    output = await said(runtime, "grep ' /t ' /proc/mounts; ls -ld /t", mounts=mounts)
    assert "size=1024k" in output
    assert "drwx------" in output


@pytest.fixture
def shared_mount(tmp_path: Path) -> Iterator[Path]:
    """A shared mount, with another mount below it."""
    below = tmp_path / "shared" / "below"
    below.mkdir(parents=True)
    linux.mount("none", str(tmp_path / "shared"), "tmpfs")
    linux.mount("", str(tmp_path / "shared"), "", linux.MS_SHARED)
    below.mkdir()
    linux.mount("none", str(below), "tmpfs")
    (below / "deep").touch()
    yield tmp_path / "shared"
    linux.umount(str(tmp_path / "shared"), linux.MNT_DETACH)


async def test_binds_with_and_without_what_is_mounted_below(runtime: Runtime, shared_mount: Path) -> None:
    def bind(**settings: object) -> tuple[Mount, ...]:
        return (Mount(type="bind", source=str(shared_mount), target="/b", **settings),)  # type: ignore[arg-type]

    assert await said(runtime, "ls /b/below", mounts=bind()) == "deep"
    assert await said(runtime, "ls /b/below", mounts=bind(non_recursive=True)) == ""
    assert await said(runtime, "grep ' /b ' /proc/mounts | grep -c ro,", mounts=bind(read_only=True)) == "1"


async def test_mounts_travel_as_the_propagation_says(runtime: Runtime, shared_mount: Path, tmp_path: Path) -> None:
    mounts = (Mount(type="bind", source=str(shared_mount), target="/b", propagation="rshared"),)
    settings = {"privileged": True, "mounts": mounts}
    await run(runtime, "mkdir /b/made && mount -t tmpfs none /b/made && echo x > /b/made/file", **settings)
    assert (shared_mount / "made" / "file").exists()
    (tmp_path / "private").mkdir()
    private = (Mount(type="bind", source=str(tmp_path / "private"), target="/b", propagation="rshared"),)
    with pytest.raises(InvalidArgument, match="it is not a shared mount"):
        await run(runtime, "true", mounts=private)


async def test_mounts_of_the_host_reach_a_slave(runtime: Runtime, shared_mount: Path) -> None:
    mounts = (Mount(type="bind", source=str(shared_mount), target="/b", propagation="rslave"),)
    script = "echo ready; while [ ! -e /b/late/file ]; do sleep 0.02; done; echo seen"
    container_id = await runtime.create(shell(script, mounts=mounts))
    await runtime.start(container_id)
    (shared_mount / "late").mkdir()
    linux.mount("none", str(shared_mount / "late"), "tmpfs")
    (shared_mount / "late" / "file").touch()
    assert (await runtime.wait(container_id)).exit_code == 0


async def test_an_anonymous_volume_goes_with_its_container(runtime: Runtime, base: Path) -> None:
    mounts = (Mount(type="volume", target="/etc"),)
    container_id = await runtime.create(
        shell("test -e /etc/group && echo x >> /etc/new; wc -l < /etc/new", mounts=mounts)
    )
    for expected in (1, 2):
        await runtime.start(container_id)
        await runtime.wait(container_id)
        lines = [record.data.strip() async for record in runtime.logs(container_id)]
        assert lines[-1] == b"%d" % expected
    assert len(list((base / "root" / "volumes").iterdir())) == 1
    await runtime.remove(container_id)
    assert list((base / "root" / "volumes").iterdir()) == []


async def test_a_path_within_a_volume(runtime: Runtime) -> None:
    whole = (Mount(type="volume", source="v", target="/v"),)
    await run(runtime, "mkdir -p /v/a/b; echo found > /v/a/b/file; ln -s /etc /v/out", mounts=whole)
    part = (Mount(type="volume", source="v", target="/p", subpath="a/b"),)
    assert await said(runtime, "cat /p/file", mounts=part) == "found"
    for path, error in (("nowhere", FailedPrecondition), ("out", FailedPrecondition), ("../..", InvalidArgument)):
        with pytest.raises(error):
            await run(runtime, "true", mounts=(Mount(type="volume", source="v", target="/p", subpath=path),))


async def test_a_volume_with_a_file_system_behind_it(runtime: Runtime, base: Path) -> None:
    """It is one for all that use it, and mounted no longer than one does."""
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid"}
    mounts = (Mount(type="volume", source="ram", target="/ram", volume_options=options, volume_labels={"a": "b"}),)
    first = await runtime.create(shell("echo shared > /ram/file; sleep 1000", mounts=mounts))
    await runtime.start(first)
    script = "while [ ! -s /ram/file ]; do sleep 0.02; done; cat /ram/file; grep ' /ram ' /proc/mounts"
    output = await said(runtime, script, mounts=mounts)
    assert output.split()[0] == "shared"
    assert "size=1024k" in output
    data = base / "root" / "volumes" / "ram" / "_data"
    assert os.path.ismount(data)
    await runtime.remove(first, force=True)
    assert not os.path.ismount(data)


async def test_a_volume_bound_to_a_directory(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("bound")
    options = {"type": "none", "device": str(tmp_path / "there"), "o": "bind,ro"}
    mounts = (Mount(type="volume", source="dir", target="/d", volume_options=options),)
    assert (
        await said(runtime, "cat /d/file; { echo x > /d/other; } 2>/dev/null || echo refused", mounts=mounts)
        == "boundrefused"
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"volume_driver": "rexray"}, 'plugin "rexray" not found'),
        ({"volume_options": {"colour": "blue"}}, 'invalid option: "colour"'),
        ({"volume_options": {"type": "nfs"}}, 'missing required option: "device"'),
        ({"volume_options": {"size": "1g"}}, "no quota support"),
    ],
    ids=["driver", "option", "device", "size"],
)
async def test_volumes_that_cannot_be(runtime: Runtime, settings: dict[str, object], sentence: str) -> None:
    mount = Mount(type="volume", source="v", target="/v", **settings)  # type: ignore[arg-type]
    with pytest.raises(PyswarmError, match=sentence):
        await runtime.create(shell("true", mounts=(mount,)))


async def test_the_daemons_password_for_a_file_system_is_in_no_error(runtime: Runtime) -> None:
    options = {"type": "cifs", "device": "//192.0.2.1/x", "o": "addr=127.0.0.1,username=u,password=Geheimnis77"}
    mounts = (Mount(type="volume", source="smb", target="/v", volume_options=options),)
    with pytest.raises(FailedPrecondition, match="failed to mount local volume smb") as refused:
        await run(runtime, "true", mounts=mounts)
    assert "Geheimnis77" not in str(refused.value)


async def test_runc_makes_the_same_true(base: Path, rootfs_tar: Path) -> None:
    """The other OCI runtime, once, with everything that it reads differently."""
    config = RuntimeConfig(
        root=base / "root",
        run_dir=base / "run",
        oci_runtime="runc",
        cgroup_parent=f"/pyswarm-rt-test/{secrets.token_hex(4)}",
    )
    runtime = await Runtime.open(config)
    try:
        await runtime.images.import_(rootfs_tar, "busybox", cmd=("sh",))
        settings = {
            "no_new_privileges": True,
            "seccomp_profile": msgspec.json.encode(GETPID_FAILS).decode(),
            "shm_size_bytes": 8 * MIB,
            "host_pid": True,
            "host_ipc": True,
            "groups": ("log",),
            "oom_score_adj": 5,
            "devices": (Device(host_path="/dev/zero", container_path="/dev/mine"),),
            "mounts": (Mount(type="volume", target="/v", source="v"),),
        }
        script = "id -G; cat /proc/self/oom_score_adj; dd if=/dev/mine bs=2 count=1 2>/dev/null | wc -c; mkdir /x 2>&1"
        output = await said(runtime, script, **settings)
        assert output.split()[:4] == ["0", "35", "5", "2"]
        assert "not permitted" in output
    finally:
        await runtime.destroy()
