"""The image store of one host: which images there are, under which references, and what they need on disk.

Decides when blobs and unpacked layers may go: when neither an image nor a container needs them. References live in one
small file, replaced atomically after everything that it names is on disk; so a crash leaves at most blobs that nobody
names, and `open` drops these.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PyswarmError
from pyswarm_common.files import read_bounded, write_whole
from pyswarm_runtime import image_model as model
from pyswarm_runtime.archive import SavedImage, read_archive, write_archive
from pyswarm_runtime.blobs import BlobStore
from pyswarm_runtime.image_changes import apply_changes
from pyswarm_runtime.layers import LayerStore
from pyswarm_runtime.reference import is_digest, is_short_id, parse_reference
from pyswarm_runtime.types import (
    Descriptor,
    Image,
    ImageConfig,
    ImageManifest,
    Limits,
    RemovedItem,
)

ORPHAN_GRACE_S = 3600.0
MAX_DATABASE_BYTES = 64 * 1024 * 1024
Removed = list[RemovedItem]  # the name, since within the class `list` is a method


class _Database(msgspec.Struct):
    images: dict[str, str] = {}  # image id -> manifest digest
    references: dict[str, str] = {}  # full reference -> image id


@dataclass(frozen=True, slots=True)
class ContainerUse:
    """That a container needs an image; the runtime tells the store."""

    container_id: str
    image_id: str
    diff_ids: tuple[str, ...]
    is_running: bool


class ImageStore:
    """Make one with `open`. Blocking work runs in the given pool."""

    def __init__(self, root: Path, pool: Executor, limits: Limits, uses: Callable[[], Sequence[ContainerUse]]) -> None:
        self._database_path = root / "images.json"
        self._limits = limits
        self._uses = uses
        self._blobs = BlobStore(root, pool)
        self.layers = LayerStore(root, limits)
        self._database = _Database()
        self._images: dict[str, Image] = {}  # without references: those are added when one is handed out
        self._pins: Counter[str] = Counter()  # digests and diff ids that something in flight needs
        self._lock = asyncio.Lock()
        machine = platform.machine()
        self._architecture = model.ARCHITECTURES.get(machine, machine)

    async def open(self) -> None:
        """Reads the database and drops what no image and no container needs."""
        await self._blobs.run(self._open)

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            self._database = self._read_database()
        for image_id, manifest_digest in list(self._database.images.items()):
            try:
                self._images[image_id] = self._describe(manifest_digest)
            except PyswarmError:
                self._forget(image_id)  # damaged on disk: as if it had never been loaded
        self._blobs.sweep(self._live_blobs(), ORPHAN_GRACE_S)
        self.layers.sweep(self._live_layers())

    def _read_database(self) -> _Database:
        try:
            return decode_json(read_bounded(self._database_path, MAX_DATABASE_BYTES), _Database)
        except Malformed as error:
            raise FailedPrecondition(
                f"{self._database_path} is damaged ({error}): restore it, or move it away and load the images again"
            ) from error

    # Making images

    async def import_(
        self,
        tarball: Path | AsyncIterator[bytes],
        reference: str,
        *,
        entrypoint: Sequence[str] = (),
        cmd: Sequence[str] = (),
        env: Sequence[str] = (),
        working_dir: str = "",
        user: str = "",
        exposed_ports: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        stop_signal: str = "",
        volumes: Sequence[str] = (),
        changes: Sequence[str] = (),
        message: str = "Imported from a root file system",
    ) -> Image:
        """A root file system (tar, plain or compressed with gzip or zstd) becomes an image of one layer."""
        config = ImageConfig(
            env=tuple(env),
            entrypoint=tuple(entrypoint),
            cmd=tuple(cmd),
            working_dir=working_dir,
            user=user,
            exposed_ports=tuple(exposed_ports),
            labels=dict(labels or {}),
            stop_signal=stop_signal,
            volumes=tuple(volumes),
        )
        config = apply_changes(config, changes)
        full = _taggable(reference)
        layer = await self._receive_layer(tarball)
        async with self._pinned([layer.digest]):
            try:
                diff_id = await self.layers.add(self._blobs.path(layer.digest))
            except PyswarmError:
                self._drop([layer.digest], but_for=layer.digest)
                raise
            manifest_bytes = await self._blobs.run(lambda: self._write_image(config, layer, diff_id, message))
            return await self._register(manifest_bytes, [full])

    async def _receive_layer(self, tarball: Path | AsyncIterator[bytes]) -> Descriptor:
        chunks = _file_chunks(self._blobs, tarball) if isinstance(tarball, Path) else tarball
        stored = await self._blobs.receive(chunks, limit=self._limits.layer_bytes)
        with self._blobs.path(stored.digest).open("rb") as file:
            media_type = model.layer_media_type(file.read(8))
        return Descriptor(digest=stored.digest, size=stored.size, media_type=media_type)

    def _write_image(self, config: ImageConfig, layer: Descriptor, diff_id: str, message: str) -> bytes:
        data = model.write_config(
            config, [diff_id], architecture=self._architecture, created_at=time.time(), comment=message
        )
        digest = self._blobs.put(data)
        return model.write_manifest(Descriptor(digest=digest, size=len(data), media_type=model.OCI_CONFIG), [layer])

    async def load(self, archive: Path | AsyncIterator[bytes]) -> list[Image]:
        """What `docker save` or an OCI layout in a tar file holds; images without a name are loaded without one."""
        if isinstance(archive, Path):
            return await self._load(archive)
        spool = await self._blobs.run(lambda: self._blobs.writer(self._limits.archive_bytes))
        try:
            async for chunk in archive:
                await self._blobs.run(lambda chunk=chunk: spool.write(chunk))  # type: ignore[misc]
            return await self._load(spool.path)
        finally:
            spool.abort()

    async def _load(self, path: Path) -> list[Image]:
        def read() -> list[SavedImage]:
            found = read_archive(path, self._blobs, self._limits, self._architecture)
            return [SavedImage(image.manifest_bytes, image.references) for image in found]

        loaded, found = [], await self._blobs.run(read)
        try:
            for image in found:
                loaded.append(await self._register(image.manifest_bytes, image.references))
        except PyswarmError:
            for image in found:
                self._drop(_digests_of(image.manifest_bytes))
            raise
        return loaded

    async def save(self, references: Sequence[str], out: Path) -> None:
        """Writes an archive that `load` and `docker load` read."""
        images: dict[str, SavedImage] = {}
        for text in references:
            image_id = self._find(text)
            named = () if _is_id(text, image_id) else (str(parse_reference(text)),)
            data = self._manifest_bytes(image_id)
            known = images.get(image_id, SavedImage(data, ()))
            images[image_id] = SavedImage(data, (*known.references, *named))
        pinned = [digest for image_id in images for digest in self._digests(image_id)]
        async with self._pinned(pinned):
            await self._blobs.run(lambda: write_archive(out, list(images.values()), self._blobs))

    # Looking

    async def list(self) -> list[Image]:
        """Newest first, as docker shows them."""
        images = [self._with_references(image_id) for image_id in self._images]
        return sorted(images, key=lambda image: (-image.created_at, image.id))

    async def inspect(self, reference: str) -> Image:
        return self.find(reference)

    async def exists(self, reference: str) -> bool:
        try:
            self._find(reference)
        except (NotFound, InvalidArgument):
            return False
        return True

    def find(self, reference: str) -> Image:
        """By reference, image id, its beginning, or manifest digest."""
        return self._with_references(self._find(reference))

    # Names

    async def tag(self, reference: str, new: str) -> None:
        image_id = self._find(reference)
        async with self._lock:
            self._database.references[_taggable(new)] = image_id
            await self._save()

    async def remove(self, reference: str, force: bool = False) -> Removed:
        """Takes the reference off, and deletes the image with its last one (all at once when named by its id)."""
        async with self._lock:
            image_id = self._find(reference)
            names = self._names(image_id)
            by_id = _is_id(reference, image_id)
            going = names if by_id else [str(parse_reference(reference))]
            is_last = set(going) >= set(names)
            self._check_removal(reference, image_id, names, by_id=by_id, is_last=is_last, force=force)
            for name in going:
                self._database.references.pop(name, None)
            removed = [RemovedItem(untagged=parse_reference(name).familiar()) for name in going]
            if not is_last:
                await self._save()
                return removed
            digests, diff_ids = self._digests(image_id), self._images[image_id].diff_ids
            self._forget(image_id)
            await self._save()
            await self._blobs.run(lambda: self._collect(digests, diff_ids))
            return [*removed, RemovedItem(deleted=image_id)]

    def _check_removal(
        self, reference: str, image_id: str, names: Sequence[str], *, by_id: bool, is_last: bool, force: bool
    ) -> None:
        if by_id and len(names) > 1 and not force:
            raise FailedPrecondition(
                f"conflict: unable to delete {reference} (must be forced) - "
                "image is referenced in multiple repositories"
            )
        if not is_last:
            return
        for use in self._uses():
            if use.image_id == image_id and (use.is_running or not force):
                kind, remedy = ("running", "cannot") if use.is_running else ("stopped", "must")
                raise FailedPrecondition(
                    f"conflict: unable to remove image '{reference}' ({remedy} be forced) - {kind} container "
                    f"{use.container_id[:12]} is using it: remove the container first"
                )

    # Between nodes

    async def manifest(self, reference: str) -> ImageManifest:
        image_id = self._find(reference)
        data = self._manifest_bytes(image_id)
        parsed = model.parse_manifest(data)
        name = reference if _is_id(reference, image_id) else str(parse_reference(reference))
        return ImageManifest(
            reference=name,
            config_digest=parsed.config.digest,
            config_size=parsed.config.size,
            manifest_bytes=data,
            layers=parsed.layers,
        )

    async def has_blob(self, digest: str) -> bool:
        return self._blobs.has(digest)

    def read_blob(self, digest: str, offset: int = 0, chunk: int = 1024 * 1024) -> AsyncIterator[bytes]:
        return self._blobs.read(digest, offset, chunk)

    async def write_blob(self, digest: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Refused unless the chunks are exactly that content. Writers of one digest share the first one's work."""
        if not 0 <= size <= self._limits.layer_bytes:
            raise InvalidArgument(
                f"a blob of {size} bytes is outside what this store takes: {self._limits.layer_bytes}"
            )
        await self._blobs.write(digest, size, chunks)

    async def commit(self, reference: str, manifest_bytes: bytes) -> Image:
        """Names an image whose blobs have all been written, and unpacks its layers."""
        if len(manifest_bytes) > self._limits.metadata_bytes:
            raise InvalidArgument(f"the manifest is larger than {self._limits.metadata_bytes} bytes")
        names = [] if is_digest(reference) else [str(parse_reference(reference))]
        return await self._register(manifest_bytes, names)

    # Inside

    async def _register(self, manifest_bytes: bytes, names: Sequence[str]) -> Image:
        parsed = model.parse_manifest(manifest_bytes)
        blobs = [parsed.config.digest, *(layer.digest for layer in parsed.layers)]
        manifest_digest = model.digest_of(manifest_bytes)
        async with self._pinned([manifest_digest, *blobs]):
            self._check_blobs(parsed)
            config = await self._blobs.run(lambda: self._read_config(parsed))
            async with self._pinned(config.diff_ids):
                await self._unpack(parsed, config.diff_ids)
                await self._blobs.run(lambda: self._blobs.put(manifest_bytes))
                return await self._name(parsed.config.digest, manifest_digest, names)

    async def _unpack(self, manifest: model.Manifest, diff_ids: Sequence[str]) -> None:
        """All layers, a few at a time; one that fails does not stop the others, which may serve the next attempt."""
        pairs = zip(manifest.layers, diff_ids, strict=True)
        unpacking = (self.layers.ensure(self._blobs.path(layer.digest), diff_id) for layer, diff_id in pairs)
        for outcome in await asyncio.gather(*unpacking, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _name(self, image_id: str, manifest_digest: str, names: Sequence[str]) -> Image:
        async with self._lock:
            if image_id not in self._images:
                self._images[image_id] = await self._blobs.run(lambda: self._describe(manifest_digest))
                self._database.images[image_id] = manifest_digest
            for name in names:
                self._database.references[name] = image_id
            await self._save()
            return self._with_references(image_id)

    def _check_blobs(self, manifest: model.Manifest) -> None:
        wanted = (manifest.config, *manifest.layers)
        missing = [entry.digest for entry in wanted if not self._blobs.has(entry.digest)]
        if missing:
            raise FailedPrecondition(
                f"the image lacks {len(missing)} blobs, the first is {missing[0]}: write them first"
            )
        for entry in wanted:
            if self._blobs.size(entry.digest) != entry.size:
                raise InvalidArgument(f"the manifest gives {entry.digest} a size that it does not have")

    def _read_config(self, manifest: model.Manifest) -> model.ConfigFile:
        config = model.parse_config(self._blobs.read_small(manifest.config.digest, self._limits.metadata_bytes))
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidArgument("the image's manifest and its configuration disagree about the number of layers")
        if config.os not in ("", "linux") or config.architecture not in ("", self._architecture):
            raise InvalidArgument(
                f"the image is for {config.os}/{config.architecture}, and this host is linux/{self._architecture}"
            )
        return config

    def _describe(self, manifest_digest: str) -> Image:
        manifest = model.parse_manifest(self._blobs.read_small(manifest_digest, self._limits.metadata_bytes))
        config = self._read_config(manifest)
        return Image(
            id=manifest.config.digest,
            digest=manifest_digest,
            references=(),
            size=sum(layer.size for layer in manifest.layers),
            created_at=config.created_at,
            architecture=config.architecture,
            os=config.os,
            config=config.config,
            diff_ids=config.diff_ids,
        )

    def _find(self, text: str) -> str:
        hexadecimal = text.removeprefix("sha256:")
        if is_digest(text) or is_short_id(hexadecimal):
            matches = [image_id for image_id in self._images if image_id.startswith(f"sha256:{hexadecimal}")]
            matches = matches or [key for key, value in self._database.images.items() if value == text]
            if len(matches) == 1:
                return matches[0]
            if len(matches) > 1:
                raise AlreadyExists(f"the id prefix '{text}' fits {len(matches)} images: give more of it")
        if is_digest(text):
            raise NotFound(f"No such image: {text}")
        found = self._find_name(text)
        if found is None:
            raise NotFound(f"No such image: {parse_reference(text).familiar()}")
        return found

    def _find_name(self, text: str) -> str | None:
        reference = parse_reference(text)
        found = self._database.references.get(str(reference))
        if found is None and reference.digest is not None:
            wanted = (reference.digest,)
            return next((key for key, value in self._database.images.items() if value in wanted or key in wanted), None)
        return found

    def _names(self, image_id: str) -> Sequence[str]:
        return [name for name, owner in self._database.references.items() if owner == image_id]

    def _with_references(self, image_id: str) -> Image:
        names = sorted(parse_reference(name).familiar() for name in self._names(image_id))
        return msgspec.structs.replace(self._images[image_id], references=tuple(names))

    def _manifest_bytes(self, image_id: str) -> bytes:
        return self._blobs.read_small(self._database.images[image_id], self._limits.metadata_bytes)

    def _forget(self, image_id: str) -> None:
        self._images.pop(image_id, None)
        self._database.images.pop(image_id, None)
        for name in self._names(image_id):
            del self._database.references[name]

    async def _save(self) -> None:
        data = msgspec.json.encode(self._database)
        await self._blobs.run(lambda: write_whole(self._database_path, data, durable=True))

    # What may go

    def _digests(self, image_id: str) -> Sequence[str]:
        return _digests_of(self._manifest_bytes(image_id))

    def _live_blobs(self) -> set[str]:
        return {digest for image_id in self._images for digest in self._digests(image_id)} | set(self._pins)

    def _live_layers(self) -> Collection[str]:
        used = {diff_id for use in self._uses() for diff_id in use.diff_ids}
        named = {diff_id for image in self._images.values() for diff_id in image.diff_ids}
        return used | named | {pin for pin in self._pins if is_digest(pin)}

    def _collect(self, digests: Collection[str], diff_ids: Collection[str]) -> None:
        """After an image went: what was only its own. A layer that a container stands on goes at the next start."""
        self._drop(digests)
        live = self._live_layers()
        for diff_id in diff_ids:
            if diff_id not in live:
                self.layers.remove(diff_id)

    def _drop(self, digests: Collection[str], but_for: str | None = None) -> None:
        """Removes those blobs that no image has and nothing in flight needs (`but_for` itself apart)."""
        live = self._live_blobs() - {but_for}
        for digest in digests:
            if digest not in live:
                self._blobs.remove(digest)

    @asynccontextmanager
    async def _pinned(self, digests: Collection[str]) -> AsyncIterator[None]:
        """What is pinned is not collected. Taken under the lock, so that no collection is under way at that moment."""
        async with self._lock:
            self._pins.update(digests)
        try:
            yield
        finally:
            self._pins.subtract(digests)
            self._pins = +self._pins


def _digests_of(manifest_bytes: bytes) -> list[str]:
    manifest = model.parse_manifest(manifest_bytes)
    layers = [layer.digest for layer in manifest.layers]
    return [model.digest_of(manifest_bytes), manifest.config.digest, *layers]


def _taggable(reference: str) -> str:
    parsed = parse_reference(reference)
    if parsed.digest is not None:
        raise InvalidArgument(f"invalid reference '{reference}': a name to give cannot have a digest")
    return str(parsed)


def _is_id(text: str, image_id: str) -> bool:
    hexadecimal = text.removeprefix("sha256:")
    return is_short_id(hexadecimal) and image_id.startswith(f"sha256:{hexadecimal}")


async def _file_chunks(blobs: BlobStore, path: Path) -> AsyncIterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while data := await blobs.run(lambda: file.read(1024 * 1024)):
            yield data
