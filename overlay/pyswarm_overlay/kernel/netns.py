"""Network namespaces kept alive by a bind mount in the daemon's own mount namespace.

`create` and `enter` move the calling thread: use them inside `Threads.run`. A path counts as a namespace only when the
kernel says so; a plain file left by a killed daemon does not.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from . import libc

_NS_GET_NSTYPE = 0xB703
_OWN = "/proc/thread-self/ns/net"


def prepare_directory(directory: Path) -> None:
    """Make `directory` a private mount point, so that the namespaces in it leak into no other mount namespace."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not is_mounted(directory):
        libc.bind_mount(str(directory), directory)
        libc.make_private(directory)


def is_mounted(directory: Path) -> bool:
    """A bind mount of a directory onto itself has its parent's device, so only the mount table tells."""
    wanted = os.fsencode(directory.resolve()).replace(b" ", b"\\040")  # as the table writes it
    table = Path("/proc/thread-self/mountinfo").read_bytes()
    return any(line.split(b" ", 5)[4] == wanted for line in table.splitlines())


def create(path: Path) -> int:
    """Move this thread into a new namespace and keep it at `path`; returns a descriptor of it."""
    libc.unshare_net()
    path.touch(mode=0o600, exist_ok=True)
    libc.bind_mount(_OWN, path)
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def keep(fd: int, path: Path) -> None:
    """Keep the namespace behind `fd` at `path` (again)."""
    path.touch(mode=0o600, exist_ok=True)
    libc.bind_mount(f"/proc/thread-self/fd/{fd}", path)


def open_existing(path: Path) -> int | None:
    """A descriptor of the namespace kept at `path`, or None when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if fcntl.ioctl(fd, _NS_GET_NSTYPE) == libc.CLONE_NEWNET:
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def exists(path: Path) -> bool:
    fd = open_existing(path)
    if fd is None:
        return False
    os.close(fd)
    return True


def remove_mounts(path: Path) -> None:
    """However many were put over one another."""
    while True:
        try:
            libc.unmount(path)
        except OSError:
            return


def remove(path: Path) -> None:
    """Give the namespace up: the kernel frees it when its last process and descriptor are gone."""
    remove_mounts(path)
    with suppress(FileNotFoundError):
        path.unlink()


def remove_directory(directory: Path) -> None:
    """The whole of `prepare_directory`'s work, undone; what is still in it goes first."""
    if directory.is_dir():
        for path in directory.iterdir():
            remove(path)
        remove_mounts(directory)
        directory.rmdir()
