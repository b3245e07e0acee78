"""Which image a reference means, and how it comes from its registry into the store.

Decides which entry of a list is for this machine. What is stored was verified from the top: the list by the digest
that was asked for, the manifest by the list's entry, each blob by the manifest's.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from pyswarm_common.errors import InvalidArgument, NotFound, Unavailable
from pyswarm_runtime import image_model as model
from pyswarm_runtime.reference import parse_reference
from pyswarm_runtime.registry_auth import read_credentials
from pyswarm_runtime.registry_client import Found, RegistryClient
from pyswarm_runtime.types import Descriptor, Image

MAX_PLATFORMS = 64
PARALLEL_BLOBS = 4
BLOB_TRIES = 3
RESOLVE_TIMEOUT_S = 10.0


class Store(Protocol):
    """Where images are kept."""

    async def has_blob(self, digest: str, /) -> bool: ...

    async def write_blob(self, digest: str, size: int, chunks: AsyncIterator[bytes], /) -> None: ...

    async def commit(self, reference: str, manifest_bytes: bytes, /) -> Image: ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference means now."""

    reference: str  # with its digest
    platforms: tuple[tuple[str, str], ...]  # architecture and system; empty if any


async def resolve(reference: str, auth: bytes = b"") -> Resolved:
    """Asks the registry. Raises whatever kept it from answering."""
    parsed = parse_reference(reference)
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S), RegistryClient(parsed, read_credentials(auth)) as client:
            found = await client.manifest(parsed.digest or parsed.tag or "latest")
    except TimeoutError:
        raise Unavailable(f"registry {parsed.domain} cannot be reached: no answer in time") from None
    digest = model.digest_of(found.data)
    _check_digest(parsed.digest, digest)
    return Resolved(f"{parsed.familiar().partition('@')[0]}@{digest}", _platforms(found))


def _platforms(found: Found) -> tuple[tuple[str, str], ...]:
    if not model.is_index(found.media_type):
        return ()  # of its configuration, which is read where it is pulled
    entries = [entry for _, _, entry in model.index_entries(found.data)]
    pairs = {(str(entry.get("architecture", "")), str(entry.get("os", ""))) for entry in entries}
    return tuple(sorted(pair for pair in pairs if all(pair) and "unknown" not in pair))[:MAX_PLATFORMS]


async def pull(reference: str, auth: bytes, store: Store, progress: Callable[[str], None]) -> Image:
    """Into the store, under that reference."""
    parsed = parse_reference(reference)
    async with RegistryClient(parsed, read_credentials(auth)) as client:
        progress(f"preparing: pulling image from {parsed.domain}")
        found = await client.manifest(parsed.digest or parsed.tag or "latest")
        _check_digest(parsed.digest, model.digest_of(found.data))
        if model.is_index(found.media_type):
            entry = _for_this_machine(reference, found.data)
            found = await client.manifest(entry.digest)
            _check_digest(entry.digest, model.digest_of(found.data))
        manifest = model.parse_manifest(found.data)
        await _fetch(client, store, {blob.digest: blob for blob in (manifest.config, *manifest.layers)})
        return await store.commit(reference, found.data)


def registry_pull(store: Store) -> Callable[[str, bytes, Callable[[str], None]], Awaitable[Image]]:
    """`pull` into that store."""

    async def into_store(reference: str, auth: bytes, progress: Callable[[str], None]) -> Image:
        return await pull(reference, auth, store, progress)

    return into_store


def _check_digest(wanted: str | None, found: str) -> None:
    if wanted is not None and wanted != found:
        raise Unavailable(f"the registry gave {found} where {wanted} was asked for")


def _for_this_machine(reference: str, index: bytes) -> Descriptor:
    machine = platform.machine()
    architecture = model.ARCHITECTURES.get(machine, machine)
    for descriptor, _, entry in model.index_entries(index):
        if entry.get("architecture") == architecture and entry.get("os") == "linux":
            return descriptor
    raise NotFound(f"no matching manifest for linux/{architecture} in the manifest list entries of {reference}")


async def _fetch(client: RegistryClient, store: Store, blobs: dict[str, Descriptor]) -> None:
    slots = asyncio.Semaphore(PARALLEL_BLOBS)

    async def fetch(blob: Descriptor) -> None:
        async with slots:
            if not await store.has_blob(blob.digest):
                await store.write_blob(blob.digest, blob.size, _chunks(client, blob))

    try:
        async with asyncio.TaskGroup() as group:
            for blob in blobs.values():
                group.create_task(fetch(blob))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _chunks(client: RegistryClient, blob: Descriptor) -> AsyncIterator[bytes]:
    """In order; a connection that breaks is made anew, at the same offset."""
    offset = 0
    for attempt in range(1, BLOB_TRIES + 1):
        try:
            async for chunk in client.blob(blob.digest, offset):
                offset += len(chunk)
                if offset > blob.size:
                    raise InvalidArgument(f"the registry's blob {blob.digest} is longer than its manifest says")
                yield chunk
        except Unavailable:
            if attempt == BLOB_TRIES:
                raise
            continue
        if offset >= blob.size:
            return
    raise Unavailable(f"the registry's blob {blob.digest} is shorter than its manifest says")
