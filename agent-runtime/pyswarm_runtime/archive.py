"""Image archives: `docker save` files and OCI layouts, read in one pass and written.

Reading puts every file of the archive into the blob store as it streams by, then finds out which of them make images;
what belongs to none is dropped again. Nothing of the archive is trusted: sizes and counts are bounded, names are only
keys of a table and never paths, and contents are known by their digests.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime import image_model as model
from pyswarm_runtime.blobs import BlobStore
from pyswarm_runtime.reference import parse_reference
from pyswarm_runtime.tarstream import ForwardReader, copy_member, members
from pyswarm_runtime.types import Descriptor, Limits

MAX_ENTRIES = 65_536
MAX_LINKS = 16
MAX_IMAGES = 1000
MAX_INDEX_DEPTH = 3
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
# containerd and docker put the full reference under the first, the OCI's own tools a tag or a name under the second.
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class FoundImage:
    """`references` are in full form; a manifest that the archive lacks was made from docker's `manifest.json`."""

    manifest_bytes: bytes
    references: tuple[str, ...]


@dataclass(slots=True)
class _Contents:
    files: dict[str, Descriptor] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    added: set[str] = field(default_factory=set)

    def find(self, name: str) -> Descriptor | None:
        path = posixpath.normpath(name)
        for _ in range(MAX_LINKS):
            if path in self.files or path not in self.links:
                return self.files.get(path)
            path = self.links[path]
        raise InvalidArgument(f"the archive's '{name[:200]}' is a link that leads in a circle")


class _DockerEntry(msgspec.Struct, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


def read_archive(path: Path, blobs: BlobStore, limits: Limits, architecture: str) -> list[FoundImage]:
    """Blocking. On refusal nothing of the archive stays behind."""
    contents = _Contents()
    kept: set[str] = set()
    try:
        _store_members(path, contents, blobs, limits)
        found = _find_images(contents, blobs, limits, architecture)
        kept = _needed(found)
    finally:
        for digest in contents.added - kept:
            blobs.remove(digest)
    return found


def _store_members(path: Path, contents: _Contents, blobs: BlobStore, limits: Limits) -> None:
    with path.open("rb", buffering=0) as file:
        reader = ForwardReader(file, limits.archive_bytes)
        for archive, member in members(reader, MAX_ENTRIES):
            name = posixpath.normpath(member.name)
            if member.issym():
                contents.links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                contents.links[name] = posixpath.normpath(member.linkname)
            elif member.isreg():
                contents.files[name] = _store_member(archive, member, reader, contents, blobs, limits)


def _store_member(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    reader: ForwardReader,
    contents: _Contents,
    blobs: BlobStore,
    limits: Limits,
) -> Descriptor:
    writer = blobs.writer(limits.layer_bytes)
    head = b""
    try:
        for chunk in copy_member(archive, member, reader):
            head = head or chunk[:8]
            writer.write(chunk)
        if not blobs.has(writer.digest):
            contents.added.add(writer.digest)
        stored = writer.commit()
    except BaseException:
        writer.abort()
        raise
    return Descriptor(digest=stored.digest, size=stored.size, media_type=model.layer_media_type(head))


def _find_images(contents: _Contents, blobs: BlobStore, limits: Limits, architecture: str) -> list[FoundImage]:
    docker, oci = contents.find("manifest.json"), contents.find("index.json")
    if docker is not None:
        data = blobs.read_small(docker.digest, limits.metadata_bytes)
        return [_from_docker(entry, contents, blobs, limits) for entry in _docker_entries(data)]
    if oci is not None:
        data = blobs.read_small(oci.digest, limits.metadata_bytes)
        return _from_index(data, contents, blobs, limits, architecture, depth=0)
    raise InvalidArgument(
        "this is not an image archive: it has neither manifest.json nor index.json "
        "(for a root file system use 'image import')"
    )


def _docker_entries(data: bytes) -> list[_DockerEntry]:
    try:
        entries = decode_json(data, list[_DockerEntry])
    except Malformed as error:
        raise InvalidArgument(f"the archive's manifest.json is not what docker writes: {error}") from error
    if not entries or len(entries) > MAX_IMAGES:
        raise InvalidArgument(f"the archive names {len(entries)} images: expected 1 to {MAX_IMAGES}")
    return entries


def _from_docker(entry: _DockerEntry, contents: _Contents, blobs: BlobStore, limits: Limits) -> FoundImage:
    config = _member(contents, entry.config)
    parsed = model.parse_config(blobs.read_small(config.digest, limits.metadata_bytes))
    if len(parsed.diff_ids) != len(entry.layers):
        raise InvalidArgument("the archive's manifest.json and the image's configuration disagree about its layers")
    config = Descriptor(digest=config.digest, size=config.size, media_type=model.OCI_CONFIG)
    manifest = model.write_manifest(config, [_member(contents, layer) for layer in entry.layers])
    references = tuple(str(parse_reference(tag)) for tag in entry.repo_tags or ())
    return FoundImage(manifest, references)


def _member(contents: _Contents, name: str) -> Descriptor:
    found = contents.find(name)
    if found is None:
        raise InvalidArgument(f"the archive is incomplete: it lacks '{name[:200]}'")
    return found


def _from_index(
    data: bytes, contents: _Contents, blobs: BlobStore, limits: Limits, architecture: str, depth: int
) -> list[FoundImage]:
    if depth > MAX_INDEX_DEPTH:
        raise InvalidArgument("the archive's indexes are nested too deeply")
    entries = model.index_entries(data)
    if len(entries) > MAX_IMAGES:
        raise InvalidArgument(f"the archive names {len(entries)} images: more than {MAX_IMAGES}")
    found = []
    for descriptor, notes, platform in entries:
        if platform and not _is_fitting(platform, architecture):
            continue
        references = _annotated(notes)
        content = _oci_blob(contents, blobs, descriptor.digest, limits)
        if model.is_index(descriptor.media_type):
            inner = _from_index(content, contents, blobs, limits, architecture, depth + 1)
            found += [FoundImage(image.manifest_bytes, references or image.references) for image in inner]
        else:
            found.append(FoundImage(content, references))
    if not found and depth == 0:
        raise InvalidArgument(f"the archive has no image for linux/{architecture}")
    return found


def _oci_blob(contents: _Contents, blobs: BlobStore, digest: str, limits: Limits) -> bytes:
    stored = _member(contents, f"blobs/sha256/{model.hex_of(digest)}")
    if stored.digest != digest:
        raise InvalidArgument(f"the archive's blob {digest} has other content: it is damaged")
    return blobs.read_small(digest, limits.metadata_bytes)


def _is_fitting(platform: Mapping[str, Any], architecture: str) -> bool:
    return (platform.get("os", "linux"), platform.get("architecture", architecture)) == ("linux", architecture)


def _annotated(annotations: Mapping[str, str]) -> tuple[str, ...]:
    for key in _NAME_ANNOTATIONS:
        if key in annotations:
            return (str(parse_reference(annotations[key])),)
    return ()


def _needed(found: Sequence[FoundImage]) -> set[str]:
    needed = set()
    for image in found:
        manifest = model.parse_manifest(image.manifest_bytes)
        needed |= {model.digest_of(image.manifest_bytes), manifest.config.digest}
        needed |= {layer.digest for layer in manifest.layers}
    return needed


@dataclass(frozen=True, slots=True)
class SavedImage:
    manifest_bytes: bytes
    references: tuple[str, ...]  # in full form


def write_archive(out: Path, images: Sequence[SavedImage], blobs: BlobStore) -> None:
    """One file that is both an OCI layout and what `docker load` reads. Blocking; replaces `out` when complete."""
    temporary = out.with_name(f".{out.name}.tmp")
    with ExitStack() as stack:
        stack.callback(temporary.unlink, missing_ok=True)
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            _write_blobs(archive, images, blobs)
            _write_file(archive, "oci-layout", OCI_LAYOUT)
            _write_file(archive, "index.json", msgspec.json.encode(_index(images)))
            _write_file(archive, "manifest.json", msgspec.json.encode([_docker_manifest(image) for image in images]))
        temporary.rename(out)


def _write_blobs(archive: tarfile.TarFile, images: Sequence[SavedImage], blobs: BlobStore) -> None:
    written = set()
    for image in images:
        manifest = model.parse_manifest(image.manifest_bytes)
        digest = model.digest_of(image.manifest_bytes)
        if digest not in written:
            _write_file(archive, _blob_name(digest), image.manifest_bytes)
        for descriptor in (manifest.config, *manifest.layers):
            if descriptor.digest not in written:
                archive.add(blobs.path(descriptor.digest), _blob_name(descriptor.digest), filter=_anonymous)
            written.add(descriptor.digest)
        written.add(digest)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode, member.mtime = 0o644, 0
    return member


def _write_file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(_anonymous(member), io.BytesIO(data))


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{model.hex_of(digest)}"


def _index(images: Sequence[SavedImage]) -> dict[str, Any]:
    entries = []
    for image in images:
        entry = {
            "mediaType": model.OCI_MANIFEST,
            "digest": model.digest_of(image.manifest_bytes),
            "size": len(image.manifest_bytes),
        }
        named = [{**entry, "annotations": {_NAME_ANNOTATIONS[0]: reference}} for reference in image.references]
        entries += named or [entry]
    return {"schemaVersion": 2, "mediaType": model.OCI_INDEX, "manifests": entries}


def _docker_manifest(image: SavedImage) -> dict[str, Any]:
    manifest = model.parse_manifest(image.manifest_bytes)
    return {
        "Config": _blob_name(manifest.config.digest),
        "RepoTags": [parse_reference(reference).familiar() for reference in image.references],
        "Layers": [_blob_name(layer.digest) for layer in manifest.layers],
    }
