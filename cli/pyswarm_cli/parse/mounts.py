"""One `--mount` in docker's long form: every key of it, refused in docker's words. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pyswarm_cli.parse.pairs import boolean, csv_fields
from pyswarm_cli.parse.quantities import size_bytes
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Mount, MountType

_TYPES = {kind.name.lower(): kind for kind in MountType}
_ELSEWHERE = {
    "npipe": "named pipes are Windows'",
    "cluster": "no cluster volume driver is installed",
    "image": "an image cannot be mounted into a service's containers",
}
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_PROPAGATIONS = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
_OCTAL = re.compile("0?[0-7]{1,4}")


def mount(text: str) -> Mount:
    """`type=bind,source=/srv,target=/data,readonly`; a volume unless `type` says otherwise."""
    values: dict[str, Any] = {}
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    for key, value in csv_fields(text, "mount"):
        name = _ALIASES.get(key, key)
        if name in ("volume-label", "volume-opt"):
            option, _, content = value.partition("=")
            (labels if name == "volume-label" else options)[option] = content
        elif name == "consistency":
            continue  # of Docker Desktop: docker takes it everywhere and Linux has no use for it
        elif name in _READERS:
            field, read = _READERS[name]
            values[field] = read(value, name)
        else:
            raise InvalidArgument(f"unexpected key '{key}' in '{key}={value}'")
    kind = values.pop("type", MountType.VOLUME)
    made = Mount(type=kind, volume_labels=labels, volume_options=options, **values)
    _check(made)
    return made


def _kind(text: str, _: str) -> MountType:
    kind = _TYPES.get(text.lower())
    if kind is None:
        reason = _ELSEWHERE.get(text.lower(), "use bind, volume or tmpfs")
        raise InvalidArgument(f"unsupported mount type '{text}': {reason}")
    return kind


def _text(text: str, _: str) -> str:
    return text


def _recursive(text: str, name: str) -> bool:
    """Whether what is mounted below is left out."""
    if text == "readonly":
        raise InvalidArgument(f"invalid value for {name}: readonly is not supported: use enabled, disabled or writable")
    if text not in ("enabled", "disabled", "writable"):
        raise InvalidArgument(
            f'invalid value for {name}: {text} (must be "enabled", "disabled", "writable", or "readonly")'
        )
    return text == "disabled"


def _mode(text: str, name: str) -> int:
    if not _OCTAL.fullmatch(text):
        raise InvalidArgument(f"invalid value for {name}: {text}: write an octal number such as 1777")
    return int(text, 8)


def _size(text: str, name: str) -> int:
    try:
        return size_bytes(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid value for {name}: {error}") from None


def _propagation(text: str, name: str) -> str:
    if text.lower() not in _PROPAGATIONS:
        raise InvalidArgument(f"invalid value for {name}: {text}: use one of {', '.join(_PROPAGATIONS)}")
    return text.lower()


_READERS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "type": ("type", _kind),
    "source": ("source", _text),
    "target": ("target", _text),
    "readonly": ("read_only", boolean),
    "bind-propagation": ("bind_propagation", _propagation),
    "bind-nonrecursive": ("bind_non_recursive", boolean),
    "bind-recursive": ("bind_non_recursive", _recursive),
    "volume-subpath": ("volume_subpath", _text),
    "volume-nocopy": ("volume_no_copy", boolean),
    "volume-driver": ("volume_driver", _text),
    "tmpfs-size": ("tmpfs_size_bytes", _size),
    "tmpfs-mode": ("tmpfs_mode", _mode),
}


def _check(made: Mount) -> None:
    if not made.target:
        raise InvalidArgument("target is required")
    if not made.target.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{made.target}' mount path must be absolute")
    if made.type is MountType.BIND and not made.source.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{made.source}' mount path must be absolute")
    if made.type is MountType.TMPFS and made.source:
        raise InvalidArgument("cannot specify a source for a tmpfs mount: it has none")
    used = {
        MountType.BIND: bool(made.bind_propagation) or made.bind_non_recursive,
        MountType.VOLUME: bool(made.volume_labels or made.volume_options or made.volume_driver or made.volume_subpath)
        or made.volume_no_copy,
        MountType.TMPFS: bool(made.tmpfs_size_bytes or made.tmpfs_mode),
    }
    for kind, is_used in used.items():
        if is_used and kind is not made.type:
            raise InvalidArgument(
                f"cannot mix '{kind.name.lower()}-*' options with mount type '{made.type.name.lower()}'"
            )
