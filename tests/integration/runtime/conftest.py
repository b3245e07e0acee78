"""A runtime of its own for each test, in a private mount namespace, with everything taken away afterwards.

The pytest process itself moves into a new mount namespace before it has threads. There the hybrid `unified` control
group mount is taken off, since crun refuses hybrid hosts; the machine's own mounts stay as they are.
"""

from __future__ import annotations

import ctypes
import io
import os
import secrets
import shutil
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pyswarm_runtime import Runtime, RuntimeConfig, linux

CLONE_NEWNS = 0x20000
APPLETS = (
    "sh",
    "sleep",
    "cat",
    "echo",
    "id",
    "ls",
    "kill",
    "env",
    "true",
    "false",
    "dd",
    "hostname",
    "grep",
    "ip",
    "mount",
    "mkdir",
    "mknod",
    "wc",
    "readlink",
    "ln",
    "rm",
    "test",
)


def has_all() -> bool:
    return os.geteuid() == 0 and all(shutil.which(name) for name in ("crun", "runc", "conmon", "busybox"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            if not has_all():
                item.add_marker(pytest.mark.skip(reason="needs root, crun, runc, conmon and busybox"))


@pytest.fixture(scope="session", autouse=True)
def private_mounts() -> None:
    if not has_all():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    linux.mount("none", "/", "none", linux.MS_REC | linux.MS_PRIVATE)
    if Path("/sys/fs/cgroup/unified/cgroup.controllers").exists():
        linux.umount("/sys/fs/cgroup/unified", linux.MNT_DETACH)


def add_file(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    archive.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="session")
def rootfs_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of busybox, as `docker export` would write it."""
    path = tmp_path_factory.mktemp("rootfs") / "busybox.tar"
    busybox = shutil.which("busybox")
    assert busybox is not None
    with tarfile.open(path, "w") as archive:
        for directory in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "data"):
            member = tarfile.TarInfo(directory)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        add_file(archive, "bin/busybox", Path(busybox).read_bytes(), 0o755)
        for applet in APPLETS:
            member = tarfile.TarInfo(f"bin/{applet}")
            member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(member)
        add_file(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/data:/bin/sh\n")
        add_file(archive, "etc/group", b"root:x:0:\nweb:x:34:\nlog:x:35:web\n")
    return path


def new_config(base: Path, oci_runtime: str | None = None) -> RuntimeConfig:
    return RuntimeConfig(
        root=base / "root",
        run_dir=base / "run",
        oci_runtime=oci_runtime,
        cgroup_parent=f"/pyswarm-rt-test/{secrets.token_hex(4)}",
    )


def mounts_below(base: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(base) in line]


def processes_naming(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                if text in arguments:
                    found.append(f"{entry.name}: {arguments}")
    return found


def groups_of(config: RuntimeConfig) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**{config.cgroup_parent}"))


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    left = (mounts_below(tmp_path), processes_naming(str(tmp_path)))
    assert left == ([], []), "the test left mounts or processes behind"


@pytest.fixture(params=["crun", "runc"])
def oci_runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def runtime(base: Path, rootfs_tar: Path) -> AsyncIterator[Runtime]:
    config = new_config(base, "crun")
    opened = await Runtime.open(config)
    try:
        await opened.images.import_(rootfs_tar, "busybox", cmd=("sh",))
        yield opened
    finally:
        await opened.destroy()
    assert groups_of(config) == []
    assert not config.root.exists()
