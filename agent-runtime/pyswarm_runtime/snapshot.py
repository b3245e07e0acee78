"""A container's root file system: the image's layers below, a layer of its own above, joined by overlayfs.

Mounts are made in this process's mount namespace; they vanish with it (a reboot), and are simply made again.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pyswarm_common.errors import Unsupported
from pyswarm_runtime import linux
from pyswarm_runtime.files import make_open_directory

MAX_MOUNT_OPTIONS = os.sysconf("SC_PAGE_SIZE") - 1


class Snapshot:
    """The directories of one container below its own."""

    def __init__(self, directory: Path, layers: Path) -> None:
        self.rootfs = directory / "rootfs"
        self._upper = directory / "upper"
        self._work = directory / "work"
        self._links = directory / "lower"
        self._layers = layers

    def make(self) -> None:
        for path in (self.rootfs, self._upper, self._work):
            make_open_directory(path)

    def mount(self, layer_names: Sequence[str]) -> None:
        """`layer_names` from the lowest up. Does nothing where it is mounted already."""
        if self.is_mounted():
            return
        options = self._options([str(self._layers / name) for name in layer_names])
        try:
            if len(os.fsencode(options)) <= MAX_MOUNT_OPTIONS:
                linux.mount("overlay", str(self.rootfs), "overlay", 0, options)
            else:
                self._mount_by_short_names(layer_names)
        except OSError as error:
            raise _explained(error) from error

    def _mount_by_short_names(self, layer_names: Sequence[str]) -> None:
        """The options must fit into one page: so a directory of numbered links, reached through a descriptor."""
        self._links.mkdir(mode=0o700, exist_ok=True)
        for number, name in enumerate(layer_names):
            link = self._links / str(number)
            link.unlink(missing_ok=True)
            link.symlink_to(self._layers / name)
        fd = os.open(self._links, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lower = [f"/proc/self/fd/{fd}/{number}" for number in range(len(layer_names))]
            linux.mount("overlay", str(self.rootfs), "overlay", 0, self._options(lower))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        with suppress(OSError):  # not mounted: what we want
            linux.umount(str(self.rootfs), linux.MNT_DETACH)

    def is_mounted(self) -> bool:
        try:
            return self.rootfs.stat().st_dev != self._upper.stat().st_dev
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        self.unmount()
        for path in (self._upper, self._work, self._links):
            shutil.rmtree(path, ignore_errors=True)
        with suppress(FileNotFoundError):
            self.rootfs.rmdir()

    def _options(self, lower: Sequence[str]) -> str:
        joined = ":".join(_escaped(path) for path in reversed(lower))
        return f"lowerdir={joined},upperdir={_escaped(str(self._upper))},workdir={_escaped(str(self._work))}"


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _explained(error: OSError) -> Exception:
    if error.errno == errno.ENOENT:
        return error
    if error.errno in (errno.EINVAL, errno.ENODEV):
        return Unsupported(
            f"overlayfs cannot be mounted here ({error.strerror}): keep the state directory on ext4 or xfs"
        )
    return error
