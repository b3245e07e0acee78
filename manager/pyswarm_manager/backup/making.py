"""Making a backup on a running manager: a consistent capture on the loop, everything slow in a thread of its own.

The capture is linearizable: what was acknowledged anywhere before the call is in it. `Maker` never writes to the store
and never holds the loop for long. At most `MAX_AT_ONCE` backups are streamed at a time, and more are refused, so that
readers who stand still cannot make this manager hold many states; a file of its own comes beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyswarm_common.backup.container import SALT_BYTES, Header, write
from pyswarm_common.backup.keys import PassphraseParams, key_id
from pyswarm_common.errors import Exhausted, Unavailable
from pyswarm_common.files import sync_directory
from pyswarm_manager.api.health import VERSION
from pyswarm_manager.backup.contents import Captured, capture, pieces, summary
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.writes import StorePort

R = TypeVar("R")
MAX_AT_ONCE = 2
_BARRIER_TIMEOUT_S = 10.0
_PART_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, repr=False)
class SealedWith:
    """The key of a backup; with how it follows from a passphrase, unless it is the cluster's backup key."""

    key: bytes
    passphrase: PassphraseParams | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of the file, and how far it is."""

    data: bytes
    objects_done: int


class Maker:
    """One per manager."""

    def __init__(self, store: StorePort, raft: RaftPort, clock: Clock) -> None:
        self._store, self._raft, self._clock = store, raft, clock
        self._threads = ThreadPoolExecutor(MAX_AT_ONCE + 1, thread_name_prefix="backup")
        self._under_way = 0

    def close(self) -> None:
        """Threads end with the part they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, call: Callable[[], R]) -> R:
        """Something that blocks, beside the backups' own threads' work."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def capture(self) -> Captured:
        """Everything that is committed now."""
        try:
            async with asyncio.timeout(_BARRIER_TIMEOUT_S):
                await self._raft.read_barrier()
        except TimeoutError:
            raise Unavailable("no leader: a backup needs a majority of the managers, see `pyswarm node ls`") from None
        cluster = self._store.view.cluster
        if cluster is None:
            raise Unavailable("this manager does not know its swarm yet: try again in a moment")
        return capture(self._store.view, cluster, self._raft.applied_index, self._raft.term)

    async def parts(self, captured: Captured, sealed_with: SealedWith) -> AsyncGenerator[Part, None]:
        """The file, part by part, each made in a thread while the one before is on its way."""
        with self._one_more():
            source = _parts(captured, self._header(captured, sealed_with), sealed_with.key)
            loop = asyncio.get_running_loop()
            while (part := await loop.run_in_executor(self._threads, next, source, None)) is not None:
                yield part

    async def write_file(self, captured: Captured, sealed_with: SealedWith, path: Path) -> int:
        """Into a file that appears only when it is whole and on the disk; returns its size."""
        source = _parts(captured, self._header(captured, sealed_with), sealed_with.key)
        return await self.in_thread(functools.partial(_write_file, source, path))

    def _header(self, captured: Captured, sealed_with: SealedWith) -> Header:
        return Header(
            cluster_id=captured.cluster.id,
            cluster_name=captured.cluster.spec.name,
            index=captured.index,
            term=captured.term,
            created_at=self._clock(),
            made_by=socket.gethostname(),
            version=VERSION,
            salt=secrets.token_bytes(SALT_BYTES),
            key_id="" if sealed_with.passphrase is not None else key_id(sealed_with.key),
            passphrase=sealed_with.passphrase,
            counts=captured.counts,
        )

    @contextlib.contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._under_way >= MAX_AT_ONCE:
            raise Exhausted("other backups are being made on this manager: try again when they are done")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


def _parts(captured: Captured, header: Header, key: bytes) -> Iterator[Part]:
    """Runs in a thread, part by part."""
    done = 0

    def plain() -> Iterator[bytes]:
        nonlocal done
        for piece, so_far in pieces(captured):
            done = so_far
            yield piece

    buffer = bytearray()
    for part in write(header, summary(captured), key, plain()):
        buffer += part
        while len(buffer) >= _PART_BYTES:
            yield Part(bytes(buffer[:_PART_BYTES]), done)
            del buffer[:_PART_BYTES]
    yield Part(bytes(buffer), done)


def _write_file(source: Iterator[Part], path: Path) -> int:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    size = 0
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for part in source:
                size += file.write(part.data)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        sync_directory(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return size
