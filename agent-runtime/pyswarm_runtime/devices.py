"""Device nodes of the host for containers: those that were asked for, or all of them. Looks, never changes."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path

from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.oci.resources import DeviceNode
from pyswarm_runtime.types import Device

MAX_NODES = 4096
# Every container has these of its own; names to pass over, not places to write to.
_PASSED_OVER = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console")  # noqa: S108


def host_devices() -> tuple[DeviceNode, ...]:
    """Every device node of the host, for privileged containers."""
    return tuple(_below("/dev", "/dev", "rwm"))


def device_paths(limit: int) -> tuple[str, ...]:
    """What can be asked for by name: nodes, links to them, and directories that hold some.

    Nothing if they are too many: a list that is not whole would say of a device that it is not there.
    """
    found: dict[str, None] = {}
    for place, names, files in os.walk("/dev"):
        names[:] = sorted(name for name in names if not f"{place}/{name}".startswith(_PASSED_OVER))
        here = [f"{place}/{name}" for name in sorted(files) if _is_device(f"{place}/{name}")]
        if here and place != "/dev":
            found[place] = None
        found |= dict.fromkeys(here)
        if len(found) > limit:
            return ()
    return tuple(found)


def _is_device(path: str) -> bool:
    try:
        mode = Path(path).stat().st_mode
    except OSError:  # a link to nowhere
        return False
    return not path.startswith(_PASSED_OVER) and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode))


def wanted_devices(devices: tuple[Device, ...]) -> tuple[DeviceNode, ...]:
    """What was asked for; a directory stands for all devices in it."""
    return tuple(node for device in devices for node in _wanted(device))


def _wanted(device: Device) -> Iterator[DeviceNode]:
    inside = posixpath.normpath(device.container_path or device.host_path)
    try:
        real = os.path.realpath(device.host_path, strict=True)
        found = Path(real).stat()
    except OSError as error:
        raise _refusal(device.host_path, (error.strerror or "").lower()) from error
    if stat.S_ISDIR(found.st_mode):
        nodes = list(_below(real, inside, device.permissions))
        if not nodes:
            raise _refusal(device.host_path, "no devices found in the directory")
        yield from nodes
    elif (node := _node(found, inside, device.permissions)) is not None:
        yield node
    else:
        raise _refusal(device.host_path, "not a device node")


def _refusal(path: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f'error gathering device information while adding custom device "{path}": {reason}')


def _below(directory: str, inside: str, access: str) -> Iterator[DeviceNode]:
    count = 0
    for place, names, files in os.walk(directory):
        names[:] = sorted(name for name in names if not f"{place}/{name}".startswith(_PASSED_OVER))
        for name in sorted(files):
            path = f"{place}/{name}"
            node = _node(os.lstat(path), inside + path.removeprefix(directory), access)
            if node is None or path.startswith(_PASSED_OVER):
                continue
            count += 1
            if count > MAX_NODES:
                raise _refusal(directory, f"more than {MAX_NODES} devices")
            yield node


def _node(found: os.stat_result, inside: str, access: str) -> DeviceNode | None:
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind:
        return None
    number = found.st_rdev
    return DeviceNode(
        path=inside,
        kind=kind,
        major=os.major(number),
        minor=os.minor(number),
        access=access,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
    )
