"""Unpacked layers: one directory per diff id, shared by all images and containers that have it.

A layer is unpacked beside its place by a process of its own (`unpack.py`), and renamed when it is complete and its
digest is what the image says. Concurrent wishes for one layer share the work.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.files import sync_directory
from pyswarm_runtime.files import make_open_directory
from pyswarm_runtime.image_model import hex_of
from pyswarm_runtime.types import Limits
from pyswarm_runtime.unpack import UnpackResult

NAME_LENGTH = 32  # 128 bits of the digest: short, since the names of most images should fit into mount options
PARALLEL_UNPACKS = 2
MAX_ANSWER = 64 * 1024
_TEMPORARY = ".tmp-"


def layer_name(diff_id: str) -> str:
    return hex_of(diff_id)[:NAME_LENGTH]


class LayerStore:
    def __init__(self, root: Path, limits: Limits) -> None:
        self.directory = root / "layers"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._limits = limits
        self._locks: dict[str, asyncio.Lock] = {}
        self._slots = asyncio.Semaphore(PARALLEL_UNPACKS)

    def path(self, diff_id: str) -> Path:
        return self.directory / layer_name(diff_id)

    async def ensure(self, blob: Path, diff_id: str) -> None:
        """Unpacks the blob unless that layer is there already."""
        lock = self._locks.setdefault(diff_id, asyncio.Lock())
        try:
            async with lock:
                if not self.path(diff_id).exists():
                    await self._unpack(blob, diff_id)
        finally:
            if not lock.locked():
                self._locks.pop(diff_id, None)

    async def add(self, blob: Path) -> str:
        """Unpacks a blob whose diff id is not known beforehand, and says it."""
        return await self._unpack(blob, None)

    async def _unpack(self, blob: Path, expected: str | None) -> str:
        temporary = self.directory / f"{_TEMPORARY}{secrets.token_hex(8)}"
        make_open_directory(temporary)
        try:
            async with self._slots:
                result = await run_unpacker(blob, temporary, self._limits)
            if expected is not None and result.diff_id != expected:
                raise InvalidArgument(f"the layer's content is {result.diff_id}, but its image says {expected}")
            await asyncio.to_thread(self._publish, temporary, result.diff_id)
        finally:
            await asyncio.to_thread(shutil.rmtree, temporary, ignore_errors=True)
        return result.diff_id

    def _publish(self, temporary: Path, diff_id: str) -> None:
        try:
            temporary.rename(self.path(diff_id))
        except OSError:
            if not self.path(diff_id).exists():  # otherwise another writer of the same content was first
                raise
        sync_directory(self.directory)

    def remove(self, diff_id: str) -> None:
        """In two steps, so that what lies under a layer's name is always whole."""
        doomed = self.directory / f"{_TEMPORARY}{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            self.path(diff_id).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self, live: Collection[str]) -> None:
        """Removes the layers that are not among these diff ids, and all leftovers; only while nobody is unpacking."""
        kept = {layer_name(diff_id) for diff_id in live}
        for entry in self.directory.iterdir():
            if entry.name not in kept:
                shutil.rmtree(entry, ignore_errors=True)


async def run_unpacker(blob: Path, target: Path, limits: Limits) -> UnpackResult:
    """Runs `python -m pyswarm_runtime.unpack` to its end; cancelling ends the process too."""
    arguments = ("-P", "-m", "pyswarm_runtime.unpack", str(target), str(limits.layer_bytes), str(limits.layer_entries))
    paths = os.pathsep.join(path for path in sys.path if path)
    with blob.open("rb") as source:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=source,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.defpath, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _answer(output[:MAX_ANSWER], errors, process.returncode or 0)


def _answer(output: bytes, errors: bytes, returncode: int) -> UnpackResult:
    try:
        result = decode_json(output, UnpackResult)
    except Malformed:
        reason = errors.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
        raise InvalidArgument(f"the layer cannot be unpacked (status {returncode}): {reason}") from None
    if result.error:
        raise InvalidArgument(result.error)
    return result
