"""The content store: bytes under their digest.

A blob is written to a temporary file, checked against its digest and size, made durable and renamed; so whatever lies
under `blobs/sha256/` is complete and true. Blocking calls run in the pool that the caller gives. The image store
decides what is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import BinaryIO, TypeVar

from pyswarm_common.errors import Exhausted, InvalidArgument, NotFound
from pyswarm_common.files import read_bounded, sync_directory
from pyswarm_runtime.image_model import hex_of
from pyswarm_runtime.types import Descriptor

CHUNK = 1024 * 1024
T = TypeVar("T")


class BlobWriter:
    """One blob on its way in. Blocking; used from one thread at a time."""

    def __init__(self, directory: Path, temporary: Path, limit: int) -> None:
        self._directory = directory
        self.path = temporary / f"blob-{secrets.token_hex(8)}"
        self._limit = limit
        self._file: BinaryIO = self.path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._limit:
            raise Exhausted(f"the data is longer than the {self._limit} bytes that are allowed or were announced")
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()

    def commit(self, expected: str | None = None, size: int | None = None) -> Descriptor:
        """Makes it durable and visible; what is not as expected is dropped and refused."""
        if (expected is not None and self.digest != expected) or (size is not None and self.size != size):
            found = f"{self.digest} of {self.size} bytes"
            self.abort()
            raise InvalidArgument(f"the content does not match: expected {expected} of {size} bytes, received {found}")
        os.fsync(self._file.fileno())
        self._file.close()
        self.path.rename(self._directory / hex_of(self.digest))
        sync_directory(self._directory)
        return Descriptor(digest=self.digest, size=self.size, media_type="")

    def abort(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


class BlobStore:
    def __init__(self, root: Path, pool: Executor) -> None:
        self._directory = root / "blobs" / "sha256"
        self._temporary = root / "tmp"
        self._pool = pool
        self._writing: dict[str, asyncio.Future[None]] = {}
        for directory in (self._directory, self._temporary):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        return self._directory / hex_of(digest)

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"No such blob: {digest}") from None

    def writer(self, limit: int) -> BlobWriter:
        return BlobWriter(self._directory, self._temporary, limit)

    def read_small(self, digest: str, limit: int) -> bytes:
        """A manifest or a configuration, checked against its digest once more."""
        try:
            data = read_bounded(self.path(digest), limit)
        except FileNotFoundError:
            raise NotFound(f"No such blob: {digest}") from None
        except ValueError:
            raise Exhausted(f"the blob {digest} is larger than the {limit} bytes allowed for metadata") from None
        if hashlib.sha256(data).hexdigest() != hex_of(digest):
            raise InvalidArgument(f"the blob {digest} is damaged on disk: remove its image and load it again")
        return data

    def put(self, data: bytes) -> str:
        writer = self.writer(len(data))
        writer.write(data)
        return writer.commit().digest

    def remove(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)

    def sweep(self, live: Iterable[str], older_than_s: float) -> None:
        """Drops leftovers: all temporary files, and blobs that no image needs and nobody wrote lately."""
        for leftover in self._temporary.iterdir():
            leftover.unlink(missing_ok=True)
        kept = {hex_of(digest) for digest in live}
        before = time.time() - older_than_s
        for blob in self._directory.iterdir():
            if blob.name not in kept and blob.stat().st_mtime < before:
                blob.unlink(missing_ok=True)

    async def run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def read(self, digest: str, offset: int = 0, chunk: int = CHUNK) -> AsyncIterator[bytes]:
        try:
            file = self.path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"No such blob: {digest}") from None
        with file:
            file.seek(offset)
            while data := await self.run(lambda: file.read(chunk)):
                yield data

    async def write(self, digest: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Several writers of one digest share: the first one's chunks are used, the others wait for it."""
        while not self.has(digest):
            running = self._writing.get(digest)
            if running is None:
                await self._write_first(digest, size, chunks)
                return
            await asyncio.wait([running])  # if that one failed, the next in the queue tries with its own chunks

    async def _write_first(self, digest: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        done = asyncio.get_running_loop().create_future()
        self._writing[digest] = done
        try:
            await self.receive(chunks, limit=size, expected=digest, size=size)
        finally:
            del self._writing[digest]
            done.set_result(None)

    async def receive(
        self, chunks: AsyncIterator[bytes], *, limit: int, expected: str | None = None, size: int | None = None
    ) -> Descriptor:
        writer = await self.run(lambda: self.writer(limit))
        try:
            async for data in chunks:
                await self.run(lambda data=data: writer.write(data))  # type: ignore[misc]
            return await self.run(lambda: writer.commit(expected, size))
        except BaseException:
            writer.abort()
            raise
