"""Unpacks one untrusted layer into a directory: `python -m pyswarm_runtime.unpack DIRECTORY LIMITS < layer`.

Runs as a process of its own, with its root changed to the directory, so that no path can leave it; and every path is
also resolved by the kernel as if the directory were the root (openat2), so that the function is safe by itself.
Whiteouts become overlayfs's: a character device 0/0, and an `opaque` mark. It prints one JSON line: what was
unpacked, and the digest of the uncompressed stream, or why not. The layer store (`layers.py`) acts on it.
"""

from __future__ import annotations

import os
import resource
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from pyswarm_common.errors import InvalidArgument, PyswarmError
from pyswarm_runtime import linux
from pyswarm_runtime.tarstream import ForwardReader, copy_member, members

WHITEOUT_PREFIX = ".wh."
OPAQUE_MARK = ".wh..wh..opq"
RESERVED_PREFIX = ".wh..wh."
OPAQUE_XATTR = "trusted.overlay.opaque"
MAX_ADDRESS_SPACE = 2 * 1024**3
# (major, minor) of null, zero, full, random, urandom, tty, console, ptmx: the only devices a layer may bring.
SAFE_DEVICES = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)}
_XATTR_HEADER = "SCHILY.xattr."
_DIR_FLAGS = os.O_PATH | os.O_DIRECTORY
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class UnpackResult(msgspec.Struct, frozen=True, kw_only=True):
    diff_id: str = ""
    entries: int = 0
    bytes: int = 0
    skipped_devices: int = 0
    error: str = ""


class LayerUnpacker:
    """Applies entries below one directory descriptor. Not for use by several threads."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._parent_path: str | None = None
        self._parent_fd = -1
        self._directory_times: list[tuple[str, float]] = []
        self.entries = 0
        self.skipped_devices = 0
        self._makers: dict[bytes, Callable[[tarfile.TarInfo, str], bool]] = {
            tarfile.DIRTYPE: self._make_directory,
            tarfile.SYMTYPE: self._make_symlink,
            tarfile.LNKTYPE: self._make_hardlink,
            tarfile.CHRTYPE: self._make_device,
            tarfile.BLKTYPE: self._make_device,
            tarfile.FIFOTYPE: self._make_fifo,
        }

    def unpack(self, reader: ForwardReader, max_entries: int) -> None:
        for archive, member in members(reader, max_entries):
            self._apply(archive, member, reader)
            self.entries += 1
        # Last, since making files in a directory changes its time.
        for path, mtime in reversed(self._directory_times):
            self._set_time(path, mtime)

    def close(self) -> None:
        self._forget_parent()

    def _apply(self, archive: tarfile.TarFile, member: tarfile.TarInfo, reader: ForwardReader) -> None:
        path = clean_path(member.name)
        if path == ".":
            self._set_root_attributes(member)
            return
        parent, _, name = path.rpartition("/")
        self._enter(parent)
        if name.startswith(WHITEOUT_PREFIX):
            self._apply_whiteout(name)
            return
        if member.isreg():
            self._make_file(archive, member, reader, name)
        elif not self._makers.get(member.type, self._refuse)(member, name):
            return
        self._set_attributes(member, name, path)

    # Where things go

    def _enter(self, path: str) -> None:
        """Opens the parent directory, making what is missing. Links on the way are followed within the root."""
        if path == self._parent_path:
            return
        self._forget_parent()
        try:
            self._parent_fd = linux.open_in_root(self._root_fd, path or ".", _DIR_FLAGS)
        except FileNotFoundError:
            self._parent_fd = self._make_parents(path)
        self._parent_path = path

    def _make_parents(self, path: str) -> int:
        fd = linux.open_in_root(self._root_fd, ".", _DIR_FLAGS)
        walked = ""
        for part in path.split("/"):
            walked = f"{walked}/{part}"
            try:
                following = linux.open_in_root(self._root_fd, walked, _DIR_FLAGS)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=fd)
                following = linux.open_in_root(self._root_fd, walked, _DIR_FLAGS)
            os.close(fd)
            fd = following
        return fd

    def _forget_parent(self) -> None:
        if self._parent_fd >= 0:
            os.close(self._parent_fd)
        self._parent_path, self._parent_fd = None, -1

    def _clear(self, name: str, *, keep_directory: bool = False) -> bool:
        """Takes away what an earlier entry left under this name; says whether a directory was kept."""
        try:
            mode = os.stat(name, dir_fd=self._parent_fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(mode):
            if keep_directory:
                return True
            remove_tree(self._parent_fd, name)
        else:
            os.unlink(name, dir_fd=self._parent_fd)
        return False

    # What is made

    def _make_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, reader: ForwardReader, name: str) -> None:
        self._clear(name)
        fd = os.open(name, _CREATE_FLAGS, 0o600, dir_fd=self._parent_fd)
        with os.fdopen(fd, "wb", buffering=0) as file:
            for chunk in copy_member(archive, member, reader):
                file.write(chunk)

    def _make_directory(self, member: tarfile.TarInfo, name: str) -> bool:
        del member
        if not self._clear(name, keep_directory=True):
            os.mkdir(name, 0o755, dir_fd=self._parent_fd)
        return True

    def _make_symlink(self, member: tarfile.TarInfo, name: str) -> bool:
        """Any target will do: it is only ever followed inside a container, or by openat2 within this root."""
        self._clear(name)
        os.symlink(member.linkname, name, dir_fd=self._parent_fd)
        return True

    def _make_hardlink(self, member: tarfile.TarInfo, name: str) -> bool:
        target_parent, _, target_name = clean_path(member.linkname).rpartition("/")
        try:
            fd = linux.open_in_root(self._root_fd, target_parent or ".", _DIR_FLAGS)
        except OSError as error:
            raise InvalidArgument(f"the layer links '{member.name}' to '{member.linkname}', which it lacks") from error
        try:
            self._link(member, fd, target_name, name)
        finally:
            os.close(fd)
        return False  # it shares its target's owner, mode and times

    def _link(self, member: tarfile.TarInfo, target_fd: int, target_name: str, name: str) -> None:
        try:
            target = os.stat(target_name, dir_fd=target_fd, follow_symlinks=False)
        except FileNotFoundError as error:
            raise InvalidArgument(f"the layer links '{member.name}' to '{member.linkname}', which it lacks") from error
        if stat.S_ISDIR(target.st_mode):
            raise InvalidArgument(f"the layer hard-links '{member.name}' to a directory")
        if _is_same(target, self._parent_fd, name):
            return
        self._clear(name)
        os.link(target_name, name, src_dir_fd=target_fd, dst_dir_fd=self._parent_fd, follow_symlinks=False)

    def _make_device(self, member: tarfile.TarInfo, name: str) -> bool:
        number = (member.devmajor, member.devminor)
        if member.type != tarfile.CHRTYPE or number not in SAFE_DEVICES:
            self.skipped_devices += 1
            return False
        self._clear(name)
        os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(*number), dir_fd=self._parent_fd)
        return True

    def _make_fifo(self, member: tarfile.TarInfo, name: str) -> bool:
        del member
        self._clear(name)
        os.mkfifo(name, 0o600, dir_fd=self._parent_fd)
        return True

    def _refuse(self, member: tarfile.TarInfo, name: str) -> bool:
        raise InvalidArgument(f"the layer has '{name}' of a kind that is not known ({member.type!r})")

    def _apply_whiteout(self, name: str) -> None:
        if name == OPAQUE_MARK:
            # Through /proc, since an O_PATH descriptor takes no attributes and there is no setxattrat here.
            with_rights = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._parent_fd)
            try:
                os.setxattr(with_rights, OPAQUE_XATTR, b"y")
            finally:
                os.close(with_rights)
            return
        if name.startswith(RESERVED_PREFIX):
            return  # other marks of aufs, which mean nothing here
        hidden = name.removeprefix(WHITEOUT_PREFIX)
        if hidden in ("", ".", ".."):
            raise InvalidArgument(f"the layer has a whiteout of nothing: '{name}'")
        self._clear(hidden)
        os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=self._parent_fd)

    # What it looks like

    def _set_attributes(self, member: tarfile.TarInfo, name: str, path: str) -> None:
        os.chown(name, member.uid, member.gid, dir_fd=self._parent_fd, follow_symlinks=False)
        if not member.issym():
            # A symbolic link cannot stand here: the entry was just made, and nothing else writes below this root.
            os.chmod(name, member.mode & 0o7777, dir_fd=self._parent_fd)
        self._set_xattrs(member, name)
        if member.isdir():
            self._directory_times.append((path, member.mtime))
        else:
            self._utime(self._parent_fd, name, member.mtime)

    def _set_root_attributes(self, member: tarfile.TarInfo) -> None:
        if member.isdir():
            os.chown(self._root_fd, member.uid, member.gid)
            os.fchmod(self._root_fd, member.mode & 0o7777)

    def _set_xattrs(self, member: tarfile.TarInfo, name: str) -> None:
        """Only file capabilities and the user's own: `trusted.overlay.*` would steer overlayfs from within a layer."""
        wanted = {
            key.removeprefix(_XATTR_HEADER): value
            for key, value in member.pax_headers.items()
            if key.startswith(_XATTR_HEADER)
        }
        kept = {key: value for key, value in wanted.items() if key == "security.capability" or key.startswith("user.")}
        if not kept or not (member.isreg() or member.isdir()):
            return
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._parent_fd)
        try:
            for key, value in kept.items():
                os.setxattr(fd, key, value.encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)

    def _set_time(self, path: str, mtime: float) -> None:
        parent, _, name = path.rpartition("/")
        try:
            fd = linux.open_in_root(self._root_fd, parent or ".", _DIR_FLAGS)
        except OSError:
            return  # a later entry replaced it
        try:
            self._utime(fd, name, mtime)
        finally:
            os.close(fd)

    def _utime(self, fd: int, name: str, mtime: float) -> None:
        seconds = min(max(mtime, 0.0), 2.0**33)
        try:
            os.utime(name, (seconds, seconds), dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return  # likewise


def clean_path(name: str) -> str:
    """An entry's path relative to the root: no leading slash, no `.`; `..` is refused, and so is an impossible name."""
    if "\0" in name or len(name) > 4096:
        raise InvalidArgument("the layer has an entry with an impossible name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(f"the layer has an entry that leads outside it: '{name}'")
    return "/".join(parts) or "."


def remove_tree(parent_fd: int, name: str) -> None:
    """Removes a directory below a descriptor, following no link."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_directory in found:
            if is_directory:
                remove_tree(fd, child)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent_fd)


def _is_same(target: os.stat_result, parent_fd: int, name: str) -> bool:
    try:
        existing = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (existing.st_dev, existing.st_ino) == (target.st_dev, target.st_ino)


def unpack_layer(source: BinaryIO, root_fd: int, max_bytes: int, max_entries: int) -> UnpackResult:
    """Unpacks into the directory; on `InvalidArgument` or `Exhausted` the caller drops what was done."""
    reader = ForwardReader(source, max_bytes)
    unpacker = LayerUnpacker(root_fd)
    try:
        unpacker.unpack(reader, max_entries)
    except OSError as error:
        raise InvalidArgument(f"the layer cannot be unpacked: {error}") from error
    finally:
        unpacker.close()
    diff_id = reader.finish()
    return UnpackResult(
        diff_id=diff_id, entries=unpacker.entries, bytes=reader.tell(), skipped_devices=unpacker.skipped_devices
    )


def main(arguments: list[str]) -> int:
    directory, max_bytes, max_entries = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    os.umask(0)
    os.chdir(directory)
    os.chroot(".")
    # From here on the file system is the layer's: an import would run its code.
    sys.meta_path.clear()
    sys.path.clear()
    root_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        result = unpack_layer(sys.stdin.buffer, root_fd, max_bytes, max_entries)
        linux.syncfs(root_fd)
    except (PyswarmError, OSError, MemoryError, RecursionError) as error:
        result = UnpackResult(error=str(error) or type(error).__name__)
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    return 1 if result.error else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
