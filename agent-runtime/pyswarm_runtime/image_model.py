"""Manifests and image configurations, OCI and Docker: read from bytes, and written for imported images. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.types import Descriptor, Healthcheck, ImageConfig

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MAX_LAYERS = 127  # overlayfs takes 500; docker 127, so an image with more runs nowhere else
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_T = TypeVar("_T")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    config: Descriptor
    layers: tuple[Descriptor, ...]


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """What we use of an image's configuration file."""

    architecture: str
    os: str
    created_at: float
    config: ImageConfig
    diff_ids: tuple[str, ...]


class _RawDescriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    annotations: dict[str, str] | None = None
    platform: dict[str, Any] | None = None


class _RawManifest(msgspec.Struct, rename="camel"):
    config: _RawDescriptor
    layers: list[_RawDescriptor]


class _RawIndex(msgspec.Struct, rename="camel"):
    manifests: list[_RawDescriptor]


class _RawHealth(msgspec.Struct, rename="pascal"):
    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class _RawConfig(msgspec.Struct, rename="pascal"):
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    working_dir: str = ""
    user: str = ""
    exposed_ports: dict[str, Any] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    volumes: dict[str, Any] | None = None
    healthcheck: _RawHealth | None = None


class _RawRootfs(msgspec.Struct):
    diff_ids: list[str]
    type: str = "layers"


class _RawConfigFile(msgspec.Struct):
    rootfs: _RawRootfs
    architecture: str = ""
    os: str = ""
    created: str | None = None
    config: _RawConfig | None = None


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def hex_of(digest: str) -> str:
    """The hex part of a digest that is fit to be a file name; anything else is refused."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise InvalidArgument(f"invalid digest '{digest[:100]}': expected sha256:<64 hex digits>")
    return value


def parse_manifest(data: bytes) -> Manifest:
    raw = _decode(data, _RawManifest, "manifest")
    if len(raw.layers) > MAX_LAYERS:
        raise InvalidArgument(f"the image has {len(raw.layers)} layers: more than the {MAX_LAYERS} that can be mounted")
    return Manifest(config=_descriptor(raw.config), layers=tuple(_descriptor(layer) for layer in raw.layers))


def parse_config(data: bytes) -> ConfigFile:
    raw = _decode(data, _RawConfigFile, "configuration")
    for diff_id in raw.rootfs.diff_ids:
        hex_of(diff_id)
    return ConfigFile(
        architecture=raw.architecture,
        os=raw.os,
        created_at=_timestamp(raw.created),
        config=_image_config(raw.config or _RawConfig()),
        diff_ids=tuple(raw.rootfs.diff_ids),
    )


def index_entries(data: bytes) -> list[tuple[Descriptor, dict[str, str], dict[str, Any]]]:
    """Of an OCI index or a Docker manifest list: what it names, with annotations and platform."""
    raw = _decode(data, _RawIndex, "index")
    return [(_descriptor(entry), entry.annotations or {}, entry.platform or {}) for entry in raw.manifests]


def is_index(media_type: str) -> bool:
    return media_type in (OCI_INDEX, DOCKER_LIST)


def layer_media_type(head: bytes) -> str:
    """By the first bytes of the blob."""
    if head.startswith(b"\x1f\x8b"):
        return OCI_LAYER + "+gzip"
    return OCI_LAYER + "+zstd" if head.startswith(b"\x28\xb5\x2f\xfd") else OCI_LAYER


def write_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """The same descriptors give the same bytes, so the same image has the same digest on every node."""
    entries = [_as_json(entry) for entry in (config, *layers)]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entries[0], "layers": entries[1:]}
    return msgspec.json.encode(manifest)


def write_config(
    config: ImageConfig, diff_ids: Sequence[str], *, architecture: str, created_at: float, comment: str
) -> bytes:
    created = datetime.fromtimestamp(created_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    document = {
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": _config_as_json(config),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created": created, "comment": comment}],
    }
    return msgspec.json.encode(document)


def _descriptor(raw: _RawDescriptor) -> Descriptor:
    hex_of(raw.digest)
    if raw.size < 0:
        raise InvalidArgument(f"the manifest gives {raw.digest} a negative size")
    return Descriptor(digest=raw.digest, size=raw.size, media_type=raw.media_type)


def _as_json(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def _decode(data: bytes, kind: type[_T], what: str) -> _T:
    try:
        return decode_json(data, kind)
    except Malformed as error:
        raise InvalidArgument(f"the image's {what} is not what the OCI format says: {error}") from error


def _image_config(raw: _RawConfig) -> ImageConfig:
    return ImageConfig(
        env=tuple(raw.env or ()),
        entrypoint=tuple(raw.entrypoint or ()),
        cmd=tuple(raw.cmd or ()),
        working_dir=raw.working_dir,
        user=raw.user,
        exposed_ports=tuple(sorted(raw.exposed_ports or ())),
        labels=raw.labels or {},
        stop_signal=raw.stop_signal,
        volumes=tuple(sorted(raw.volumes or ())),
        healthcheck=_healthcheck(raw.healthcheck),
    )


def _healthcheck(raw: _RawHealth | None) -> Healthcheck | None:
    if raw is None or not raw.test:
        return None
    return Healthcheck(
        test=tuple(raw.test),
        interval_s=raw.interval / 1e9,
        timeout_s=raw.timeout / 1e9,
        start_period_s=raw.start_period / 1e9,
        start_interval_s=raw.start_interval / 1e9,
        retries=raw.retries,
    )


def _config_as_json(config: ImageConfig) -> dict[str, Any]:
    document = {
        "Env": list(config.env),
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "WorkingDir": config.working_dir,
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "Volumes": {volume: {} for volume in config.volumes},
    }
    return {key: value for key, value in document.items() if value}


def _timestamp(text: str | None) -> float:
    if not text:
        return 0.0
    try:
        return msgspec.convert(text, type=datetime).timestamp()
    except (msgspec.ValidationError, ValueError, OverflowError):
        return 0.0
