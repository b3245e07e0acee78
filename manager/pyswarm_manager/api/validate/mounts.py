"""What the mounts of a container may be told; docker's words."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from pyswarm_common.model import Mount, MountType
from pyswarm_manager.api.validate.fields import Violation, check_count, check_labels, check_text, each, shown
from pyswarm_manager.api.validate.placeholders import has_placeholders

MAX_MOUNTS = 4096
MAX_OPTIONS = 64
PROPAGATIONS = frozenset({"", "rprivate", "private", "rshared", "shared", "rslave", "slave"})
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MAX_MODE = 0o7777
_MAX_TMPFS_BYTES = 1 << 62


def check_mounts(mounts: tuple[Mount, ...]) -> Iterator[Violation]:
    """Each by itself, and that no two are at one place."""
    yield from check_count(mounts, MAX_MOUNTS, "mounts", "mounts")
    targets: set[str] = set()
    for index, mount in enumerate(mounts):
        yield from each("mounts", index, _check_mount(mount))
        target = posixpath.normpath(mount.target) if mount.target else ""
        if target and target in targets:
            yield f"mounts[{index}].target", f"ContainerSpec: duplicate mount point: {mount.target}"
        targets.add(target)


def _check_mount(mount: Mount) -> Iterator[Violation]:
    yield from check_text(mount.target, "target", "mount target")
    yield from check_text(mount.source, "source", "mount source")
    if not mount.target:
        yield "target", "invalid mount config: field Target must not be empty"
    elif not mount.target.startswith("/"):
        yield "target", f"invalid mount path: {shown(mount.target)} mount path must be absolute"
    elif posixpath.normpath(mount.target).lstrip("/") == "":
        yield "target", "invalid specification: destination can't be '/'"
    if mount.type is MountType.BIND and not mount.source.startswith("/"):
        yield "source", f"invalid mount path: {shown(mount.source)} mount path must be absolute"
    if mount.type is MountType.VOLUME and not _is_volume(mount.source):
        yield "source", f"invalid volume name {shown(mount.source)}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    if mount.type is MountType.TMPFS and mount.source:
        yield "source", "invalid mount config for type tmpfs: field Source must not be specified"
    if not 0 <= mount.tmpfs_size_bytes <= _MAX_TMPFS_BYTES:
        yield "tmpfs_size_bytes", "invalid mount config: the size must be positive"
    if mount.tmpfs_mode > _MAX_MODE:
        yield "tmpfs_mode", f"invalid mount config: {mount.tmpfs_mode:o} is no file mode"
    if mount.bind_propagation not in PROPAGATIONS:
        yield "bind_propagation", f"invalid propagation mode: {shown(mount.bind_propagation)}"
    yield from _check_kinds(mount)
    yield from _check_volume(mount)


def _is_volume(name: str) -> bool:
    return not name or has_placeholders(name) or _VOLUME.fullmatch(name) is not None


def _check_kinds(mount: Mount) -> Iterator[Violation]:
    """What belongs to another type of mount."""
    for kind, path, is_used in (
        (MountType.TMPFS, "tmpfs_size_bytes", mount.tmpfs_size_bytes > 0),
        (MountType.TMPFS, "tmpfs_mode", mount.tmpfs_mode > 0),
        (MountType.BIND, "bind_propagation", bool(mount.bind_propagation)),
        (MountType.BIND, "bind_non_recursive", mount.bind_non_recursive),
        (MountType.VOLUME, "volume_no_copy", mount.volume_no_copy),
        (MountType.VOLUME, "volume_labels", bool(mount.volume_labels)),
        (MountType.VOLUME, "volume_driver", bool(mount.volume_driver)),
        (MountType.VOLUME, "volume_options", bool(mount.volume_options)),
        (MountType.VOLUME, "volume_subpath", bool(mount.volume_subpath)),
    ):
        if is_used and kind is not mount.type:
            options, found = kind.name.lower(), mount.type.name.lower()
            yield path, f"invalid mount config: cannot mix {options} options with mount type {found}"


def _check_volume(mount: Mount) -> Iterator[Violation]:
    yield from check_labels(mount.volume_labels, "volume_labels")
    yield from check_text(mount.volume_driver, "volume_driver", "volume driver")
    yield from check_count(tuple(mount.volume_options), MAX_OPTIONS, "volume_options", "volume options")
    for key, value in mount.volume_options.items():
        yield from check_text(key, "volume_options", "volume option")
        yield from check_text(value, "volume_options", f"volume option {shown(key)}")
    path = mount.volume_subpath
    yield from check_text(path, "volume_subpath", "volume subpath")
    if path.startswith("/") or ".." in path.split("/"):
        yield "volume_subpath", "subpath must be a relative path within the volume"
