"""Images that are not here come from a node that has them: layer by layer, by mTLS, from where the last peer left off.

Decides which peer to ask next, and asks the image's registry when no node has it. Callers for one image with the same
credentials share one fetch, and it ends when the last of them has gone. Nobody to ask (no manager in reach) is
temporary and waits, unless the name says which registry has it; nobody who has it is an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from pyswarm.v1 import agent_pb2
from pyswarm_common.errors import InvalidArgument, NotFound, PyswarmError, Unavailable
from pyswarm_runtime.reference import DEFAULT_DOMAIN, parse_reference

from .ports import ImageStore

_log = logging.getLogger(__name__)

_MAX_PARALLEL_BLOBS = 4
_MAX_BLOBS = 1_000
_LOCATE_TRIES = 4  # an image that was just loaded elsewhere is known to the managers a moment later
_LOCATE_PAUSE_S = 0.4
_UNREACHABLE_PAUSE_S = 1.0
_Key = tuple[str, bytes]  # the image's name, and the credentials that it is asked for with


class Peer(Protocol):
    """What a peer's Agent service offers us."""

    async def get_image(self, reference: str) -> agent_pb2.GetImageResponse: ...

    def read_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]: ...


Locate = Callable[[str], Awaitable[list[str]]]
"""Addresses of the agents that have an image; raises Unavailable while no manager answers."""
Connect = Callable[[str], AbstractAsyncContextManager[Peer]]
Progress = Callable[[str], None]
Pull = Callable[[str, bytes, Progress], Awaitable[object]]
"""From the registry of a reference, with a service's credentials, into the store."""


@dataclass(slots=True)
class _Fetch:
    task: asyncio.Task[None]
    listeners: list[Progress] = field(default_factory=list)


class ImageFetcher:
    """One per node."""

    def __init__(self, store: ImageStore, locate: Locate, connect: Connect, pull: Pull | None = None) -> None:
        self._store = store
        self._locate = locate
        self._connect = connect
        self._pull = pull
        self._fetches: dict[_Key, _Fetch] = {}
        self._slots = asyncio.Semaphore(_MAX_PARALLEL_BLOBS)

    async def ensure(self, reference: str, progress: Progress, auth: bytes = b"") -> None:
        """Returns when the image is in the store. Raises NotFound when neither a node nor its registry has it."""
        if await self._store.exists(reference):
            return
        key = (parse_reference(reference).familiar(), auth)
        fetch = self._fetches.get(key)
        if fetch is None:
            fetch = self._fetches[key] = _Fetch(asyncio.create_task(self._fetch(key, reference)))
        fetch.listeners.append(progress)
        try:
            await asyncio.shield(fetch.task)
        finally:
            fetch.listeners.remove(progress)
            if not fetch.listeners:
                await self._end(key, fetch)

    async def _end(self, key: _Key, fetch: _Fetch) -> None:
        """The last caller has gone (or all is done): nothing goes on behind their backs."""
        if self._fetches.get(key) is fetch:
            del self._fetches[key]
        fetch.task.cancel()
        await asyncio.gather(fetch.task, return_exceptions=True)

    def _say(self, key: _Key, message: str) -> None:
        fetch = self._fetches.get(key)
        for listener in list(fetch.listeners) if fetch is not None else ():
            listener(message)

    async def _fetch(self, key: _Key, reference: str) -> None:
        peers = await self._find(key)
        if not peers and not await self._store.exists(reference):
            await self._pull_it(key, reference)
        if peers:
            await self._fetch_from(key, reference, peers)

    async def _pull_it(self, key: _Key, reference: str) -> None:
        name, auth = key
        nowhere = f"No such image: {name}: import or load it on any node of the cluster"
        if self._pull is None:
            raise NotFound(nowhere)
        try:
            await self._pull(reference, auth, lambda message: self._say(key, message))
        except PyswarmError as error:
            raise NotFound(f"{nowhere}; {error}") from error
        _log.info("pulled image %s", name)

    async def _fetch_from(self, key: _Key, reference: str, peers: list[str]) -> None:
        name = key[0]
        errors: list[str] = []
        for address in peers:
            self._say(key, f"preparing: fetching image from {address}")
            try:
                async with self._connect(address) as peer:
                    answer = await peer.get_image(name)
            except (PyswarmError, grpc.aio.AioRpcError) as error:
                errors.append(f"{address}: {_reason(error)}")
                continue
            await self._fetch_blobs(name, answer, [address, *(other for other in peers if other != address)])
            await self._store.commit(reference, answer.manifest)
            _log.info("fetched image %s from %s", name, address)
            return
        raise Unavailable(f"image {name} cannot be fetched: {'; '.join(errors)}")

    async def _find(self, key: _Key) -> list[str]:
        """Who has it; nobody if it was loaded here meanwhile, or has to come from its registry."""
        name, tries = key[0], 0
        has_registry = self._pull is not None and parse_reference(name).domain != DEFAULT_DOMAIN
        while tries < _LOCATE_TRIES:
            try:
                peers = await self._locate(name)
            except Unavailable as error:
                if has_registry:
                    return []
                self._say(key, f"preparing: waiting for a manager to say which node has the image ({error})")
                await asyncio.sleep(_UNREACHABLE_PAUSE_S)
                continue
            if peers or has_registry:
                return peers
            tries += 1
            self._say(key, "preparing: looking for a node that has the image")
            await asyncio.sleep(_LOCATE_PAUSE_S)
            if await self._store.exists(name):  # loaded here meanwhile
                break
        return []

    async def _fetch_blobs(self, name: str, image: agent_pb2.GetImageResponse, peers: list[str]) -> None:
        if len(image.blobs) > _MAX_BLOBS:
            raise InvalidArgument(f"image {name} has {len(image.blobs)} blobs: more than {_MAX_BLOBS}")
        try:
            async with asyncio.TaskGroup() as group:
                for blob in image.blobs:
                    group.create_task(self._fetch_blob(blob, peers))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    async def _fetch_blob(self, blob: agent_pb2.BlobDescriptor, peers: list[str]) -> None:
        async with self._slots:
            if not await self._store.has_blob(blob.digest):
                await self._store.write_blob(blob.digest, blob.size_bytes, self._chunks(blob, peers))

    async def _chunks(self, blob: agent_pb2.BlobDescriptor, peers: list[str]) -> AsyncIterator[bytes]:
        """The bytes in order, whoever they come from: a peer that fails is followed by the next, at the same offset."""
        offset, errors = 0, []
        for address in peers:
            try:
                async with self._connect(address) as peer:
                    async for chunk in peer.read_blob(blob.digest, offset):
                        offset += len(chunk)
                        yield chunk
            except (PyswarmError, grpc.aio.AioRpcError) as error:
                errors.append(f"{address}: {_reason(error)}")
            if offset >= blob.size_bytes:
                return
        raise Unavailable(f"blob {blob.digest} cannot be fetched: {'; '.join(errors) or 'its peers have less of it'}")


def _reason(error: Exception) -> str:
    return (error.details() or error.code().name) if isinstance(error, grpc.aio.AioRpcError) else str(error)
