"""The secrets and configs of this node's tasks: kept in memory, and put where their containers find them.

What is put for a task lies below one directory that must be in memory: where it is not, a file system in memory is
mounted on it. So nothing of it ever reaches a disk, and nothing of it is there after a reboot, as no container is. The
files outlive the daemon, as the containers do. Decides nothing about content (`core.materials` does).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyswarm_common.errors import Unavailable
from pyswarm_common.model import Config, Secret, Task
from pyswarm_runtime import linux
from pyswarm_runtime.types import Mount

from .core.materials import Materials, NodeFacts, filled_in, materials_of, needed_ids

ARRIVAL_TIMEOUT_S: Final = 60.0
_TMPFS_MAGIC: Final = {0x01021994, 0x858458F6}  # tmpfs, ramfs: linux/magic.h
_ENVIRONMENT: Final = "environment"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task with its placeholders filled in, and what its container is given besides."""

    task: Task
    mounts: tuple[Mount, ...] = ()
    private_env: str = ""
    """Path of the file with variables that may be on no disk; empty: none."""


class TaskFiles:
    """One per agent."""

    def __init__(self, directory: Path, node: Callable[[], NodeFacts]) -> None:
        self._directory = directory
        self._node = node
        self._versions: dict[str, Secret | Config] = {}
        self._arrived = asyncio.Event()
        self._is_ready = False

    def learn(self, versions: Iterable[Secret | Config], gone: Iterable[str], *, complete: bool) -> None:
        """What the managers gave and took; a complete list replaces everything."""
        if complete:
            self._versions.clear()
        for object_id in gone:
            self._versions.pop(object_id, None)
        self._versions.update((item.id, item) for item in versions)
        self._arrived.set()
        self._arrived = asyncio.Event()

    async def prepare(self, task: Task) -> Prepared:
        """Puts the task's files in place. After a restart of the daemon it waits for the managers to give them anew."""
        node = self._node()
        await self._wait_for(needed_ids(task))
        materials = materials_of(task, node, self._versions.get)
        task = filled_in(task, node)
        if not materials.files and not materials.env:
            return Prepared(task)
        return await self.place(task, materials)

    async def place(self, task: Task, materials: Materials) -> Prepared:
        """Puts what there is where the container finds it."""
        return await asyncio.to_thread(self._put, task, materials)

    @property
    def known(self) -> Collection[str]:
        """Ids of the versions that the managers gave."""
        return self._versions.keys()

    async def _wait_for(self, wanted: tuple[str, ...]) -> None:
        try:
            async with asyncio.timeout(ARRIVAL_TIMEOUT_S):
                while any(object_id not in self._versions for object_id in wanted):
                    await self._arrived.wait()
        except TimeoutError:
            raise Unavailable(
                "its secrets and configs have not come from the managers: were they removed, or is none reachable?"
            ) from None

    async def remove(self, task_id: str) -> None:
        """What was put for a task."""
        path = self._directory / task_id
        if path.exists():
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def sweep(self, known: Collection[str]) -> None:
        """Remove what belongs to no task of this node any more."""
        if self._directory.exists():
            await asyncio.to_thread(self._sweep, known)

    def _sweep(self, known: Collection[str]) -> None:
        for path in self._directory.iterdir():
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def _put(self, task: Task, materials: Materials) -> Prepared:
        self._make_ready()
        directory = self._directory / task.id
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        mounts = []
        for number, file in enumerate(materials.files):
            path = directory / str(number)
            _write(path, file.data)
            os.chown(path, file.uid, file.gid)
            path.chmod(file.mode)
            mounts.append(Mount(type="bind", source=str(path), target=file.target, read_only=True))
        private_env = ""
        if materials.env:
            path = directory / _ENVIRONMENT
            _write(path, b"\0".join(entry.encode() for entry in materials.env))
            private_env = str(path)
        return Prepared(task, tuple(mounts), private_env)

    def _make_ready(self) -> None:
        if self._is_ready:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if linux.file_system_type(self._directory) not in _TMPFS_MAGIC:
            linux.mount("tmpfs", str(self._directory), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0700")
        self._is_ready = True


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
