"""Images that are not here come from a node that has them: layer by layer, by mTLS, from where the last peer left off.

Decides which peer to ask next; never asks a registry. Callers for one image share one fetch, and it ends when the last
of them has gone. Nobody to ask (no manager in reach) is temporary and waits; nobody who has it is an answer.
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
from pyswarm_runtime.reference import parse_reference

from .ports import ImageStore

_log = logging.getLogger(__name__)

_MAX_PARALLEL_BLOBS = 4
_MAX_BLOBS = 1_000
_LOCATE_TRIES = 4  # an image that was just loaded elsewhere is known to the managers a moment later
_LOCATE_PAUSE_S = 0.4
_UNREACHABLE_PAUSE_S = 1.0


class Peer(Protocol):
    """What a peer's Agent service offers us."""

    async def get_image(self, reference: str) -> agent_pb2.GetImageResponse: ...

    def read_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]: ...


Locate = Callable[[str], Awaitable[list[str]]]
"""Addresses of the agents that have an image; raises Unavailable while no manager answers."""
Connect = Callable[[str], AbstractAsyncContextManager[Peer]]
Progress = Callable[[str], None]


@dataclass(slots=True)
class _Fetch:
    task: asyncio.Task[None]
    listeners: list[Progress] = field(default_factory=list)


class ImageFetcher:
    """One per node."""

    def __init__(self, store: ImageStore, locate: Locate, connect: Connect) -> None:
        self._store = store
        self._locate = locate
        self._connect = connect
        self._fetches: dict[str, _Fetch] = {}
        self._slots = asyncio.Semaphore(_MAX_PARALLEL_BLOBS)

    async def ensure(self, reference: str, progress: Progress) -> None:
        """Returns when the image is in the store. Raises NotFound when no node of the cluster has it."""
        if await self._store.exists(reference):
            return
        name = parse_reference(reference).familiar()
        fetch = self._fetches.get(name)
        if fetch is None:
            fetch = self._fetches[name] = _Fetch(asyncio.create_task(self._fetch(name, reference)))
        fetch.listeners.append(progress)
        try:
            await asyncio.shield(fetch.task)
        finally:
            fetch.listeners.remove(progress)
            if not fetch.listeners:
                await self._end(name, fetch)

    async def _end(self, name: str, fetch: _Fetch) -> None:
        """The last caller has gone (or all is done): nothing goes on behind their backs."""
        if self._fetches.get(name) is fetch:
            del self._fetches[name]
        fetch.task.cancel()
        await asyncio.gather(fetch.task, return_exceptions=True)

    def _say(self, name: str, message: str) -> None:
        fetch = self._fetches.get(name)
        for listener in list(fetch.listeners) if fetch is not None else ():
            listener(message)

    async def _fetch(self, name: str, reference: str) -> None:
        peers = await self._find(name)
        if not peers:
            return
        errors: list[str] = []
        for address in peers:
            self._say(name, f"preparing: fetching image from {address}")
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

    async def _find(self, name: str) -> list[str]:
        tries = 0
        while tries < _LOCATE_TRIES:
            try:
                peers = await self._locate(name)
            except Unavailable as error:
                self._say(name, f"preparing: waiting for a manager to say which node has the image ({error})")
                await asyncio.sleep(_UNREACHABLE_PAUSE_S)
                continue
            if peers:
                return peers
            tries += 1
            self._say(name, "preparing: looking for a node that has the image")
            await asyncio.sleep(_LOCATE_PAUSE_S)
            if await self._store.exists(name):  # loaded here meanwhile
                return []
        raise NotFound(f"No such image: {name}: import or load it on any node of the cluster")

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
