"""The image store of this machine on the local socket. Decides nothing; every change is made known to the managers."""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pyswarm.v1 import node_pb2, node_pb2_grpc, types_pb2
from pyswarm_common.codec import set_timestamp
from pyswarm_common.errors import InvalidArgument, NotFound, PyswarmError
from pyswarm_runtime.images import ImageStore
from pyswarm_runtime.pulling import resolve
from pyswarm_runtime.reference import DEFAULT_DOMAIN, is_short_id, parse_reference
from pyswarm_runtime.types import Image


class ImagesServicer(node_pb2_grpc.ImagesServicer):
    """Serves Images."""

    def __init__(
        self, images: ImageStore, on_change: Callable[[], None], is_in_cluster: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._images = images
        self._on_change = on_change
        self._is_in_cluster = is_in_cluster

    async def ImportImage(
        self, requests: AsyncIterator[node_pb2.ImportImageRequest], context: Any
    ) -> node_pb2.ImportImageResponse:
        header = await _header(requests)
        image = await self._images.import_(
            _parts(requests),
            header.reference,
            changes=tuple(header.changes),
            message=header.message or "Imported from a root file system",
        )
        self._on_change()
        return node_pb2.ImportImageResponse(image=_summary(image))

    async def LoadImage(
        self, requests: AsyncIterator[node_pb2.LoadImageRequest], context: Any
    ) -> node_pb2.LoadImageResponse:
        images = await self._images.load(_data(requests))
        self._on_change()
        return node_pb2.LoadImageResponse(images=[_summary(image) for image in images])

    async def ListImages(self, request: node_pb2.ListImagesRequest, context: Any) -> node_pb2.ListImagesResponse:
        images = await self._images.list()
        wanted = [image for image in images if _matches(image, request.reference)]
        return node_pb2.ListImagesResponse(images=[_summary(image) for image in wanted])

    async def RemoveImage(self, request: node_pb2.RemoveImageRequest, context: Any) -> node_pb2.RemoveImageResponse:
        removed = await self._images.remove(request.reference, force=request.force)
        self._on_change()
        return node_pb2.RemoveImageResponse(
            untagged=[item.untagged for item in removed if item.untagged is not None],
            deleted=[item.deleted for item in removed if item.deleted is not None],
        )

    async def ResolveImage(self, request: node_pb2.ResolveImageRequest, context: Any) -> node_pb2.ResolveImageResponse:
        parsed = parse_reference(request.reference)
        name = parsed.familiar()
        # What is here under a name of docker.io was mostly imported, and no registry of the internet knows it.
        if parsed.domain == DEFAULT_DOMAIN and await self._is_in_cluster(name):
            return node_pb2.ResolveImageResponse(is_in_cluster=True)
        try:
            found = await resolve(request.reference, request.registry_auth)
        except PyswarmError as error:
            known = parsed.domain != DEFAULT_DOMAIN and await self._is_in_cluster(name)
            return node_pb2.ResolveImageResponse(is_in_cluster=known, reason=str(error))
        platforms = [types_pb2.Platform(architecture=name, os=system) for name, system in found.platforms]
        return node_pb2.ResolveImageResponse(reference=found.reference, platforms=platforms)

    async def TagImage(self, request: node_pb2.TagImageRequest, context: Any) -> node_pb2.TagImageResponse:
        if not await self._images.exists(request.source):
            raise NotFound(f"No such image: {request.source}")
        await self._images.tag(request.source, request.target)
        self._on_change()
        return node_pb2.TagImageResponse()


async def _header(requests: AsyncIterator[node_pb2.ImportImageRequest]) -> node_pb2.ImportImageHeader:
    async for first in requests:
        if first.HasField("header") and first.header.reference:
            return first.header
        break
    raise InvalidArgument("an import begins with a header that names the image")


async def _parts(requests: AsyncIterator[node_pb2.ImportImageRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.HasField("header"):
            raise InvalidArgument("an import has one header only")
        yield request.data


async def _data(requests: AsyncIterator[node_pb2.LoadImageRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.data


def _matches(image: Image, text: str) -> bool:
    """By name, name:tag, or the beginning of the id. A name without a tag matches all of its tags."""
    if not text:
        return True
    if is_short_id(text.removeprefix("sha256:")) and image.id.removeprefix("sha256:").startswith(
        text.removeprefix("sha256:")
    ):
        return True
    wanted = parse_reference(text).familiar()
    if wanted == text or "@" in text:
        return wanted in [parse_reference(name).familiar() for name in image.references]
    repository = wanted.rpartition(":")[0]
    return repository in [parse_reference(name).familiar().rpartition(":")[0] for name in image.references]


def _summary(image: Image) -> node_pb2.ImageSummary:
    summary = node_pb2.ImageSummary(
        id=image.id,
        references=[parse_reference(name).familiar() for name in image.references],
        size_bytes=image.size,
        architecture=image.architecture,
        os=image.os,
    )
    set_timestamp(summary.created_at, image.created_at)
    return summary
