"""Local volumes: named directories that outlive containers, or file systems that are mounted while one uses them.

A new volume takes over what the image has at the place where it is mounted, as docker does it; it appears under its
name only when that is complete. Who uses a volume with a file system behind it is kept as files in `users/`, so that
a daemon that was killed knows it too: the last user's end unmounts it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
import subprocess
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from pyswarm_common.documents import decode_json
from pyswarm_common.errors import FailedPrecondition, InvalidArgument, Unsupported
from pyswarm_common.files import read_bounded
from pyswarm_runtime import linux
from pyswarm_runtime.files import make_open_directory
from pyswarm_runtime.types import Mount
from pyswarm_runtime.volume_mounts import check_options, mount_volume, volume_mount

COPY_TIMEOUT_S = 600.0
LOCAL = "local"
MAX_DECLARATION = 1024 * 1024
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_TEMPORARY = ".tmp-"


class Declaration(msgspec.Struct, frozen=True):
    """How a volume was made."""

    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    anonymous_of: str = ""  # the container that it goes with


class VolumeStore:
    """Blocking; may be called from several threads."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "volumes"
        self._lock = threading.Lock()  # of the mounts and their users

    def ensure(self, wanted: Mount, rootfs: Path, container_id: str) -> Path:
        """The volume's directory; made at its first use, with what its target holds in the container's root."""
        name = wanted.source or anonymous_name(container_id, wanted.target)
        check_volume(wanted)
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"invalid volume name '{name}': use letters, digits and _.- after the first")
        if not (self._directory / name / "_data").exists():
            owner = "" if wanted.source else container_id
            self._make(name, Declaration(wanted.volume_options, wanted.volume_labels, owner), wanted, rootfs)
        self._mount(name, container_id)
        return self._directory / name / "_data"

    def _make(self, name: str, declaration: Declaration, wanted: Mount, rootfs: Path) -> None:
        final = self._directory / name
        temporary = self._directory / f"{_TEMPORARY}{secrets.token_hex(8)}"
        temporary.mkdir(parents=True)
        make_open_directory(temporary)
        make_open_directory(temporary / "_data")
        (temporary / "users").mkdir(mode=0o700)
        (temporary / "volume.json").write_bytes(msgspec.json.encode(declaration))
        (temporary / "volume.json").chmod(0o600)  # the options of a network file system may hold a password
        try:
            # What another machine or directory holds is not ours to fill.
            if not wanted.no_copy and not wanted.volume_options.get("device"):
                _copy_from(rootfs, wanted.target, temporary / "_data")
            temporary.rename(final)
        except OSError:
            if not final.exists():  # otherwise another container's start was first
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _mount(self, name: str, container_id: str) -> None:
        """Volumes that were made without a declaration, by an earlier version, are plain directories."""
        directory = self._directory / name
        mount = volume_mount(self._declaration(name).options)
        if mount is None:
            return
        with self._lock:
            (directory / "users" / container_id).touch(mode=0o600)
            if not os.path.ismount(directory / "_data"):
                mount_volume(mount, directory / "_data", name)

    def _declaration(self, name: str) -> Declaration:
        try:
            return decode_json(read_bounded(self._directory / name / "volume.json", MAX_DECLARATION), Declaration)
        except FileNotFoundError:
            return Declaration()
        except ValueError as error:
            raise FailedPrecondition(f"volume {name}: its volume.json is damaged ({error})") from error

    def release(self, container_id: str) -> None:
        """The container runs no more: unmounts what it was the last to use. May be called again."""
        with self._lock:
            for user in self._directory.glob(f"*/users/{container_id}"):
                user.unlink(missing_ok=True)
                if not any(user.parent.iterdir()):
                    with suppress(OSError):  # not mounted, after a reboot
                        linux.umount(str(user.parent.parent / "_data"), linux.MNT_DETACH)

    def remove_anonymous(self, container_id: str, mounts: tuple[Mount, ...]) -> None:
        """The container is removed, and its volumes without a name with it."""
        for mount in mounts:
            if mount.type == "volume" and not mount.source:
                directory = self._directory / anonymous_name(container_id, mount.target)
                shutil.rmtree(directory, ignore_errors=True)

    def sweep(self) -> None:
        """What a crash left half-made."""
        for leftover in self._directory.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def sweep_anonymous(self, containers: Collection[str]) -> None:
        """What containers left that are not known any more: their records were damaged, or a crash came in between."""
        for path in self._directory.glob("*/volume.json"):
            try:
                owner = self._declaration(path.parent.name).anonymous_of
            except FailedPrecondition:
                continue  # whoever wants to use it is told
            if owner and owner not in containers:
                shutil.rmtree(path.parent, ignore_errors=True)


def anonymous_name(container_id: str, target: str) -> str:
    """64 hexadecimal digits, as docker names volumes without a name; the same at every start of the container."""
    return hashlib.sha256(f"{container_id}:{target}".encode()).hexdigest()


def check_volume(wanted: Mount) -> None:
    """Refuses what this node could never mount."""
    if wanted.volume_driver not in ("", LOCAL):
        raise Unsupported(
            f'error looking up volume plugin {wanted.volume_driver}: plugin "{wanted.volume_driver}" not found'
        )
    check_options(wanted.volume_options)
    if wanted.subpath and (wanted.subpath.startswith("/") or ".." in wanted.subpath.split("/")):
        raise InvalidArgument("subpath must be a relative path within the volume")


@contextmanager
def bound_subpath(data: Path, subpath: str, place: Path) -> Iterator[Path]:
    """What lies there in the volume, bound to `place` until the container has it.

    Opened within the volume, and bound from that very descriptor: the volume's own links can lead nowhere else, also if
    another container changes them at this moment.
    """
    fd = _open_subpath(data, subpath)
    try:
        place.mkdir() if stat.S_ISDIR(os.fstat(fd).st_mode) else place.touch()
        linux.mount(f"/proc/self/fd/{fd}", str(place), "", linux.MS_BIND | linux.MS_REC)
    finally:
        os.close(fd)
    try:
        yield place
    finally:
        linux.umount(str(place), linux.MNT_DETACH)


def _open_subpath(data: Path, subpath: str) -> int:
    root_fd = os.open(data, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return linux.open_in_root(root_fd, subpath, os.O_PATH)
    except OSError as error:
        raise FailedPrecondition(f"cannot access path {data}/{subpath}: {(error.strerror or '').lower()}") from error
    finally:
        os.close(root_fd)


def _copy_from(rootfs: Path, target: str, destination: Path) -> None:
    """Through a descriptor that was opened within the root, so that no link of the image leads the copy astray."""
    root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        source_fd = linux.open_in_root(root_fd, target, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return  # the image has nothing there
    finally:
        os.close(root_fd)
    try:
        command = ["cp", "-a", f"/proc/self/fd/{source_fd}/.", str(destination)]
        subprocess.run(
            command,
            pass_fds=(source_fd,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": os.defpath},
            timeout=COPY_TIMEOUT_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode("utf-8", "replace").strip()[:300]
        raise FailedPrecondition(
            f"the image's files at {target} cannot be copied into the new volume: {reason}"
        ) from error
    finally:
        os.close(source_fd)
