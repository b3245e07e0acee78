"""The few system calls that the standard library lacks: mount, umount2, openat2, syncfs, inotify.

Each is one call that raises `OSError` with the path in question. Nothing here decides anything.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MNT_DETACH = 0x2

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_NONBLOCK = 0o4000
IN_CLOEXEC = 0o2000000

_SYS_OPENAT2 = 437  # the same on every architecture
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _failed(subject: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), subject)


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    encoded = [os.fsencode(part) for part in (source, target, fstype)]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(data) if data else None) != 0:
        raise _failed(target)


def umount(target: str, flags: int = 0) -> None:
    if _libc.umount2(os.fsencode(target), flags) != 0:
        raise _failed(target)


class _StatFs(ctypes.Structure):
    _fields_ = (("type", ctypes.c_long), ("rest", ctypes.c_byte * 512))


def file_system_type(path: Path) -> int:
    """The magic number of the file system at `path` (statfs(2))."""
    answer = _StatFs()
    if _libc.statfs(os.fsencode(path), ctypes.byref(answer)) != 0:
        raise _failed(str(path))
    return int(answer.type)


def open_in_root(root_fd: int, path: str, flags: int) -> int:
    """Opens `path` as a process whose root is `root_fd` would see it: no link and no `..` leads outside."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    fd = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(root_fd), os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
    )
    if fd < 0:
        raise _failed(path)
    return int(fd)


def syncfs(fd: int) -> None:
    if _libc.syncfs(fd) != 0:
        raise _failed(f"fd {fd}")


def inotify_init() -> int:
    fd = _libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
    if fd < 0:
        raise _failed("inotify")
    return int(fd)


def inotify_add_watch(fd: int, path: Path, mask: int) -> int:
    watch = _libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask))
    if watch < 0:
        raise _failed(str(path))
    return int(watch)


def inotify_remove_watch(fd: int, watch: int) -> None:
    """Failing is no harm: the directory, and the watch with it, may be gone already."""
    _libc.inotify_rm_watch(fd, watch)
