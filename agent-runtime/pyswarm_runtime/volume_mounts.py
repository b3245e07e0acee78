"""File systems behind volumes of the local driver: what `type`, `device` and `o` mean, as mount(8) and docker have it.

Deciding what to ask of the kernel is pure; `mount_options` does ask it, in this process's mount namespace.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyswarm_common.errors import FailedPrecondition, InvalidArgument
from pyswarm_runtime import linux

KNOWN_OPTIONS = ("type", "device", "o", "size")
_NETWORK_TYPES = ("nfs", "nfs4", "cifs")
_FLAGS = {
    "ro": linux.MS_RDONLY,
    "nosuid": linux.MS_NOSUID,
    "nodev": linux.MS_NODEV,
    "noexec": linux.MS_NOEXEC,
    "sync": linux.MS_SYNCHRONOUS,
    "noatime": linux.MS_NOATIME,
    "relatime": linux.MS_RELATIME,
    "bind": linux.MS_BIND,
    "rbind": linux.MS_BIND | linux.MS_REC,
    "rw": 0,
    "defaults": 0,
}


@dataclass(frozen=True, slots=True)
class VolumeMount:
    kind: str
    device: str
    flags: int
    data: tuple[str, ...]


def check_options(options: Mapping[str, str]) -> None:
    """Docker's rules: nothing unknown, and `type` and `device` are needed to mount anything."""
    for name in options:
        if name not in KNOWN_OPTIONS:
            raise InvalidArgument(f'invalid option: "{name}": the local driver knows {", ".join(KNOWN_OPTIONS)}')
    if "size" in options:
        raise InvalidArgument("quota size requested but no quota support: leave out the option size of the volume")
    given = {name for name in ("type", "device", "o") if options.get(name)}
    for name in ("device", "type"):
        if given and name not in given:
            raise InvalidArgument(f'missing required option: "{name}"')


def volume_mount(options: Mapping[str, str]) -> VolumeMount | None:
    """None for a plain directory."""
    check_options(options)
    if not options.get("device"):
        return None
    flags, data = 0, []
    for word in filter(None, options.get("o", "").split(",")):
        if word in _FLAGS:
            flags |= _FLAGS[word]
        else:
            data.append(word)
    kind = options["type"]
    return VolumeMount("" if flags & linux.MS_BIND or kind == "none" else kind, options["device"], flags, tuple(data))


def mount_volume(mount: VolumeMount, directory: Path, name: str) -> None:
    """Blocking. Names of servers are looked up here, since the kernel takes addresses only."""
    data = [_resolved(word) if mount.kind in _NETWORK_TYPES else word for word in mount.data]
    try:
        linux.mount(mount.device, str(directory), mount.kind, mount.flags, ",".join(data))
        if mount.flags & linux.MS_BIND and mount.flags & ~(linux.MS_BIND | linux.MS_REC):
            # The kernel takes the other flags of a bind only when it is made anew.
            linux.mount("none", str(directory), "", mount.flags | linux.MS_REMOUNT, "")
    except OSError as error:
        # Without the options, which may hold a password.
        raise FailedPrecondition(
            f"failed to mount local volume {name}: mount {mount.device}, type {mount.kind or 'bind'}: "
            f"{(error.strerror or '').lower()}"
        ) from None


def _resolved(word: str) -> str:
    name, _, value = word.partition("=")
    if name != "addr":
        return word
    try:
        return f"addr={socket.getaddrinfo(value, None, type=socket.SOCK_STREAM)[0][4][0]}"
    except OSError as error:
        raise FailedPrecondition(f"error resolving passed in network volume address {value}: {error}") from error
