"""Local volumes: named directories that outlive containers.

A new volume takes over what the image has at the place where it is mounted, as docker does it; it appears under its
name only when that is complete.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

from pyswarm_common.errors import FailedPrecondition, InvalidArgument
from pyswarm_runtime import linux
from pyswarm_runtime.files import make_open_directory

COPY_TIMEOUT_S = 600.0
NO_COPY = "nocopy"  # docker's mount option
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_TEMPORARY = ".tmp-"


class VolumeStore:
    """Blocking."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "volumes"

    def ensure(self, name: str, rootfs: Path, target: str, *, copy: bool = True) -> Path:
        """The volume's directory; made at its first use, with what `target` holds in the container's root."""
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"invalid volume name '{name}': use letters, digits and _.- after the first")
        data = self._directory / name / "_data"
        if not data.exists():
            self._make(self._directory / name, rootfs, target, copy=copy)
        return data

    def _make(self, final: Path, rootfs: Path, target: str, *, copy: bool) -> None:
        temporary = self._directory / f"{_TEMPORARY}{secrets.token_hex(8)}"
        temporary.mkdir(parents=True)
        make_open_directory(temporary)
        make_open_directory(temporary / "_data")
        try:
            if copy:
                _copy_from(rootfs, target, temporary / "_data")
            temporary.rename(final)
        except OSError:
            if not final.exists():  # otherwise another container's start was first
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def sweep(self) -> None:
        """What a crash left half-made."""
        for leftover in self._directory.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)


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
